/** Stored details of runs of kind `task`: tasks for agents, and questions. */
import * as z from "zod";
import type { CodeDetail } from "./code-detail.ts";

/** As the agent reports them. */
export const tokens = z.object({
  input: z.number(),
  output: z.number(),
  cacheRead: z.number(),
  cacheWrite: z.number(),
});

export type Tokens = z.infer<typeof tokens>;

export interface TaskDetail {
  /** In `AGENTS`. */
  agent: string;
  /** Reported by the agent; otherwise the run's note says why not. */
  success: boolean;
  /** The agent's final message, cut at 24,000 characters. */
  answer?: string;
  model?: string;
  /** As `<kind>/<name>`. */
  components?: readonly string[];
  /** An absolute path in the sandbox. */
  directory: string;
  conversation?: string;
  turns?: number;
  tokens?: Tokens;
  costUSD?: number;
  /** Undefined before the end, and if the changes could not be determined. */
  changes?: Changes;
  artifacts: Artifact[];
  /** Created and changed files; undefined if all were stored. */
  notKept?: UnkeptFiles;
  archive?: Archive;
  /** The container starts when the task ended. If there are more now, the task's container is gone. */
  boot?: number;
  /** Made for the task, and ends with it. */
  ownSandbox: boolean;
  /** Everything worth keeping is in R2, so the sandbox may be destroyed. */
  safe: boolean;
}

export interface QuestionDetail extends CodeDetail {
  /** Undefined until the program is complete. */
  language?: string;
  code: string;
  model: string;
  /** Used by the request that wrote the program. */
  tokens?: Pick<Tokens, "input" | "output">;
  ownSandbox: boolean;
  /** Everything is in the record. */
  safe: true;
}

export interface Changes {
  /** Sorted by path; at most `MAX_FILES`. */
  files: ChangedFile[];
  /** The number of all changed files. */
  count: number;
  /** A git diff against the start, cut at `DIFF_BYTES`. */
  diff: string;
  diffBytes: number;
}

export interface ChangedFile {
  /** Relative to the task's directory. */
  path: string;
  change: "created" | "changed" | "deleted";
  /** Bytes; 0 for a deleted file. */
  size: number;
}

export interface Artifact {
  /** As in `ChangedFile`, or `DIFF_NAME`. */
  path: string;
  /** Bytes. */
  size: number;
}

export interface UnkeptFiles {
  count: number;
  /** The first of the files. */
  named: { path: string; why: string }[];
}

export interface Archive {
  /** Missing if an earlier version stored the archive in a form that this version does not read. */
  isSnapshot?: true;
  left?: { count: number; bytes: number; largest: { path: string; size: number }[] };
  /** Directories of regenerable files with too many entries. */
  crowded?: string[];
  isWithoutConversation?: true;
}

/** The whole diff. */
export const DIFF_NAME = "changes.diff";

/** Lists every changed file. Exists if not all are shown individually. */
export const LIST_NAME = "changes.list";

/** Individually, in a result. */
export const SHOWN_FILES = 50;

export const MAX_FILES = 500;

export const DIFF_BYTES = 24 * 1024;
