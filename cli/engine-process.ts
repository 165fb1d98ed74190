/** Starts the local engine as a process, which ends with all its sandboxes when its stdin closes. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { moduleExtension } from "../local/engine/own-files.ts";
import { waitAtMost } from "../src/shared/timers.ts";
import type { EngineSettings } from "../local/engine/engine-settings.ts";
import { engineEnded } from "./texts.ts";

/**
 * The size in MiB of a semispace, half of V8's space for young objects. By default, V8 grows it to 32 MiB under load, and never
 * shrinks it.
 */
const YOUNG_MIB = 8;
/**
 * V8 collects no garbage of old objects below this size in MiB, with the buffers that they refer to. Otherwise, it did so for each 8 MiB
 * of a transfer, which took almost half of the engine's processor time.
 */
const OLD_MIB = 64;
/** How long the engine may take to end its sandboxes, in milliseconds. Long, for a very busy machine. */
const CLOSE_MS = 10_000;

export interface RunningEngine {
  url: string;
  python: string | undefined;
  /** Sets the interpreter for new sandboxes. */
  usePython(executable: string): void;
  /** Ends the engine with every sandbox; resolves when it is gone. */
  close(): Promise<void>;
}

const engineReply = z.union([
  z.object({ ready: z.literal(true), url: z.string(), report: z.object({ python: z.string().optional() }) }),
  z.object({ ready: z.literal(false), error: z.string() }),
]);

/**
 * @param settings may be a promise; the engine loads its modules while the promise resolves
 * @param onLog called with each stderr line
 * @param onDeath called with the exit status or signal if the engine ends unexpectedly
 * @throws Error with the engine's message if it cannot start
 */
export async function startEngineProcess(
  settings: EngineSettings | Promise<EngineSettings>,
  onLog: (line: string) => void,
  onDeath: (how: string) => void,
): Promise<RunningEngine> {
  const main = fileURLToPath(new URL(`../local/engine/main${moduleExtension}`, import.meta.url));
  // Detached, so that the terminal's Ctrl-C reaches only this process, which ends everything in order.
  const heap = [`--max-semi-space-size=${YOUNG_MIB}`, `--initial-old-space-size=${OLD_MIB}`];
  const child = spawn(process.execPath, [...heap, main], {
    detached: true,
    // Half of these threads may resolve names: see maxLookups in local/engine/upstream.ts.
    env: { ...process.env, UV_THREADPOOL_SIZE: "64" },
    stdio: ["pipe", "pipe", "pipe"],
  });
  child.stdin.on("error", () => undefined);
  createInterface({ input: child.stderr }).on("line", onLog);

  let isClosing = false;
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ?? `status ${code}`));
  });
  const lines = createInterface({ input: child.stdout });
  try {
    child.stdin.write(`${JSON.stringify(await settings)}\n`);
  } catch (error) {
    child.stdin.end();
    throw error;
  }
  const first = await Promise.race([once(lines, "line"), exited]);
  if (typeof first === "string") throw engineEnded(first);
  const reply = engineReply.parse(JSON.parse(String(first[0])));
  if (!reply.ready) throw new Error(reply.error);
  void exited.then((reason) => (isClosing ? undefined : onDeath(reason)));
  return {
    url: reply.url,
    python: reply.report.python,
    usePython: (executable) => void child.stdin.write(`${JSON.stringify({ python: executable })}\n`),
    async close() {
      isClosing = true;
      child.stdin.end();
      if ((await waitAtMost(CLOSE_MS, exited)) === undefined) child.kill("SIGKILL");
      await exited;
    },
  };
}
