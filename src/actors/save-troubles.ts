/** Failed and partial saves of a workspace, and the notices about them: each problem is reported once. */
import type { Plan, SavedSnapshot } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { ToolError } from "../shared/errors.ts";
import { elapsedMs } from "../shared/timers.ts";
import type { LeftOut } from "./saved-states.ts";
import { leftOut } from "./workspace-transfer.ts";
import { MAY_LACK_FILES, isPermanentSaveError, notSavedText, partlySavedText, reasonOf } from "./texts.ts";

/** The delay before a failed save is retried. It doubles each time up to the maximum. */
const FIRST_RETRY_MS = 1000;
const MAX_RETRY_MS = 300_000;

/** A notice reports failing saves after this time. */
const NOTICE_AFTER_MS = 180_000;

export class SaveTroubles {
  #failures = 0;
  /** Since when saves fail (milliseconds since the epoch), and the last reason. */
  #failing: { since: number; why: ToolError } | undefined;
  #isFailureReported = false;
  #leftOut: LeftOut | undefined;
  #isLeftOutReported = false;
  /** Whether the last save may lack renamed or installed files: see `isIncomplete` of sandboxd's response. The next save probably has them. */
  isIncomplete = false;
  /** Whether the next notice says that the save of a call may lack files. */
  #isIncompletenessDue = false;
  /** Whether another save should follow soon. Not if the save before was incomplete too: some programs make every save incomplete. */
  needsAnother = false;

  get leftOut(): LeftOut | undefined {
    return this.#leftOut;
  }

  get isFailing(): boolean {
    return this.#failing !== undefined;
  }

  /** Why the last save failed; undefined if it succeeded. */
  get failure(): ToolError | undefined {
    return this.#failing?.why;
  }

  /** Returns the delay before the retry, in milliseconds. */
  noteFailure(why: ToolError): number {
    this.#failing = { since: this.#failing?.since ?? Date.now(), why };
    return Math.min(FIRST_RETRY_MS * 2 ** this.#failures++, MAX_RETRY_MS);
  }

  noteSave(): void {
    this.#failures = 0;
    this.#failing = undefined;
    this.#isFailureReported = false;
  }

  /** A call has returned this error to its caller. If the error is permanent, no notice is needed. */
  noteReported(error: unknown): void {
    this.#isFailureReported ||= error instanceof ToolError && isPermanentSaveError(error.cause);
  }

  /** @param isRead whether the save has read every file; if not, files that were unreadable before still count */
  noteLeftOut(left: Plan["left"], isRead: boolean): void {
    const unreadable = left.unreadable ?? (isRead ? undefined : this.#leftOut?.unreadable);
    this.#leftOut = leftOut({ ...left, unreadable });
    if (!this.#hasReportableLoss) this.#isLeftOutReported = false;
  }

  noteStored({ left, isIncomplete }: Pick<SavedSnapshot, "isIncomplete"> & Pick<Plan, "left">): void {
    this.noteLeftOut(left, true);
    this.noteCompleteness(isIncomplete);
  }

  noteCompleteness(isIncomplete = false): void {
    this.needsAnother = isIncomplete && !this.isIncomplete;
    this.isIncomplete = isIncomplete;
  }

  noteSaveForCall(): void {
    this.#isIncompletenessDue = this.isIncomplete;
  }

  /**
   * The container is gone, with the files that saves left out. Earlier failures do not count any more, because the end of the
   * container may have caused the last failure.
   */
  noteContainerEnd(): void {
    this.#leftOut = undefined;
    this.isIncomplete = false;
    this.#isIncompletenessDue = false;
    this.needsAnother = false;
    this.noteSave();
  }

  /**
   * Whether saves left out files that need a notice. Sockets need none, because they are useless without their processes. Crowded
   * directories, with more files than can be saved, need none, because they can be regenerated.
   */
  get #hasReportableLoss(): boolean {
    return this.#leftOut !== undefined && (this.#leftOut.count > 0 || this.#leftOut.unreadable !== undefined);
  }

  takeNotice(): string | undefined {
    const notices: string[] = [];
    const failing = this.#isFailureReported ? undefined : this.#failing;
    const failingMs = failing ? elapsedMs(failing.since) : 0;
    if (failing && (isPermanentSaveError(failing.why.cause) || failingMs > NOTICE_AFTER_MS)) {
      this.#isFailureReported = true;
      const { cause, hint } = failing.why;
      const permanentCause = isPermanentSaveError(cause) ? { reason: reasonOf(cause), hint } : undefined;
      notices.push(notSavedText(failing.since, permanentCause));
    }
    if (this.#leftOut && this.#hasReportableLoss && !this.#isLeftOutReported) {
      this.#isLeftOutReported = true;
      notices.push(partlySavedText(this.#leftOut));
    }
    if (this.#isIncompletenessDue) {
      this.#isIncompletenessDue = false;
      notices.push(MAY_LACK_FILES);
    }
    return notices.join(" ") || undefined;
  }
}
