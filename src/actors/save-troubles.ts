/** What saves of a workspace could not do, until one could, and what callers are told of it: each thing once. */
import type { Plan } from "../../container/sandboxd/snapshots/calls.ts";
import { ToolError } from "../shared/errors.ts";
import type { LeftOut } from "./snapshot-registry.ts";
import { isPermanentSaveError, reason } from "./workspace-errors.ts";
import { leftOut } from "./workspace-transfer.ts";
import { notSavedText, partlySavedText } from "./texts.ts";

/** A save that failed is made again after so long, then after twice as long each time up to the longest: milliseconds. */
const FIRST_RETRY_MS = 15_000;
const MAX_RETRY_MS = 300_000;

/** After how long a caller is told that nothing can be saved, milliseconds. */
const NOTICE_AFTER_MS = 180_000;

export class SaveTroubles {
  /** Saves that failed, one after the other. */
  #failures = 0;
  /** Since when, milliseconds since the epoch, and why the last one did. */
  #failing: { since: number; why: ToolError } | undefined;
  #isFailureTold = false;
  #left: LeftOut | undefined;
  #isLeftTold = false;

  /** Whether the last save failed. */
  get isFailing(): boolean {
    return this.#failing !== undefined;
  }

  /** For how long saves have failed, milliseconds. */
  get failingMs(): number {
    return this.#failing ? Date.now() - this.#failing.since : 0;
  }

  /** A save has failed. Answers in how many milliseconds the next should begin. */
  failed(why: ToolError): number {
    this.#failing = { since: this.#failing?.since ?? Date.now(), why };
    return Math.min(FIRST_RETRY_MS * 2 ** this.#failures++, MAX_RETRY_MS);
  }

  /** A save has succeeded. */
  saved(): void {
    this.#failures = 0;
    this.#failing = undefined;
    this.#isFailureTold = false;
  }

  /** An error says of itself what a notice would. */
  noteReported(error: unknown): void {
    this.#isFailureTold ||= error instanceof ToolError && isPermanentSaveError(error.cause);
  }

  /**
   * What a save leaves out.
   * @param isRead whether all that it holds has been read: until then what the last one could not read is as it was
   */
  leaves(left: Plan["left"], isRead: boolean): void {
    const unreadable = left.unreadable ?? (isRead ? undefined : this.#left?.unreadable);
    this.#left = leftOut({ ...left, unreadable });
    if (!this.#hasReportableLoss) this.#isLeftTold = false;
  }

  /** The container has gone, with what was left out. */
  containerGone(): void {
    this.#left = undefined;
  }

  /** Whether something is left out that is lost with the sandbox: a socket is of no use without its process. */
  get #hasReportableLoss(): boolean {
    return this.#left !== undefined && (this.#left.count > 0 || this.#left.unreadable !== undefined);
  }

  /** Takes the notice that the next result must carry, once. */
  takeNotice(): string | undefined {
    const notices: string[] = [];
    const failing = this.#isFailureTold ? undefined : this.#failing;
    if (failing && (isPermanentSaveError(failing.why.cause) || this.failingMs > NOTICE_AFTER_MS)) {
      this.#isFailureTold = true;
      const { cause, hint } = failing.why;
      const why = isPermanentSaveError(cause) ? { reason: reason(cause), hint } : undefined;
      notices.push(notSavedText(failing.since, why));
    }
    if (this.#left && this.#hasReportableLoss && !this.#isLeftTold) {
      this.#isLeftTold = true;
      notices.push(partlySavedText(this.#left));
    }
    return notices.join(" ") || undefined;
  }
}
