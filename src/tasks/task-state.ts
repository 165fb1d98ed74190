/** The parts of the actor that tasks use, and the state from which a task resumes. */
import * as z from "zod";
import type { FileOperations } from "../container/file-operations.ts";
import { type CommandExecutor, commandState } from "../runs/command-executor.ts";
import type { RunObjects } from "../runs/run-log.ts";
import { END_STATES } from "../shared/run-listing.ts";
import { AGENT_NAMES } from "../shared/names.ts";
import { agentReport } from "./agent-report.ts";
import type { Archives } from "./archive.ts";
import type { TaskBudgets } from "./budget.ts";
import { taskComponents } from "./components.ts";
import { STEPS } from "./task-output.ts";

export interface TasksHost {
  files: FileOperations;
  commands: CommandExecutor;
  budgets: TaskBudgets;
  /** Installs an agent that the platform's sandboxes lack. @throws Error that says what to do */
  prepareAgent(agent: string): Promise<void>;
  objects: RunObjects;
  boot(): number;
  maxTokens: number;
  archives: Archives;
  archiveMaxBytes: number;
  principalID(): string | undefined;
  /** How long an archive is kept, in milliseconds. */
  keepMs: number;
  report(error: unknown): void;
}

/** The part of a task's specification that the executor needs after the start. */
const storedSpec = z.object({
  agent: z.enum(AGENT_NAMES),
  /** The repository to clone into `directory` before the agent starts. */
  repository: z.string().optional(),
  branch: z.string().optional(),
  /** The agent's working directory: an absolute path. */
  directory: z.string(),
  model: z.string().optional(),
  maxTurns: z.number().optional(),
  /** Whether the sandbox was made for this task and ends with it. */
  ownSandbox: z.boolean(),
  /** The agent's id of a conversation to continue. */
  conversation: z.string().optional(),
  timeoutMs: z.number(),
  /** Why the timeout is shorter than requested; undefined if it is not. */
  cut: z.string().optional(),
  components: taskComponents.optional(),
});

export type StoredSpec = z.infer<typeof storedSpec>;

/** The state from which another actor resumes a task. */
export const taskState = z.object({
  spec: storedSpec,
  command: commandState.optional(),
  /** How the task ended, once its agent has ended. Its results may still have to be collected. */
  verdict: z.object({ state: z.enum(END_STATES), note: z.string().optional() }).optional(),
  offset: z.number(),
  step: z.enum(STEPS).optional(),
  report: agentReport.optional(),
});

export type TaskState = z.infer<typeof taskState>;
