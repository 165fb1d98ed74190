/**
 * Runs as tasks of MCP's Tasks extension (SEP-2663). If the client declares the extension, a call becomes a task when its run
 * takes longer than `TASK_AFTER_MS`. Then the client polls `tasks/get` with the run's id, and the model need not call get_result.
 */
import type { SandboxCalls } from "../actors/sandbox-client.ts";
import { createdAt } from "../runs/id.ts";
import { lastLine } from "../runs/shown-output.ts";
import type { RunView } from "../runs/run-types.ts";
import { DAY_MS } from "../shared/days.ts";
import type { Config } from "../shared/config.ts";
import { declaredExtension } from "../shared/extensions.ts";
import type { Scope } from "../shared/principal.ts";
import { makeVisible } from "../shared/shown.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { isDefaultWait } from "../shared/wait.ts";
import { behindText } from "./texts.ts";

const TASKS_EXTENSION = "io.modelcontextprotocol/tasks";

export const TASKS_CAPABILITY = { extensions: { [TASKS_EXTENSION]: {} } };

export function declaresTasks(message: unknown): boolean {
  return declaredExtension(message, TASKS_EXTENSION) !== undefined;
}

/** The methods of the extension, each with the tool whose scopes it needs. */
export const TASK_METHODS = {
  "tasks/get": "get_result",
  "tasks/update": "get_result",
  "tasks/cancel": "cancel_run",
} as const;

/** In milliseconds. The call of a run that ends within this time returns the run's result, not a task. */
const TASK_AFTER_MS = 500;

interface CallWait {
  waitMs: number;
  /** The task that the run becomes; undefined if it stays a plain call. */
  taskOf(run: RunView): MCPTask | undefined;
}

/**
 * Decides whether a call becomes a task. A call with a short wait stays a plain call, because its model wants to continue. So
 * does a call with a notice, because a task has no field for it.
 * @param pollScope the scope of `tasks/get`; undefined for runs that cannot be tasks
 */
export function callWait(
  { takesTasks = false, config, principal, notices }: CallerContext & Pick<SandboxCalls, "notices">,
  waitSeconds: number,
  pollScope: Scope | undefined,
): CallWait {
  const mayPoll = pollScope !== undefined && principal.scopes.includes(pollScope);
  const mayBecomeTask = takesTasks && mayPoll && isDefaultWait(waitSeconds, config.maxWaitSeconds);
  return {
    waitMs: mayBecomeTask ? TASK_AFTER_MS : waitSeconds * 1000,
    taskOf: (run) => {
      const isRunning = run.state === "running" && notices.size === 0;
      return mayBecomeTask && isRunning ? taskOf(run, config) : undefined;
    },
  };
}

/** A task without its result. Times are ISO 8601. */
export type MCPTask = {
  taskId: string;
  status: "working" | "completed" | "cancelled";
  statusMessage?: string;
  createdAt: string;
  lastUpdatedAt: string;
  /** Counted from the task's creation. */
  ttlMs: number;
  pollIntervalMs: number;
};

/** A run as a task. `failed` is only for JSON-RPC errors: a run that fails, times out or is lost is `completed`. */
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
    // A tenth of the run's age: the client learns soon that a short run has ended, and polls a long run rarely.
    pollIntervalMs: Math.round(Math.min(Math.max(age / 10, TASK_AFTER_MS), 5000)),
  };
}

function messageOf({ state, note, waiting, stdout, stderr }: RunView): string | undefined {
  if (waiting) return behindText(waiting);
  if (state !== "running") return note && makeVisible(note);
  const printed = stdout.bytes > 0 ? stdout : stderr;
  return lastLine(new TextEncoder().encode(printed.tail || printed.head)) || undefined;
}
