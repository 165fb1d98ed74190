import { createServer } from "node:net";
import { createEgress } from "../../local/engine/egress.ts";
import { OutboundQueue } from "../../local/engine/outbound-queue.ts";
import { serveListeners } from "../../local/engine/proxy-listeners.ts";
import type { UpstreamOptions } from "../../local/engine/upstream.ts";
import { ConnectionLog } from "../../src/shared/connection-log.ts";
import { doLater, endLater } from "./end-later.ts";
import { listen } from "./listen.ts";

type Egress = Parameters<typeof createEgress>[0];
type Given = Partial<Omit<Egress, "intercepts">> & { https?: string[] };

/** The way to the internet, where these ports of loopback replace hosts, such as `{ "host.test:80": port }`. */
export function upstreamTo(hosts: Readonly<Record<string, number>> = {}): UpstreamOptions {
  return { allowAddresses: new Map(Object.entries(hosts)), env: {} };
}

/** A sandbox's proxy that intercepts only the hosts in `https`, and by default allows the whole internet. */
export function testEgress(given: Given = {}) {
  return createEgress(egressFor(given));
}

function egressFor({ https = [], ...given }: Given = {}): Egress {
  return {
    authority: undefined,
    upstream: upstreamTo(),
    intercepts: { http: [], https },
    internet: { allowed: true },
    policy: { internet: "full", allowHosts: [] },
    connections: new ConnectionLog(),
    queue: new OutboundQueue(),
    ...given,
  };
}

/** Serves `testEgress` at a port of loopback as in a sandbox, until the time that `doLater` chooses. */
export async function startProxy(given: Given = {}) {
  const proxy = testEgress(given);
  const listener = endLater(createServer());
  const port = await listen(listener);
  doLater(serveListeners(proxy, [listener]));
  return { proxy, port };
}
