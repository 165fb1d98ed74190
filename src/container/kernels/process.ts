/** Looks after a kernel by its process: is it there, interrupt it, end it. By short lines in a shell of the sandbox. */
import { type KernelProcess, endLine, processLine } from "./protocol.ts";
import { within } from "../../shared/within.ts";

/** What of the SDK's class this needs. */
export interface ExecHost {
  exec(command: string): Promise<{ exitCode: number }>;
}

/** The first look at a kernel comes this long after its code started, so that a short call pays for none. */
const FIRST_LOOK_MS = 300;

/** The pause between later looks grows with the time the code has been running. */
const PAUSE_MS = { least: 1_000, most: 5_000 };

/** How long a line may take before it counts as unanswered. */
const ANSWER_MS = 5_000;

/** Sends the signal if the process is still the same one. Never throws; a sandbox that does not answer is let be. */
export async function signal(host: ExecHost, process: KernelProcess, name: "INT" | "KILL"): Promise<void> {
  await exitCode(host, processLine(process, name));
}

/**
 * Ends what the code of a run started, with the kernel that ran it if that is given. Never throws; what has an environment
 * of its own, without the run's mark, is not found.
 */
export async function endStarted(host: ExecHost, runID: string, kernel?: KernelProcess): Promise<void> {
  await exitCode(host, endLine(runID, kernel));
}

/** Looks at the process from time to time until `end`; `died` settles once it is not there any more. */
export function watch(host: ExecHost, process: KernelProcess): { died: Promise<"died">; end: () => void } {
  const { promise: died, resolve } = Promise.withResolvers<"died">();
  const startedAt = Date.now();
  let pause = FIRST_LOOK_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let ended = false;
  const plan = () => {
    if (!ended) timer = setTimeout(look, pause);
    pause = Math.min(Math.max((Date.now() - startedAt) / 60, PAUSE_MS.least), PAUSE_MS.most);
  };
  const look = async () => {
    if ((await exitCode(host, processLine(process))) === 1) resolve("died");
    else plan();
  };
  plan();
  const end = () => {
    ended = true;
    if (timer !== undefined) clearTimeout(timer);
  };
  return { died, end };
}

/** The exit code of a line; undefined when nobody answered, which proves nothing. */
export async function exitCode(host: ExecHost, line: string): Promise<number | undefined> {
  const exec = async () => (await host.exec(line)).exitCode;
  // User code can kill the shell that answers; the SDK says so once and has a fresh one for the next call.
  const answer = exec()
    .catch(exec)
    .catch(() => undefined);
  return within(ANSWER_MS, answer);
}
