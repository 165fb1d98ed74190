/** Limits how fast calls for a principal create and start the actors of its sandboxes. */
import { remember } from "../../container/sandboxd/remember.ts";
import { type ActorName, principalOf } from "../shared/names.ts";
import { pacesOf } from "../shared/per-principal.ts";
import { CALL_MS, elapsedMs, pause } from "../shared/timers.ts";
import { tooManyNewNames, tooManyStarts } from "./texts.ts";

/**
 * Limits how fast a principal may call sandboxes that it has not called before. The first call creates the sandbox's actor, even
 * if the sandbox never existed, and 64 KB of the actor's database remain. Without this limit, calls with invented names filled 9
 * MB of a local server's disk each second. Each process counts by itself, and forgets the names when it ends.
 *
 * The burst is enough for an evaluation with two thousand sandboxes. At this rate, a gigabyte of disk is full after four hours.
 */
const NEW_NAMES = { burst: 2000, perSecond: 1 };

/**
 * Limits how fast calls start actors. workerd ends an actor ten seconds after its last call. Its next start takes the thread 5 to 30
 * ms, and 0.8 MB of memory. Measured without this limit, while 16 connections called 300 sandboxes in turn, three times: a neighbour's
 * call took 0.3 to 0.9 s (median), and 0.04 s while they called one sandbox.
 */
const STARTS = { burst: 20, perSecond: 20 };
const KEPT_MS = 10_000;

/** The most actors that this process remembers, of all principals. A forgotten one counts as new. */
const MAX_NAMES = 20_000;

/** When the last call of each actor began or ended, in milliseconds since the epoch. */
const calledAt = new Map<ActorName, number>();
const newNames = pacesOf(NEW_NAMES);
const starts = pacesOf(STARTS);

/** @throws {ToolError} `quota_exceeded` if the principal has called too many new sandboxes */
export function admitName(actor: ActorName): void {
  if (!calledAt.has(actor) && !newNames.of(principalOf(actor)).tryTake(1)) throw tooManyNewNames();
  // Not started yet.
  remember(calledAt, actor, calledAt.get(actor) ?? 0, MAX_NAMES);
}

/**
 * Waits until a call may start this actor, unless it still runs.
 * @param by a principal's calls do not wait for the requests of others who have a link
 * @throws {ToolError} `quota_exceeded` if that takes too long
 */
export async function waitForStart(actor: ActorName, by: "token" | "link"): Promise<void> {
  if (elapsedMs(calledAt.get(actor) ?? 0) > KEPT_MS) {
    const pace = starts.of(`${by} ${principalOf(actor)}`);
    const ms = pace.take();
    if (ms > CALL_MS) {
      pace.giveBack();
      throw tooManyStarts();
    }
    if (ms > 0) await pause(ms);
  }
  noteCall(actor);
}

export function noteCall(actor: ActorName): void {
  remember(calledAt, actor, Date.now(), MAX_NAMES);
}
