/** Sets the SDK's outbound handlers. Only this file knows their names, and when the SDK stores and reads them. */
import type { SandboxKV } from "../../storage/sandbox-schema.ts";
import type { Sandbox as BaseSandbox, ContainerProxy } from "@cloudflare/sandbox";
import { ENDING_PATH, SERVER_HOST, TOKEN_HEADER } from "../../../container/sandboxd/protocol.ts";
import { actorOf } from "../../container/actor.ts";
import { type OutboundPolicy, forwardByPolicy } from "../../container/internet.ts";
import { callModel } from "../../container/model-egress.ts";
import type { Env } from "../../shared/config.ts";
import {
  type Connection,
  ConnectionLog,
  type RefusedConnections,
  type SeenConnections,
} from "../../shared/connection-log.ts";
import { ALLOWED_PORTS_LISTED } from "../../shared/network-policy.ts";
import { MODEL_HOST, type Secret, placeholders } from "../../shared/secrets.ts";
import { ALL_HOSTS, type ContainerPlatform, type NetworkPlatform, TRUST_INTERCEPTION } from "./platform.ts";

interface OutboundSandbox extends Pick<BaseSandbox, "enableInternet" | "interceptHttps" | "envVars"> {
  setOutboundHandler(name: string, params: OutboundPolicy): Promise<void>;
}

const POLICY_HANDLER = "policy";

/** The platform intercepts at most 64 targets of a container: HTTP and HTTPS to each host. Six are ours. */
const MAX_HOSTS = (64 - 6) / 2;

/** The storage key of `Restricted`, for a sandbox that had a restricted network at some time. The value is never deleted. */
const RESTRICTED_KEY = "restricted";

interface Restricted {
  /** Whether the container started with unrestricted network access. */
  startedOpen: boolean;
}

/**
 * The network platform on Cloudflare. Under a restrictive policy, the container has no network; its HTTP and HTTPS
 * requests go through a Worker handler. A container that started unrestricted stays so until it ends.
 */
export class OutboundHandlers implements NetworkPlatform {
  readonly unseen = `not listed: connections to ports other than ${ALLOWED_PORTS_LISTED}, because the platform closes them`;
  readonly maxHosts = MAX_HOSTS;
  readonly #sandbox: OutboundSandbox;
  readonly #kv: Pick<SandboxKV, "get" | "put">;
  readonly #platform: Pick<ContainerPlatform, "isRunning">;
  /** Whether a starting container may have got unrestricted access. */
  #mayStartOpen = false;
  #log = new ConnectionLog();

  constructor(
    sandbox: OutboundSandbox,
    kv: Pick<SandboxKV, "get" | "put">,
    platform: Pick<ContainerPlatform, "isRunning">,
  ) {
    this.#sandbox = sandbox;
    this.#kv = kv;
    this.#platform = platform;
  }

  prepareStart(): void {
    this.#mayStartOpen = false;
  }

  async enforce(policy: OutboundPolicy): Promise<boolean> {
    const isOpen = policy.internet === "full";
    const isUp = this.#platform.isRunning;
    this.#sandbox.enableInternet = isOpen;
    // The SDK may read `enableInternet` for this start before a stricter policy sets it to false.
    if (!isUp && isOpen) this.#mayStartOpen = true;
    const restricted = this.#kv.get<Restricted>(RESTRICTED_KEY);
    // The SDK stores a handler for later actors, so a handler from an earlier restriction needs the current policy.
    if (isOpen && restricted === undefined) return true;
    const startedOpen = isUp ? (restricted?.startedOpen ?? true) : this.#mayStartOpen;
    this.#kv.put<Restricted>(RESTRICTED_KEY, { startedOpen });
    this.#sandbox.interceptHttps = true;
    this.#sandbox.envVars = { ...this.#sandbox.envVars, [TRUST_INTERCEPTION]: "1" };
    await this.#sandbox.setOutboundHandler(POLICY_HANDLER, policy);
    return isOpen || !startedOpen;
  }

