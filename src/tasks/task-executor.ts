/**
 * Executes tasks: `container/task.sh` runs a coding agent in the sandbox as one command, then the results are fetched. A
 * sandbox's tasks run one after another, because the changes of two agents in one workspace could not be told apart.
 */
import type { Scope } from "../shared/principal.ts";
import type { ActiveRun } from "../runs/active-run.ts";
import type { Executor } from "../runs/executor.ts";
import { KeyedQueue } from "../shared/queue.ts";
import type { TraceContext } from "../shared/trace.ts";
import { type End, type Execution, waitingFor } from "../runs/run-types.ts";
import type { Definition } from "./components.ts";
import type { ModelOutcome, ModelCall } from "../container/model-calls.ts";
import type { TaskDetail } from "../runs/task-detail.ts";
import { RunningTask, detailOf } from "./running-task.ts";
import { type StoredSpec, type TasksHost, taskState } from "./task-state.ts";
import { WAITING_FOR_TASK, agentIsWorking, modelFailedText } from "./texts.ts";

export type TaskSpec = StoredSpec & {
  task: string;
  /** The task to continue in a new sandbox, which has the task's files. Its conversation is restored from the archive. */
  continuedRun?: string;
  /** The operator's definitions that the task names. */
  definitions?: Definition[];
  trace?: TraceContext | undefined;
};

export class TaskExecutor implements Executor<TaskSpec> {
  readonly kind = "task";
  readonly #host: TasksHost;
  readonly #queue = new KeyedQueue();
  readonly #working = new Map<string, RunningTask>();

  constructor(host: TasksHost) {
    this.#host = host;
  }

  detailOf(spec: TaskSpec): TaskDetail {
    return detailOf(spec);
  }

  start(run: ActiveRun, { task, continuedRun, definitions, trace, ...spec }: TaskSpec): Execution {
    const working = new RunningTask(this.#host, run, { spec, offset: 0 });
    if (this.#working.size > 0) working.addLine(WAITING_FOR_TASK);
    return this.#follow(working, () => working.begin(task, continuedRun, definitions, trace));
  }

  resume(run: ActiveRun, from: unknown): Execution {
    const state = taskState.required({ command: true }).parse(from);
    const { command } = state;
    const working = new RunningTask(this.#host, run, state);
    return { ...this.#follow(working, () => working.resumeTask(command)), deadline: command.deadline };
  }

  /**
   * While an agent runs, refuses callers without `tasks:run`, because their code could use the placeholder for the model's key.
   * @throws {ToolError}
   */
  refuseDuringTask({ sandbox, scopes = [] }: { sandbox: string; scopes?: readonly Scope[] }): void {
    if (scopes.includes("tasks:run") || this.#working.size === 0) return;
    throw agentIsWorking(sandbox);
  }

  /** Shows an error of a model request in the task's output. */
  finishModelCall(call: ModelCall, outcome: ModelOutcome): void {
    if (!outcome.error) return;
    const { status, message } = outcome.error;
    this.#working.get(call.run)?.addLine(modelFailedText(status, message));
  }

  #follow(working: RunningTask, work: () => Promise<End>): Execution {
    const { id } = working;
    this.#working.set(id, working);
    const done = this.#queue
      .run("task", id, work, () => working.cancelledEnd())
      .finally(() => {
        this.#working.delete(id);
        this.#host.budgets.close(id);
      });
    return {
      done,
      cancel: () => {
        this.#queue.withdraw("task", id);
        return working.cancel();
      },
      waiting: () => waitingFor(this.#queue.waitingFor("task", id), "workspace", ""),
    };
  }
}
