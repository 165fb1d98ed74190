/**
 * Tasks: a coding agent at work in the sandbox, started by `container/task.sh` as one command. The steps of a task are
 * its own files in the sandbox, the command, and what is fetched from the sandbox when the agent has ended. Tasks of one
 * sandbox run one after another: two agents in one workspace would each answer for the other's changes.
 */
import { z } from "zod";
import { ToolError } from "../shared/errors.ts";
import type { Shell } from "../container/shell.ts";
import type { Files } from "../container/files.ts";
import type { ActiveRun } from "../runs/active-run.ts";
import { AGENT_NAMES, type AgentName, agentReport } from "./agents.ts";
import { type Commands, commandState } from "../runs/command.ts";
import type { Executor } from "../runs/executor.ts";
import { KeyedQueue } from "../shared/queue.ts";
import { type Allowance, END_STATES, type End, type Execution, waitingFor } from "../runs/run.ts";
import type { ArchiveSource } from "./archive.ts";
import type { TaskBudgets } from "./budget.ts";
import type { ModelAnswer, ModelCall } from "../container/model-calls.ts";
import { STEPS } from "./output.ts";
import { RunningTask } from "./running-task.ts";

export interface TaskSpec extends Allowance {
  task: string;
  agent: AgentName;
  /** Cloned into `directory` first. */
  repository?: string;
  branch?: string;
  /** Where the agent works: an absolute path. */
  directory: string;
  model?: string;
  maxTurns?: number;
  /** Whether the sandbox was made for this task alone and ends with it. */
  ownSandbox: boolean;
  /** The agent's id of the conversation that goes on. */
  conversation?: string;
  /** The archive to start from. */
  restore?: ArchiveSource;
}

/** What the actor gives its tasks. */
export interface TasksHost {
  shell: Shell;
  files: Files;
  commands: Commands;
  budgets: TaskBudgets;
  bucket: R2Bucket;
  /** `<principal hash>/<run id>/`, for objects in the bucket. */
  prefix(runID: string): string;
  /** Writes a file of base64. */
  writeFile(path: string, content: string, options: { encoding: string }): Promise<unknown>;
  /** How often the container was started. */
  boot(): number;
  maxTokens: number;
  archiveMaxBytes: number;
  /** Takes an error that nobody foresaw. */
  report(error: unknown): void;
}

/** What it takes to go on with a task in another actor. */
const taskState = z.object({
  /** The specification without what is only needed to start. */
  spec: z.object({
    agent: z.enum(AGENT_NAMES),
    repository: z.string().optional(),
    branch: z.string().optional(),
    directory: z.string(),
    model: z.string().optional(),
    maxTurns: z.number().optional(),
    ownSandbox: z.boolean(),
    conversation: z.string().optional(),
    timeoutMs: z.number(),
    cut: z.string().optional(),
  }),
  /** Once the command has started. */
  command: commandState.optional(),
  /** How the command ended, once it has. */
  end: z
    .object({
      state: z.enum(END_STATES),
      exitCode: z.number().optional(),
      note: z.string().optional(),
      unconfirmed: z.boolean().optional(),
    })
    .optional(),
  offset: z.number(),
  step: z.enum(STEPS).optional(),
  report: agentReport.optional(),
});

export type TaskState = z.infer<typeof taskState>;

export class Tasks implements Executor<TaskSpec> {
  readonly kind = "task";
  readonly #host: TasksHost;
  readonly #queue = new KeyedQueue();
  readonly #working = new Map<string, RunningTask>();

  constructor(host: TasksHost) {
    this.#host = host;
  }

  start(run: ActiveRun, { task, restore, ...spec }: TaskSpec): Execution {
    const working = new RunningTask(this.#host, run, { spec, offset: 0 });
    if (this.#working.size > 0) working.say("Waiting for the task before it in this sandbox");
    return this.#follow(working, () => working.begin(task, restore));
  }

  resume(run: ActiveRun, from: unknown): Execution {
    const state = taskState.parse(from);
    const working = new RunningTask(this.#host, run, state);
    return { ...this.#follow(working, () => working.goOn()), deadline: state.command?.deadline };
  }

  /**
   * Keeps code apart from the tasks of the sandbox, for whom the model is not: what runs beside an agent can read its
   * placeholder for a credential, and use it from there.
   * @throws {ToolError} while there is a task
   */
  keepApart(sandbox: string): void {
    if (this.#working.size === 0) return;
    throw new ToolError(
      "permission_denied",
      `A coding agent is at work in sandbox ${sandbox}: running anything beside it needs the scope tasks:run, which your token lacks, because it could use the agent's model.`,
      "Use another sandbox, or try again when list_runs with kind task shows none running there.",
      true,
    );
  }

  /** A request of a task to the model's API is over. */
  modelAnswered(call: ModelCall, answer: ModelAnswer): void {
    this.#host.budgets.answered(call, answer);
    if (!answer.error) return;
    const { status, message } = answer.error;
    this.#working.get(call.run)?.say(`The model's API answered with status ${status}: ${message}`);
  }

  #follow(working: RunningTask, work: () => Promise<End>): Execution {
    const { id } = working;
    this.#working.set(id, working);
    const turn = this.#queue.run("task", id, work).finally(() => {
      this.#working.delete(id);
      this.#host.budgets.close(id);
    });
    return {
      done: Promise.race([turn, working.withdrawn]),
      cancel: () => working.cancel(),
      waiting: () => waitingFor(this.#queue.ahead("task", id), "workspace", ""),
    };
  }
}
