/** The SDK's class as the actor's base, with our overrides. */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import type { OutboundPolicy } from "../../container/internet.ts";
import type { Env } from "../../shared/config.ts";
import type { Connection } from "../../shared/connection-log.ts";
import type { Secret } from "../../shared/secrets.ts";
import { limitMessages, limitRefusal } from "./control-messages.ts";
import type { NetworkPlatform } from "./platform.ts";
import { OutboundHandlers, intercept, requireOutboundHandlers } from "./outbound-handlers.ts";
import { SDKInterpreter, SDKPlatform } from "./sdk-platform.ts";

export abstract class SandboxActor extends BaseSandbox<Env> {
  /** `renewActivityTimeout` sets the real value. */
  override sleepAfter: string | number = 600;
  protected readonly platform = new SDKPlatform(this, this.ctx.container);
  protected readonly interpreter = new SDKInterpreter(this);
  readonly #outbound = new OutboundHandlers(this, this.ctx.storage.kv, this.platform);

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    requireOutboundHandlers(new.target);
    super(ctx, env);
    // While the SDK counts calls to the control server, it stops no idle container, and its alarm repeats at once. A control server that
    // user code has stopped or replaced keeps them open for ever. `IdleStop` knows what uses the container.
    Object.defineProperty(this, "inflightRequests", { get: () => 0, set() {} });
  }

  protected get networkPlatform(): NetworkPlatform {
    return this.#outbound;
  }

  protected noteConnection(connection: Connection): void {
    this.#outbound.note(connection);
  }

  /** Routes requests to these hosts to the policy handler, including TLS, in the running container and in later containers. */
  protected intercept(hosts: readonly string[], policy: OutboundPolicy, secrets: readonly Secret[]) {
    return intercept(this, this.ctx, hosts, policy, secrets);
  }

  /** Undefined until the first call. */
  protected abstract get principalID(): string | undefined;

  /** Serves a request to this actor. Returns undefined if the SDK must serve it. */
  protected abstract serve(request: Request): Promise<Response> | undefined;

  override fetch(request: Request): Promise<Response> {
    return this.serve(request) ?? super.fetch(request);
  }

  /** The SDK calls this whenever it starts or reaches a container. */
  override startAndWaitForPorts(
    ...args: Parameters<BaseSandbox<Env>["startAndWaitForPorts"]>
  ): Promise<void> {
    return this.platform.attempt(() => super.startAndWaitForPorts(...args));
  }

  /**
   * For a WebSocket request, returns the WebSocket of the container. The SDK would copy each message to a second WebSocket, to
   * renew the idle time with each message. For this server, messages do not count as use (`renewActivityTimeout`).
   */
  override async containerFetch(...args: Parameters<BaseSandbox<Env>["containerFetch"]>): Promise<Response> {
    const [request, port] = args;
    const isUpgrade = request instanceof Request && request.headers.get("upgrade") === "websocket";
    const abort = new AbortController();
    const connect = (upgrade: Request, to: number) => {
      const signal = AbortSignal.any([upgrade.signal, abort.signal]);
      return this.platform
        .fetch(to, new Request(upgrade, { signal }))
        .catch(() => super.containerFetch(...args));
    };
    const response =
      isUpgrade && typeof port === "number" && this.platform.isRunning
        ? await connect(request, port)
        : await super.containerFetch(...args);
    if (response.webSocket) limitMessages(response.webSocket, this.principalID ?? "", () => abort.abort());
    else if (isUpgrade) return await limitRefusal(response);
    return response;
  }

  override async onStart(): Promise<void> {
    await super.onStart();
    this.platform.noteStart();
  }

  override onStop(params?: Parameters<BaseSandbox<Env>["onStop"]>[0]): Promise<void> {
    return this.platform.handleStop(() => super.onStop(params));
  }

  /**
   * The SDK restarts the idle time with each new actor and each container call. If no call or run uses the sandbox, this method
   * sets only the remaining time.
   */
  override renewActivityTimeout(): void {
    const configured = this.sleepAfter;
    if (typeof configured === "number" && this.platform.idle)
      this.sleepAfter = this.platform.idle.leftMs() / 1000;
    super.renewActivityTimeout();
    this.sleepAfter = configured;
  }

  override async onActivityExpired(): Promise<void> {
    await this.platform.idle?.onIdleTimeout();
  }
}
