/**
 * `ctx.container` on the local platform: the part of workerd's interface that @cloudflare/containers and @cloudflare/sandbox
 * use.
 */
import { succeeds } from "../../container/sandboxd/file-error.ts";
import { type NetworkPlatform, TRUST_INTERCEPTION } from "../../src/actors/platform/platform.ts";
import { TOKEN_VARIABLE } from "../../container/sandboxd/protocol.ts";
import { actorNamed } from "../../src/container/actor.ts";
import type { SandboxNamespaces } from "../../src/shared/config.ts";
import type { RefusedConnections, SeenConnections } from "../../src/shared/connection-log.ts";
import type { ActorName } from "../../src/shared/names.ts";
import type { NetworkPolicy } from "../../src/shared/network-policy.ts";
import { EngineClient, notListening, type LocalEnv } from "./engine-client.ts";
import { serveOutbound } from "./serve-outbound.ts";
import { matchesHost, type ExitReport, type Intercepts, type StartRequest } from "./engine-protocol.ts";

/**
 * The key in the actor's synchronous storage. The SDK's constructor needs `running`, and could not wait for the asynchronous
 * storage.
 */
const STORAGE_KEY = "__local_container";

interface StoredInstance {
  sandbox: string;
  engine: string;
}

type ContainerAPI = Pick<
  Container,
  | "running"
  | "start"
  | "monitor"
  | "destroy"
  | "signal"
  | "getTcpPort"
  | "setInactivityTimeout"
  | "interceptOutboundHttp"
  | "interceptOutboundHttps"
  | "interceptAllOutboundHttp"
>;

/** Call it before the SDK's constructor: `super(withLocalContainer(ctx, env), env)`. */
export function withLocalContainer<Props>(
  ctx: DurableObjectState<Props>,
  env: LocalEnv & SandboxNamespaces,
): DurableObjectState<Props> {
  const container = new LocalContainer(ctx, env);
  Object.defineProperty(ctx, "container", { value: container, configurable: true });
  return ctx;
}

export function localNetwork({ container }: { container?: Container }): NetworkPlatform {
  if (container instanceof LocalContainer) return container;
  throw new Error("This actor has no local container.");
}

interface Instance {
  sandbox: string;
  ready: Promise<void>;
  /** Resolves when the sandbox ends normally; otherwise rejects with the SDK's message. */
  ended: Promise<void>;
  isEnded: boolean;
}

/** More hosts than one container has. Those of earlier containers are forgotten. */
const MAX_HOSTS = 5000;

function intercept(bindings: Map<string, Fetcher>, address: string, binding: Fetcher): void {
  const host = address.toLowerCase();
  // The newest one is last.
  bindings.delete(host);
  bindings.set(host, binding);
  for (const [oldest] of bindings) if (bindings.size > MAX_HOSTS) bindings.delete(oldest);
}

type ActorContext = Pick<DurableObjectState, "id" | "storage" | "waitUntil">;

class LocalContainer implements ContainerAPI, NetworkPlatform {
  readonly isAlwaysTrusted = true;
  readonly #ctx: ActorContext;
  readonly #engine: EngineClient;
  readonly #engineURL: string;
  readonly #name: string | undefined;
  readonly #http = new Map<string, Fetcher>();
  readonly #https = new Map<string, Fetcher>();
  #policy: NetworkPolicy | undefined;
  #seen: SeenConnections | undefined;
  #instance: Instance | undefined;

