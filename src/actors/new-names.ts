/**
 * Limits how fast a principal may call sandboxes that it has not called before. The first call creates the sandbox's actor, even if
 * the sandbox never existed, and 64 KB of the actor's database remain. Without this limit, calls with invented names filled 9 MB of
 * a local server's disk each second.
 *
 * Each process counts by itself, and forgets the names when it ends.
 */
import { Pace } from "../../container/sandboxd/pace.ts";
import type { ActorName } from "../shared/names.ts";
import { PerPrincipal } from "../shared/per-principal.ts";
import { tooManyNewNames } from "./texts.ts";

/** The burst is enough for an evaluation with two thousand sandboxes. At this rate, a gigabyte of disk is full after four hours. */
const NEW_NAMES = { burst: 2000, perSecond: 1 };

/** The most names that this process remembers, of all principals. A forgotten name counts as new. */
const MAX_NAMES = 20_000;

const names = new Set<ActorName>();
const paces = new PerPrincipal(
  () => new Pace(NEW_NAMES),
  (pace) => pace.isFull,
);

/** @throws {ToolError} `quota_exceeded` if the principal has called too many new sandboxes */
export function admitName(principalID: string, name: ActorName): void {
  const isKnown = names.delete(name);
  if (!isKnown && !paces.of(principalID).tryTake(1)) throw tooManyNewNames();
  names.add(name);
  const [oldest] = names;
  if (names.size > MAX_NAMES && oldest !== undefined) names.delete(oldest);
}
