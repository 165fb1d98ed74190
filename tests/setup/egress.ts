import { createEgress } from "../../local/engine/egress.ts";
import { InternetRequests } from "../../local/engine/internet-requests.ts";
import { OutboundQueue } from "../../local/engine/outbound-queue.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { ConnectionLog } from "../../src/shared/connection-log.ts";

type Egress = Parameters<typeof createEgress>[0];
type Given = Pick<Egress, "reads" | "authority" | "upstream"> &
  Partial<Pick<Egress, "pieces" | "policy" | "requests">> & { https: string[] };

/** A sandbox's proxy that intercepts only the hosts in `https`, and by default allows the whole internet. */
export function testEgress(given: Given) {
  return createEgress(egressFor(given));
}

/** The settings of `testEgress`. */
export function egressFor({ https, ...given }: Given): Egress {
  return {
    intercepts: { http: [], https },
    internet: { allowed: true },
    policy: { internet: "full", allowHosts: [] },
    connections: new ConnectionLog(),
    pieces: new Pieces(),
    queue: new OutboundQueue(),
    internetRequests: new InternetRequests(),
    hosts: new Set(),
    ...given,
  };
}