  constructor(ctx: ActorContext, env: LocalEnv & SandboxNamespaces) {
    this.#ctx = ctx;
    // Compares ids and not names, because an actor does not always know its own name.
    const names = env.LOCAL_DIRECTORIES?.split(",") ?? [];
    this.#name = names.find((name) => actorNamed(env, name as ActorName).id.equals(ctx.id));
    this.#engine = new EngineClient(env);
    this.#engineURL = env.LOCAL_ENGINE_URL;
    const stored = ctx.storage.kv.get<StoredInstance>(STORAGE_KEY);
    // After a restart the engine may have the same URL. The new engine does not know the sandbox, so `exit` reports that the
    // sandbox has ended.
    if (stored !== undefined && stored.engine === this.#engineURL)
      this.#adopt(stored.sandbox, Promise.resolve());
  }

  get running(): boolean {
    return this.#instance !== undefined;
  }

  start(options?: ContainerStartupOptions): void {
    if (this.#instance !== undefined)
      throw new Error("start() cannot be called on a container that is already running.");
    const sandbox = crypto.randomUUID();
    const { [TOKEN_VARIABLE]: token, ...env } = options?.env ?? {};
    const request: StartRequest = {
      actor: this.#ctx.id.toString(),
      name: this.#name,
      // The SDK's variables for the image have no effect here, and the engine cannot know them for the prepared sandbox.
      env: Object.fromEntries(
        Object.entries(env).filter(
          ([name]) => !name.startsWith("SANDBOX_LOG_") && name !== TRUST_INTERCEPTION,
        ),
      ),
      token,
      enableInternet: options?.enableInternet ?? false,
      intercepts: this.#intercepts(),
      ...(this.#policy === undefined ? {} : { policy: this.#policy }),
    };
    this.#ctx.storage.kv.put(STORAGE_KEY, { sandbox, engine: this.#engineURL } satisfies StoredInstance);
    this.#adopt(
      sandbox,
      this.#engine.call("PUT", `/sandboxes/${sandbox}`, request).then(() => undefined),
    );
  }

  async monitor(): Promise<void> {
    if (this.#instance === undefined)
      throw new Error("monitor() cannot be called on a container that is not running.");
    await this.#instance.ended;
  }

  async destroy(): Promise<void> {
    const instance = this.#instance;
    if (instance === undefined) return;
    await instance.ready.catch(() => undefined);
    await this.#engine.call("DELETE", `/sandboxes/${instance.sandbox}`).catch(() => undefined);
    await instance.ended.catch(() => undefined);
  }

  signal(signo: number): void {
    const instance = this.#instance;
    if (instance === undefined) return;
    const path = `/sandboxes/${instance.sandbox}/signal`;
    this.#ctx.waitUntil(
      instance.ready.then(
        async () => void (await this.#engine.call("POST", path, { signal: signo }).catch(() => undefined)),
        () => undefined,
      ),
    );
  }

  getTcpPort(port: number): Fetcher {
    return {
      fetch: async (input: RequestInfo | URL, init?: RequestInit) => {
        const instance = this.#instance;
        if (instance === undefined) throw new Error(`${notListening}: it is not running`);
        try {
          await instance.ready;
        } catch (error) {
          // After this message, the SDK reads the true reason from monitor().
          throw new Error(`${notListening}: it did not start`, { cause: error });
        }
        const isWhole = input instanceof Request && init === undefined;
        const request = isWhole ? input : new Request(input instanceof URL ? input.href : input, init);
        return await this.#engine.forward(instance.sandbox, port, request);
      },
      connect: () => {
        throw new Error("The local platform forwards HTTP and WebSocket to a port, not raw TCP.");
      },
    };
  }

  async setInactivityTimeout(): Promise<void> {
    // Does nothing: the SDK's own alarm stops a sandbox at `sleepAfter`, and all sandboxes end with the server.
  }

  async interceptOutboundHttp(address: string, binding: Fetcher): Promise<void> {
    intercept(this.#http, address, binding);
    await this.#sendIntercepts();
  }

  async interceptOutboundHttps(address: string, binding: Fetcher): Promise<void> {
    intercept(this.#https, address, binding);
    await this.#sendIntercepts();
  }

  async interceptAllOutboundHttp(): Promise<void> {
    throw new Error("The local platform intercepts requests to named hosts, not all requests.");
  }

  prepareStart(): void {
    // Does nothing, because `start` sends the policy.
  }

  async enforce({ internet, allowHosts }: NetworkPolicy): Promise<boolean> {
    this.#policy = { internet, allowHosts };
    await this.#update("policy", this.#policy);
    return true;
  }

  async connections(): Promise<SeenConnections[]> {
    const running = await this.#request<SeenConnections>("connections").catch(() => undefined);
    // If the sandbox has ended during the request, `running` and `#seen` may contain the same log.
    const logs = running?.log === this.#seen?.log ? [this.#seen] : [this.#seen, running];
    return logs.filter((connections) => connections !== undefined);
  }

  forget(): void {
    this.#seen = undefined;
  }

  async refusalsSince(time: number): Promise<RefusedConnections[]> {
    return (await this.#request<RefusedConnections[]>(`refusals/${time}`)) ?? [];
  }

  async #request<T>(what: string): Promise<T | undefined> {
    const instance = this.#instance;
    if (instance === undefined) return undefined;
    await instance.ready.catch(() => undefined);
    const response = await this.#engine.fetch(`/sandboxes/${instance.sandbox}/${what}`);
    return response.ok ? (JSON.parse(await response.text()) as T) : undefined;
  }

  #intercepts(): Intercepts {
    return { http: [...this.#http.keys()], https: [...this.#https.keys()] };
  }

  async #sendIntercepts(): Promise<void> {
    await this.#update("intercepts", this.#intercepts());
  }

  async #update(what: string, setting: unknown): Promise<void> {
    const instance = this.#instance;
    if (instance === undefined) return;
    await instance.ready.catch(() => undefined);
    if (instance.isEnded) return;
    try {
      await this.#engine.call("PUT", `/sandboxes/${instance.sandbox}/${what}`, setting);
    } catch (error) {
      // The call fails if the sandbox has ended. `#watch` reports the end.
      if (!String(error).includes("no such sandbox")) throw error;
    }
  }

  #find(pattern: string): Fetcher | undefined {
    const exact = this.#http.get(pattern) ?? this.#https.get(pattern);
    if (exact !== undefined) return exact;
    return [...this.#http].find(([registered]) => matchesHost(registered, pattern))?.[1];
  }

  #adopt(sandbox: string, ready: Promise<void>): void {
    const instance: Instance = { sandbox, ready, ended: Promise.resolve(), isEnded: false };
    instance.ended = this.#watch(instance);
    instance.ended.catch(() => undefined);
    void this.#serve(instance);
    this.#instance = instance;
  }

  async #serve(instance: Instance): Promise<void> {
    if (!(await succeeds(instance.ready))) return;
    const find = (pattern: string) => this.#find(pattern);
    await serveOutbound(this.#engine, instance.sandbox, find, () => !instance.isEnded);
  }

  /** Reports to the SDK when the sandbox no longer runs: it ended, could not start, or the engine is gone. */
  async #watch(instance: Instance): Promise<void> {
    let report: ExitReport;
    try {
      await instance.ready;
      report = await this.#exit(instance.sandbox);
      this.#seen = report.seen ?? this.#seen;
    } finally {
      instance.isEnded = true;
      if (this.#instance === instance) {
        this.#instance = undefined;
        this.#ctx.storage.kv.delete(STORAGE_KEY);
      }
    }
    if (report.exitCode !== 0)
      throw new Error(`container exited with unexpected exit code: ${report.exitCode}`);
  }

  async #exit(sandbox: string): Promise<ExitReport> {
    const killed: ExitReport = { exitCode: 137, reason: "the engine is gone" };
    const response = await this.#engine.requestWithRetry(`/sandboxes/${sandbox}/exit`).catch(() => undefined);
    return response?.ok ? (JSON.parse(await response.text()) as ExitReport) : killed;
  }
}
