/** The stored details of a run of kind `task`: a task for an agent, or a question. */
import * as z from "zod";
import type { CodeDetail } from "./code-detail.ts";

/** The model's tokens, as the agent reports them. */
export const tokens = z.object({
  input: z.number(),
  output: z.number(),
  cacheRead: z.number(),
  cacheWrite: z.number(),
});

export type Tokens = z.infer<typeof tokens>;

export interface TaskDetail {
  /** The agent's key in `AGENTS`. */
  agent: string;
  /** Whether the task succeeded; otherwise the run's note says why not. */
  success: boolean;
  /** The agent's final message, cut at 24,000 characters. */
  answer?: string;
  model?: string;
  /** The definitions that the task named, as `<kind>/<name>`. */
  components?: readonly string[];
  /** The working directory: an absolute path in the sandbox. */
  directory: string;
  /** The agent's id for the conversation. */
  conversation?: string;
  turns?: number;
  tokens?: Tokens;
  costUSD?: number;
  /** The task's changes; undefined before its end, and if the changes could not be determined. */
  changes?: Changes;
  /** Files that the task produced, as stored in R2. */
  artifacts: Artifact[];
  /** Created and changed files, `DIFF_NAME` and `LIST_NAME` that were not stored; undefined if all were. */
  notKept?: UnkeptFiles;
  archive?: Archive;
  /** The number of the container in which the task ended. If the sandbox has another one now, that container is gone. */
  boot?: number;
  /** Whether the sandbox was made for the task and ends with it. */
  ownSandbox: boolean;
  /** Whether everything worth keeping is in R2, so that the sandbox may be destroyed. */
  safe: boolean;
}

/** A question: the model's program and its result. */
export interface QuestionDetail extends CodeDetail {
  /** Chosen by the model; undefined until the program is complete. */
  language?: string;
  /** The code written so far. */
  code: string;
  model: string;
  /** Tokens of the request that wrote the program. */
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
  /** A git diff against the state at the start, cut at `DIFF_BYTES`. */
  diff: string;
  /** Bytes of the whole diff. */
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
  /** `DIFF_NAME`, `LIST_NAME`, or a path as in `ChangedFile`; an absolute path if the file has one of these two names. */
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
  /** The files that did not fit: their number, their total bytes, and the largest files. */
  left?: { count: number; bytes: number; largest: { path: string; size: number }[] };
  /** Directories with too many entries, whose files can be regenerated. */
  crowded?: string[];
  /** Whether the agent's conversation did not fit. */
  isWithoutConversation?: true;
}

/** The artifact with a task's whole diff. */
export const DIFF_NAME = "changes.diff";

/** The artifact that lists every changed file, one per line. Exists if not all are shown individually. */
export const LIST_NAME = "changes.list";

/** The most changed files that a result shows individually. */
export const SHOWN_FILES = 50;

/** The most changed files that a record lists. */
export const MAX_FILES = 500;

/** The most bytes of a diff in the record. */
export const DIFF_BYTES = 24 * 1024;
