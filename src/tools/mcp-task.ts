/**
 * Runs as tasks of MCP's Tasks extension (SEP-2663). A call of a client that declares it becomes a task when the run outlasts
 * a moment: the client polls it with `tasks/get` by the run's id, in place of the model with get_result.
 */
import { createdAt } from "../runs/id.ts";
import { lastLine } from "../runs/shown-output.ts";
import type { RunView } from "../runs/run-types.ts";
import { DAY_MS } from "../shared/days.ts";
import type { Config } from "../shared/config.ts";
import { declaredExtension } from "../shared/extensions.ts";
import type { Scope } from "../shared/principal.ts";
import { visible } from "../shared/shown.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { isPatient } from "../shared/wait.ts";

const TASKS_EXTENSION = "io.modelcontextprotocol/tasks";

/** What a client that asks for a task has to declare. */
export const TASKS_CAPABILITY = { extensions: { [TASKS_EXTENSION]: {} } };

/** Whether a request declares the extension. */
export function declaresTasks(message: unknown): boolean {
  return declaredExtension(message, TASKS_EXTENSION) !== undefined;
}

/** The methods, and the tool that does the same for a model: their scopes are its own. */
export const TASK_METHODS = {
  "tasks/get": "get_result",
  "tasks/update": "get_result",
  "tasks/cancel": "cancel_run",
} as const;

/** How long a run takes that is answered at once, milliseconds. */
const TASK_AFTER_MS = 500;

/** How a call waits for its run. */
export interface CallWait {
  waitMs: number;
  /** The task that the run goes on as, if it does. */
  taskOf(run: RunView, notice: string | undefined): MCPTask | undefined;
}

/**
 * A call that asks for a shorter wait than the usual is answered after it, as every client's is: its model wants to go on.
 * So is one with a notice of what was lost, for which a task has no place.
 * @param poll the scope that `tasks/get` needs; undefined for a run that makes no task
 */
export function callWait(
  { takesTasks = false, config, principal }: CallerContext,
  waitSeconds: number,
  poll: Scope | undefined,
): CallWait {
  const mayPoll = poll !== undefined && principal.scopes.includes(poll);
  const mayBecomeTask = takesTasks && mayPoll && isPatient(waitSeconds, config.maxWaitSeconds);
  return {
    waitMs: mayBecomeTask ? TASK_AFTER_MS : waitSeconds * 1000,
    taskOf: (run, notice) => {
      const isRunning = run.state === "running" && notice === undefined;
      return mayBecomeTask && isRunning ? taskOf(run, config) : undefined;
    },
  };
}

/** A task without its result. Milliseconds; times in ISO 8601. */
export type MCPTask = {
  taskId: string;
  status: "working" | "completed" | "cancelled";
  statusMessage?: string;
  createdAt: string;
  lastUpdatedAt: string;
  /** From its creation. */
  ttlMs: number;
  pollIntervalMs: number;
};

/**
 * A run as a task. `failed` is for errors of JSON-RPC, and no tool asks for input: a program that fails, is stopped or lost
 * has completed with the result that the call would have had.
 */
export function taskOf(run: RunView, { resultTTLDays }: Pick<Config, "resultTTLDays">): MCPTask {
  const { id, state, startedAt, endedAt } = run;
  const created = createdAt(id);
  const age = Math.max(0, (endedAt ?? Date.now()) - created);
  return {
    taskId: id,
    status: state === "running" ? "working" : state === "cancelled" ? "cancelled" : "completed",
    statusMessage: messageOf(run),
    createdAt: new Date(created).toISOString(),
    lastUpdatedAt: new Date(Math.max(created, endedAt ?? startedAt)).toISOString(),
    ttlMs: age + resultTTLDays * DAY_MS,
    // A tenth of its age: what is short is known soon, and an hour costs no thousand requests.
    pollIntervalMs: Math.round(Math.min(Math.max(age / 10, TASK_AFTER_MS), 5000)),
  };
}

function messageOf({ state, note, waiting, stdout, stderr }: RunView): string | undefined {
  if (waiting) return `Waits for its turn behind ${waiting.behind.join(", ")}.`;
  if (state !== "running") return note && visible(note);
  const printed = stdout.bytes > 0 ? stdout : stderr;
  return lastLine(new TextEncoder().encode(printed.tail || printed.head)) || undefined;
}
