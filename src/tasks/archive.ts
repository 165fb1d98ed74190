/** Stores the files and conversation of a task as snapshots, and restores them for a task that continues it. */
import type { Plan } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import type { Conversation } from "../container/snapshot-client.ts";
import { ToolError } from "../shared/errors.ts";
import type { Archive } from "../runs/task-detail.ts";
import { shownName } from "../shared/shown.ts";
import { shortened } from "../shared/text.ts";
import * as texts from "./texts.ts";

export interface TaskArchive {
  run: string;
  /** Milliseconds since the epoch. */
  expiresAt: number;
  maxBytes: number;
  conversation?: Conversation;
}

export type ArchiveLeftOut = Plan["left"] & { conversation?: true };

export interface Archives {
  keepArchive(archive: TaskArchive): Promise<ArchiveLeftOut>;
  /** @param run the run whose conversation is restored @param task the id of the continuing task inside the sandbox */
  restoreConversation(run: string, task: string): Promise<void>;
}

const ID = /^[\w-]{1,200}$/;

const MAX_NAMED = 3;
/** How many characters of a path are shown: a path may have thousands. */
const NAME_CHARS = 100;

/** sandboxd may end during an attempt. The next attempt restarts it. */
const ATTEMPTS = 3;

/**
 * @param below the agent's directory of conversations @param id the agent's id of its conversation
 * @throws the error of the last attempt
 */
export async function archive(
  archives: Archives,
  what: Omit<TaskArchive, "conversation">,
  below: string,
  id: string | undefined,
): Promise<Archive> {
  const conversation = id !== undefined && ID.test(id) ? { below, id } : undefined;
  for (let attempt = 1; ; attempt++) {
    try {
      const left = await archives.keepArchive({ ...what, conversation });
      const { count, bytes, largest, crowded, conversation: isWithoutConversation } = left;
      return {
        left: count > 0 ? { count, bytes, largest: largest.slice(0, MAX_NAMED) } : undefined,
        crowded: crowded?.names.slice(0, MAX_NAMED),
        isWithoutConversation,
      };
    } catch (error) {
      const code = error instanceof ToolError ? error.code : undefined;
      if (code === "too_large") throw texts.archiveTooLarge(what.maxBytes);
      if (code === "quota_exceeded" || attempt === ATTEMPTS) throw error;
    }
  }
}

export function leftOutText({ left, crowded, isWithoutConversation }: Archive): string {
  const words: string[] = [];
  const firstPaths = (paths: string[]) =>
    paths.slice(0, MAX_NAMED).map((path) => shownName(shortened(path, NAME_CHARS)));
  if (left)
    words.push(
      texts.archiveLeavesOut(left.bytes, left.count, firstPaths(left.largest.map(({ path }) => path))),
    );
  if (crowded) words.push(texts.archiveLeavesOutCrowded(firstPaths(crowded)));
  if (isWithoutConversation) words.push(texts.ARCHIVE_WITHOUT_CONVERSATION);
  return words.join(" ");
}
