import { createEgress } from "../../local/engine/egress.ts";
import { OutboundQueue } from "../../local/engine/outbound-queue.ts";
import { Pieces } from "../../local/engine/piece-limit.ts";
import { ConnectionLog } from "../../src/shared/connection-log.ts";

type Given = Pick<Parameters<typeof createEgress>[0], "reads" | "authority" | "upstream"> & {
  https: string[];
  pieces?: Pieces;
};

/** A sandbox's proxy that intercepts only the hosts in `https`, and allows the whole internet. */
export function testEgress({ https, ...given }: Given) {
  return createEgress({
    intercepts: { http: [], https, all: false },
    internet: { allowed: true },
    policy: { internet: "full", allowHosts: [] },
    connections: new ConnectionLog(),
    pieces: new Pieces(),
    queue: new OutboundQueue(),
    ...given,
  });
}
