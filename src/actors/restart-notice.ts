/**
 * Counts the starts of a sandbox's container and remembers how the last one ended, because processes, kernels and files
 * outside the workspace die with it. The next result says so, once, and what of the workspace is back.
 */
import { shownName } from "../shared/shown.ts";
import type { LeftOut, Snapshot } from "./snapshot-registry.ts";

/** The synchronous key-value part of a Durable Object's storage. */
type KV = Pick<SyncKvStorage, "get" | "put" | "delete">;

const COUNT = "boots:count";
/** Why the running container is being stopped; unset when its end is unplanned. */
const ENDING = "boots:ending";
/** How the container before the running one ended, until what is back of its workspace is known. */
const ENDED = "boots:ended";
const NOTICE = "boots:notice";

/** Ends in order, before which the workspace is saved. */
const ENDINGS = {
  idle: "The sandbox was stopped because nobody used it",
  room: "The sandbox was stopped, while nobody used it, to make room for another of your sandboxes",
  server: "The sandbox was stopped together with the server",
  back: "The sandbox was put back to a checkpoint",
  network: "The sandbox was stopped so that it reaches no more than it may",
  unsaved_network: "The sandbox was stopped so that it reaches no more than it may",
  platform: "The platform replaced the sandbox's container",
} as const;

/** The ends before which not all of the workspace may have been saved: calls and runs go on, or the end does not wait. */
const NOT_ALL_SAVED = new Set(["server", "unsaved_network", "platform"]);

const UNPLANNED = "The sandbox was restarted";

export class RestartNotice {
  readonly #kv: KV;
  #notice: string | undefined;

  constructor(kv: KV) {
    this.#kv = kv;
    this.#notice = kv.get<string>(NOTICE);
  }

  get count(): number {
    return this.#kv.get<number>(COUNT) ?? 0;
  }

  /** The container has started. */
  containerStarted(): void {
    const before = this.count;
    const ending = this.#kv.get<string>(ENDING);
    this.#kv.put(COUNT, before + 1);
    this.#kv.delete(ENDING);
    if (before > 0) this.#kv.put(ENDED, ending ?? "");
  }

  /** The container has its workspace back, as it was saved; without a state it starts with none. */
  workspaceRestored(state: Snapshot | undefined): void {
    const ending = this.#kv.get<string>(ENDED);
    this.#kv.delete(ENDED);
    const loss = state ? describeRestore(state, ending) : ending !== undefined && describeLoss(ending);
    if (!loss) return;
    this.#notice = loss;
    this.#kv.put(NOTICE, loss);
  }

  /** The container is about to be stopped in order. */
  ending(how: keyof typeof ENDINGS): void {
    this.#kv.put(ENDING, how);
  }

  /** The caller destroyed the sandbox: its next start counts as the first. */
  destroyed(): void {
    this.#notice = undefined;
    for (const key of [COUNT, ENDING, ENDED, NOTICE]) this.#kv.delete(key);
  }

  /** Takes the notice about a restart that the next result must carry. */
  takeNotice(): string | undefined {
    const notice = this.#notice;
    if (notice !== undefined) this.#kv.delete(NOTICE);
    this.#notice = undefined;
    return notice;
  }
}

function describeEnding(ending: string): string {
  return ENDINGS[ending as keyof typeof ENDINGS] ?? UNPLANNED;
}

function describeLoss(ending: string): string {
  return `${describeEnding(ending)}: its files, processes and kernel state are gone.`;
}

/** @param ending how the container before ended; undefined where there was none */
function describeRestore({ savedAt, files, bytes, left }: Snapshot, ending: string | undefined): string {
  const what = `as it was saved at ${new Date(savedAt).toISOString()} (${files} files, ${bytes} bytes)`;
  const missing = left ? ` Missing is what was not saved: ${describeLeftOut(left)}.` : "";
  if (ending === undefined) return `The sandbox starts with /workspace ${what}.${missing}`;
  const later = ending in ENDINGS && !NOT_ALL_SAVED.has(ending) ? "" : ", and what changed there since";
  return `${describeEnding(ending)}: /workspace is back ${what}. Processes, kernel state and files elsewhere are gone${later}.${missing}`;
}

/** How many of the things of one kind that a save left out are named. */
const NAMED = 5;

/** What a save left out, as a clause. */
export function describeLeftOut({ count, bytes, names, unreadable, special, crowded }: LeftOut): string {
  const some = (paths: string[]) => `(${paths.slice(0, NAMED).map(shownName).join(", ")})`;
  const parts: string[] = [];
  if (count > 0) {
    const size = `${Math.ceil(bytes / 1024 / 1024)} MB together`;
    parts.push(`files over WORKSPACE_MAX_MB: ${count} of ${size} ${some(names)}`);
  }
  if (crowded) parts.push(`directories with more files than can be saved: ${some(crowded.names)}`);
  if (unreadable) parts.push(`what cannot be read: ${unreadable.count} ${some(unreadable.names)}`);
  if (special) parts.push(`sockets, pipes and devices: ${special.count} ${some(special.names)}`);
  return parts.join("; ");
}
