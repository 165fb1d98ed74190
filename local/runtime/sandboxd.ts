/** Keeps sandboxd running beside this program, as the image's entrypoint does. */
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { get } from "node:http";
import { setTimeout as pause } from "node:timers/promises";
import { log } from "./log.ts";

/** The pause before sandboxd is started again after it has ended, milliseconds. */
const PAUSE_MS = 50;

/** The pause before sandboxd is asked again whether it answers, until it has once and then; and how long it may take to. Milliseconds. */
const STARTING_MS = 500;
const ASK_MS = 5000;
const ANSWER_MS = 5000;

/** How long one that does not answer is waited for, in time that it had. Milliseconds. */
const HUNG_MS = 15_000;

/** @param socket where it listens */
export function keepSandboxd(file: string, socket: string, env: NodeJS.ProcessEnv): void {
  const start = () => {
    const child = spawn(process.execPath, [file, "--socket", socket], {
      cwd: "/",
      detached: true,
      env,
      argv0: "sandboxd",
      stdio: ["ignore", "ignore", "inherit"],
    });
    const ended = new AbortController();
    const again = () => {
      ended.abort();
      setTimeout(start, PAUSE_MS);
    };
    child.once("error", (error) => (log(`sandboxd: ${error.message}`), again()));
    child.once("exit", again);
    void killHung(child, socket, ended.signal);
  };
  start();
}

/**
 * Kills sandboxd once it does not answer: user code may have stopped it, or have taken its place. What counts is the time that
 * it had to answer, because what runs in the sandbox may keep it from the processor for long.
 */
async function killHung(child: ChildProcess, socket: string, ended: AbortSignal): Promise<void> {
  let [pauseMs, had] = [STARTING_MS, 0];
  let before = timesOf(child);
  while (had < HUNG_MS) {
    await pause(pauseMs);
    if (ended.aborted) return;
    const askedAt = performance.now();
    const hasAnswered = await answers(socket);
    // No longer than was waited for: while the machine sleeps nobody has time.
    const tookMs = pauseMs + Math.min(performance.now() - askedAt, ANSWER_MS);
    const now = timesOf(child);
    if (hasAnswered) [pauseMs, had] = [ASK_MS, 0];
    else if (before && now) had += timeHad(tookMs, before, now);
    before = now;
  }
  log(`sandboxd has not answered for ${Math.round(had / 1000)} s of its own time: it is killed`);
  child.kill("SIGKILL");
}

/** What a process did since its start, milliseconds. */
interface Times {
  ran: number;
  /** For a processor. A wait counts once it is over. */
  waited: number;
  /** Whether it runs or waits now, for a processor or a disk. */
  isAtWork: boolean;
}

/** Undefined where the system does not say. */
function timesOf({ pid }: ChildProcess): Times | undefined {
  try {
    const [ran = "", waited = ""] = readFileSync(`/proc/${pid}/schedstat`, "latin1").split(" ");
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const isAtWork = /[RD]/.test(stat.charAt(stat.lastIndexOf(")") + 2));
    return { ran: Number(ran) / 1e6, waited: Number(waited) / 1e6, isAtWork };
  } catch {
    return undefined;
  }
}

function timeHad(tookMs: number, before: Times, { ran, waited, isAtWork }: Times): number {
  return isAtWork ? ran - before.ran : Math.max(0, tookMs - (waited - before.waited));
}

/** Whether something answers in HTTP. What answers in sandboxd's place is told by the answers themselves. */
function answers(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(ANSWER_MS);
    get({ socketPath, agent: false, signal }, (response) => {
      response.destroy();
      resolve(true);
    }).once("error", () => resolve(false));
  });
}
