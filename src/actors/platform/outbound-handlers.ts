/** What containers send out, by the SDK's handlers: what it keeps over actors and reads when, and its names for things. */
import type { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import { SERVER_HOST } from "../../../container/sandboxd/protocol.ts";
import { serveEnding } from "../../container/serve-ending.ts";
import { type OutboundPolicy, throughPolicy } from "../../container/internet.ts";
import { OUTBOUND } from "../../container/model-egress.ts";
import {
  type Connection,
  ConnectionLog,
  type Refusal,
  type SeenConnections,
} from "../../shared/connection-log.ts";
import { ALLOWED_PORTS_LISTED } from "../../shared/network-policy.ts";
import { type Secret, placeholders } from "../../shared/secrets.ts";
import { type NetworkPlatform, TRUST_INTERCEPTION } from "./network-platform.ts";
import type { ContainerPlatform } from "./platform.ts";

/** The part of the SDK's class that is used here. */
interface OutboundSandbox {
  enableInternet?: boolean;
  interceptHttps?: boolean;
  envVars?: Record<string, string>;
  setOutboundHandler(name: string, params: OutboundPolicy): Promise<void>;
}

/** The name of the handler of `src/container/internet.ts`. */
const POLICY_HANDLER = "policy";

/** Storage key of a sandbox that was restricted once, which stays when that is destroyed, as the SDK's handler does. */
const RESTRICTED_KEY = "restricted";

interface Restricted {
  /** Whether the container was started with a way out of its own. */
  startedOpen: boolean;
}

/**
 * On Cloudflare. Under a policy that restricts, the container has no way out of its own, and what it sends by HTTP and HTTPS
 * goes through a handler of the Worker. One that was started with the whole internet keeps its way out until it ends.
 */
export class OutboundHandlers implements NetworkPlatform {
  readonly unseen = `not listed: connections to other ports than ${ALLOWED_PORTS_LISTED}, which the platform closes`;
  readonly #sandbox: OutboundSandbox;
  readonly #kv: Pick<SyncKvStorage, "get" | "put">;
  readonly #platform: Pick<ContainerPlatform, "isRunning">;
  /** Whether a container that is being started may have been given a way out of its own. */
  #mayStartOpen = false;
  #log = new ConnectionLog();

  constructor(
    sandbox: OutboundSandbox,
    kv: Pick<SyncKvStorage, "get" | "put">,
    platform: Pick<ContainerPlatform, "isRunning">,
  ) {
    this.#sandbox = sandbox;
    this.#kv = kv;
    this.#platform = platform;
  }

  starting(): void {
    this.#mayStartOpen = false;
  }

  async enforce(policy: OutboundPolicy): Promise<boolean> {
    const isOpen = policy.internet === "full";
    const isUp = this.#platform.isRunning;
    this.#sandbox.enableInternet = isOpen;
    // The SDK may have read it for this start before it is lowered.
    if (!isUp && isOpen) this.#mayStartOpen = true;
    const restricted = this.#kv.get<Restricted>(RESTRICTED_KEY);
    // The SDK keeps a handler over actors, so that one that was set has to be told what holds now.
    if (isOpen && restricted === undefined) return true;
    const startedOpen = isUp ? (restricted?.startedOpen ?? true) : this.#mayStartOpen;
    this.#kv.put<Restricted>(RESTRICTED_KEY, { startedOpen });
    this.#sandbox.interceptHttps = true;
    // Has the image trust the certificates of the interception.
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

  refusalsSince(time: number): Promise<Refusal[]> {
    return Promise.resolve(this.#log.refusalsSince(time));
  }

  /** Called for each request that the handler has answered. */
  note(connection: Connection): void {
    this.#log.add(connection);
  }
}

/** The entrypoint of the SDK's through which requests of containers come, as `src/index.ts` exports it. */
interface ProxyExports {
  ContainerProxy(options: { props: object }): Fetcher;
}

/**
 * Has requests of the container to these hosts come to the Worker, which adds the secrets that they need. Registers the handler for these hosts at the platform itself: the SDK's own way of naming hosts at run time has all
 * requests of the container come to the Worker.
 */
export async function intercept(
  sandbox: Pick<OutboundSandbox, "enableInternet" | "envVars">,
  { container, exports, id }: DurableObjectState<{}>,
  hosts: readonly string[],
  params: OutboundPolicy,
  secrets: readonly Secret[],
): Promise<void> {
  // The image is to trust the certificates of the interception.
  sandbox.envVars = { ...sandbox.envVars, ...placeholders(secrets), [TRUST_INTERCEPTION]: "1" };
  const handler = { method: POLICY_HANDLER, params };
  const props = {
    enableInternet: sandbox.enableInternet,
    containerId: id.toString(),
    className: sandbox.constructor.name,
    outboundByHostOverrides: Object.fromEntries(hosts.map((host) => [host, handler])),
  };
  const proxy = (exports as ProxyExports).ContainerProxy({ props });
  for (const host of hosts) {
    await container?.interceptOutboundHttp(host, proxy);
    await container?.interceptOutboundHttps(host, proxy);
  }
}

/** Names the handlers of what containers send out to the SDK, which finds them by the name of the actor's class. */
export function handleOutbound(actor: Pick<typeof BaseSandbox, "outboundByHost" | "outboundHandlers">): void {
  // Not static fields of the class: those would shadow the SDK's setters, and requests would go out to the internet.
  actor.outboundByHost = { ...OUTBOUND, [SERVER_HOST]: serveEnding };
  actor.outboundHandlers = { [POLICY_HANDLER]: throughPolicy };
}
