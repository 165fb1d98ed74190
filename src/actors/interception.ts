/** Has requests of a container to single hosts come to the Worker, which adds the secrets that they need. */
import type { OutboundPolicy } from "../container/internet.ts";
import { type Secret, placeholders } from "../shared/secrets.ts";
import { POLICY_HANDLER, TRUST_INTERCEPTION } from "./network.ts";

/** The entrypoint of the SDK's through which requests of containers come, as `src/index.ts` exports it. */
interface ProxyExports {
  ContainerProxy(options: { props: object }): Fetcher;
}

/** The part of the SDK's class that is used here. */
interface InterceptedSandbox {
  enableInternet?: boolean;
  envVars?: Record<string, string>;
}

/**
 * Registers the handler for these hosts at the platform itself: the SDK's own way of naming hosts at run time has all
 * requests of the container come to the Worker.
 */
export async function intercept(
  sandbox: InterceptedSandbox,
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
