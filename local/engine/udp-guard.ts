/**
 * Ends a principal's largest sandboxes if it has too many UDP sockets. The kernel delivers a broadcast or multicast to all sockets of its
 * port, and cuts it into segments (UDP_SEGMENT) for each of them anew: 35 us with 46 segments, 107 us with 128, the most. No other program
 * runs on the processor meanwhile.
 */
import { setImmediate, setTimeout as pause } from "node:timers/promises";
import type { EngineSandbox } from "./engine-sandbox.ts";
import { countUDPSockets, countUDPSocketsOfPort, groupPackets } from "./socket-usage.ts";
import { STOPPED_BECAUSE } from "./texts.ts";
import { byPrincipal, sumOf, type Use } from "./uses.ts";

/**
 * How often UDP sockets are counted. In this time a program can bind about 4,000, and a packet to them takes up to a second. A program
 * that binds, sends and closes between two checks has time for about 900. Both numbers are calculated from 12 us to bind and 41 us to send.
 */
export const UDP_INTERVAL_MS = 50;
/**
 * The most UDP sockets of one port that a principal may have while its sandboxes get broadcasts or multicasts: a packet to them takes
 * 21 ms. Programs have tens: a server has one for each processor, a video call a few.
 */
const MAX_UDP_SOCKETS_OF_PORT = 200;
/**
 * The most UDP sockets of a principal on all ports together. If they share a port, a packet to all of them takes up to 0.5 s before
 * the guard sees it. Their list takes 3 ms to read, and longer if others have many too: the kernel goes through the sockets of all
 * sandboxes for each 4 KiB.
 */
const MAX_UDP_SOCKETS = 2000;
/** After reading lists, the guard pauses for this many times as long as that took, so that it uses at most a fifth of a processor. */
const PAUSE_FACTOR = 4;
/** The longest such pause. Other programs can delay the reading. */
const MAX_PAUSE_MS = 200;

/**
 * Returns a check that ends the largest sandboxes of each principal with too many UDP sockets. It reads the list of a sandbox's
 * sockets only if the sandbox has received a broadcast or multicast since the last check.
 */
export function guardUDP(sandboxes: () => EngineSandbox[]): () => Promise<void> {
  const packetsBefore = new WeakMap<EngineSandbox, string | undefined>();
  const countOfPort = (sandbox: EngineSandbox) => {
    const isFirst = !packetsBefore.has(sandbox);
    const before = packetsBefore.get(sandbox);
    const packets = groupPackets(sandbox);
    packetsBefore.set(sandbox, packets);
    const hasNone = isFirst || (packets !== undefined && packets === before);
    return hasNone ? 0 : countUDPSocketsOfPort(sandbox);
  };
  return async () => {
    const uses = sandboxes().map((sandbox) => ({ sandbox, use: countUDPSockets(sandbox) }));
    let readMs = 0;
    for (const ofPrincipal of byPrincipal(uses)) {
      if (sumOf(ofPrincipal) <= MAX_UDP_SOCKETS_OF_PORT) continue;
      const left = endLargest(ofPrincipal, MAX_UDP_SOCKETS);
      const beganAt = performance.now();
      const usesOfPort = left.map(({ sandbox }) => ({ sandbox, use: countOfPort(sandbox) }));
      readMs += performance.now() - beganAt;
      for (const sorted of byPrincipal(usesOfPort)) endLargest(sorted, MAX_UDP_SOCKETS_OF_PORT);
      // Other work of the engine's thread can go on between two principals.
      await setImmediate();
    }
    await pause(Math.min(MAX_PAUSE_MS, readMs * PAUSE_FACTOR), undefined, { ref: false });
  };
}

/** Ends a principal's largest sandboxes, until the others have few enough sockets. @returns the others */
function endLargest(ofPrincipal: Use[], most: number): Use[] {
  let left = ofPrincipal;
  for (const { sandbox } of ofPrincipal) {
    if (sumOf(left) <= most) break;
    sandbox.end(STOPPED_BECAUSE.udpSockets(MAX_UDP_SOCKETS_OF_PORT, MAX_UDP_SOCKETS));
    left = left.slice(1);
  }
  return left;
}