  connections(): Promise<SeenConnections[]> {
    const { log, refused, connections } = this.#log;
    return Promise.resolve([{ log, refused, connections: [...connections] }]);
  }

  forget(): void {
    this.#log = new ConnectionLog();
  }

  refusalsSince(time: number): Promise<RefusedConnections[]> {
    return Promise.resolve(this.#log.refusalsSince(time));
  }

  note(connection: Connection): void {
    this.#log.add(connection);
  }
}

/** The SDK's entrypoint for requests of containers, exported by `src/index.ts`. */
interface ProxyExports {
  ContainerProxy(options: { props: ContainerProxy["ctx"]["props"] }): Fetcher;
}

/**
 * Routes the container's requests to these hosts through the Worker, which adds their secrets. Registers the hosts with the
 * platform directly, because the SDK's method for a running container would route all requests.
 */
export async function intercept(
  sandbox: Pick<OutboundSandbox, "enableInternet" | "envVars">,
  { container, exports, id }: DurableObjectState<{}>,
  hosts: readonly string[],
  params: OutboundPolicy,
  secrets: readonly Secret[],
): Promise<void> {
  sandbox.envVars = { ...sandbox.envVars, ...placeholders(secrets), [TRUST_INTERCEPTION]: "1" };
  const handler = { method: POLICY_HANDLER, params };
  const props = {
    enableInternet: sandbox.enableInternet,
    containerId: id.toString(),
    className: sandbox.constructor.name,
    outboundByHostOverrides: Object.fromEntries(
      hosts.filter((host) => host !== ALL_HOSTS).map((host) => [host, handler]),
    ),
    // For `ALL_HOSTS`. An override for `*` would also replace the handlers of `handleOutbound`.
    outboundHandlerOverride: handler,
    interceptAll: true,
  };
  const proxy = (exports as ProxyExports).ContainerProxy({ props });
  for (const host of hosts) {
    if (host === ALL_HOSTS) await container?.interceptAllOutboundHttp(proxy);
    else await container?.interceptOutboundHttp(host, proxy);
    await container?.interceptOutboundHttps(host, proxy);
  }
}

/** The context that the SDK passes to a handler. */
interface Source {
  containerId: string;
  params?: unknown;
}

/**
 * Refuses an actor of a class without outbound handlers. The SDK would send the requests of its sandbox to the internet, without
 * policy and secrets.
 */
export function requireOutboundHandlers(
  actor: { readonly name: string } & Pick<typeof BaseSandbox, "outboundHandlers">,
): void {
  if (actor.outboundHandlers?.[POLICY_HANDLER]) return;
  throw new Error(
    `The class ${actor.name} has no outbound handlers: call handleOutbound(${actor.name}) in its module.`,
  );
}

/** Registers the outbound handlers with the SDK. The SDK finds them by the name of the actor's class. */
export function handleOutbound(actor: Pick<typeof BaseSandbox, "outboundByHost" | "outboundHandlers">): void {
  // Static fields of the class would shadow the SDK's setters, and requests would go out to the internet.
  const hosts = { [MODEL_HOST]: callModel, [SERVER_HOST]: serveEnding };
  actor.outboundByHost = Object.fromEntries(
    Object.entries(hosts).map(([host, handle]) => [
      host,
      (request: Request, env: Env, { containerId }: Source) => handle(request, env, containerId),
    ]),
  );
  actor.outboundHandlers = {
    [POLICY_HANDLER]: (request: Request, env: Env, { containerId, params }: Source) => {
      return forwardByPolicy(request, env, containerId, params as OutboundPolicy | undefined);
    },
  };
}

/** Handles the request that sandboxd sends before its container ends: see `SERVER_HOST` in protocol.ts. */
async function serveEnding(request: Request, env: Env, containerID: string): Promise<Response> {
  if (request.method !== "POST" || new URL(request.url).pathname !== ENDING_PATH)
    return new Response(null, { status: 404 });
  const token = request.headers.get(TOKEN_HEADER) ?? "";
  const isEnding = await actorOf(env, containerID).containerEnding(token);
  return new Response(null, { status: isEnding ? 204 : 404 });
}
