/** How a new actor goes on with the runs of the one before. */
import { resumeCode } from "../runs/code.ts";
import type { CommandState } from "../runs/command.ts";
import type { Launch } from "../runs/runs.ts";
import type { RunRecord } from "../runs/store.ts";
import type { TaskState } from "../tasks/tasks.ts";
import type { Kernel } from "../container/kernels/registry.ts";
import type { Parts } from "./parts.ts";

/** How to go on with a run that has no end, or why that cannot be. */
export function resumption(
  { tasks, commands, kernels, shell, stakes }: Parts,
  running: boolean,
  { kind, trace, startedAt }: RunRecord,
): Launch | string {
  if (kind !== "task" && !trace)
    return "It waited for its turn when the server was restarted, and never ran. Run it again.";
  if (!running) return "The sandbox went away while the server was down, and everything in it.";
  const held = (launch: Launch, deadline = 0): Launch => {
    return (run) => stakes.resumed(launch(run), deadline, startedAt);
  };
  if (kind === "task") {
    const task = trace as TaskState | undefined;
    const launch = tasks.resume(task);
    return typeof launch === "string" ? launch : held(launch, task?.command?.deadline);
  }
  if (kind === "command") {
    const command = trace as CommandState;
    return held((run) => commands.resume(run, command), command.deadline);
  }
  return held((run) => resumeCode(kernels, shell, run, trace as Kernel));
}
