/** What only a run of a task has, done by an agent or a question. */
import { z } from "zod";
import type { CodeDetail } from "./code-detail.ts";

/** Of the model, as the agent reports them. */
export const tokens = z.object({
  input: z.number(),
  output: z.number(),
  cacheRead: z.number(),
  cacheWrite: z.number(),
});

export type Tokens = z.infer<typeof tokens>;

export interface TaskDetail {
  /** Its key in `AGENTS`. */
  agent: string;
  /** Whether the agent says that it did what it was asked; the run's note says why not. */
  success: boolean;
  /** The agent's last words, cut at 24,000 characters. */
  answer?: string;
  model?: string;
  /** The definitions that it names, each as `<kind>/<name>`. */
  components?: readonly string[];
  /** Where it works: an absolute path in the sandbox. */
  directory: string;
  /** The agent's own id of the conversation. */
  conversation?: string;
  turns?: number;
  tokens?: Tokens;
  costUSD?: number;
  /** What it changed; undefined until the end, and when that could not be determined. */
  changes?: Changes;
  /** Files that it produced, as kept in R2. */
  artifacts: Artifact[];
  /** Created and changed files that are not kept; undefined when all are. */
  notKept?: NotKept;
  /** The archive of the workspace; undefined when there is none. */
  archive?: Archive;
  /** How often the sandbox's container had been started when the task ended. A higher count since means its files are gone. */
  boot?: number;
  /** Whether the sandbox was made for the task and ends with it. */
  ownSandbox: boolean;
  /** Whether everything worth keeping is in R2, so that the sandbox may be destroyed. */
  safe: boolean;
}

/** What a question has: the program that a model wrote, and what that gave as code. */
export interface QuestionDetail extends CodeDetail {
  /** The model's choice; undefined until the whole program is there. */
  language?: string;
  /** As far as it is written. */
  code: string;
  model: string;
  /** Of the one request that wrote the program. */
  tokens?: Pick<Tokens, "input" | "output">;
  ownSandbox: boolean;
  /** Everything is in the record. */
  safe: true;
}

export interface Changes {
  /** Ordered by path; at most `MAX_FILES`. */
  files: ChangedFiles[];
  /** How many there are. */
  count: number;
  /** A git diff against the state at the start, cut at `DIFF_BYTES`. */
  diff: string;
  /** Size of the whole diff. */
  diffBytes: number;
}

export interface ChangedFiles {
  /** Relative to the task's directory. */
  path: string;
  change: "created" | "changed" | "deleted";
  /** Bytes; 0 for a deleted one. */
  size: number;
}

export interface Artifact {
  /** As in `Changed`, or `DIFF_NAME`. */
  path: string;
  /** Bytes. */
  size: number;
}

export interface NotKept {
  count: number;
  /** The first of them, and why. */
  named: { path: string; why: string }[];
}

export interface Archive {
  /** Missing where an earlier version kept it in another form, which is not read any more. */
  isSnapshot?: true;
  /** What did not fit: how many files, their bytes together, and the largest of them. */
  left?: { count: number; bytes: number; largest: { path: string; size: number }[] };
  /** Directories that can be made again, and have too many files. */
  crowded?: string[];
  /** The agent's conversation did not fit. */
  isWithoutConversation?: true;
}

/** The artifact that holds a task's whole diff. */
export const DIFF_NAME = "changes.diff";

/** The artifact that names every changed file, a line each; there where not all are shown one by one. */
export const LIST_NAME = "changes.list";

/** Changed files that are shown one by one. */
export const SHOWN_FILES = 50;

/** Changed files that a record lists. */
export const MAX_FILES = 500;

/** Bytes of a diff in the record. */
export const DIFF_BYTES = 24 * 1024;
