import { spawnSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import { setImmediate, setTimeout as pause } from "node:timers/promises";
import { RpcTarget } from "capnweb";
import { type KernelProgram, type Language, TRAITS } from "../../src/shared/languages.ts";
import { SerialQueue } from "../../src/shared/queue.ts";
import { messageOf } from "../../src/shared/text.ts";
import { codeOf } from "../../container/sandboxd/file-error.ts";
import { Kernel, type KernelReply, PROGRAMS } from "./kernels/kernel.ts";

interface RunCallbacks {
  onStdout?: (output: { text: string; timestamp: number }) => void | Promise<void>;
  onStderr?: (output: { text: string; timestamp: number }) => void | Promise<void>;
  /** Called only by the image's interpreter: our cells return no value. */
  onResult?: (result: Record<string, unknown>) => void | Promise<void>;
  onError?: (error: { name: string; message: string; traceback: string[] }) => void | Promise<void>;
}

/** The pause before the next prepared kernel starts, in milliseconds: it leaves the CPU to the new context's first code. */
const PREPARE_DELAY_MS = 1_000;

/**
 * The `interpreter` of the control API. It has the same limits as the image's: no timeouts, output only at the end, and calls
 * that may never end.
 */
export class InterpreterAPI extends RpcTarget {
  readonly #scripts: string;
  readonly #cwd: string;
  readonly #contexts = new Map<string, Kernel>();
  readonly #prepared = new Map<KernelProgram, Kernel>();
  readonly #starting = new Set<KernelProgram>();
  /** The programs for which a context was created. */
  readonly #used = new Set<KernelProgram>();
  /** Sends results to the Worker one after another, because the engine limits how much the Worker stores at once. */
  readonly #results = new SerialQueue();
  #first: Promise<void> | undefined;
  #isClosed = false;

  constructor(scripts: string, cwd = "/workspace") {
    super();
    this.#scripts = scripts;
    this.#cwd = cwd;
  }

  /** Errors: PYTHON_NOT_AVAILABLE and the codes of other programs, INTERNAL_ERROR. */
  async createCodeContext({ language }: { language: Language }) {
    const { program } = TRAITS[language];
    let kernel: Kernel;
    try {
      kernel = await this.#obtainKernel(program);
    } catch (error) {
      const { command } = PROGRAMS[program];
      if (!isAvailable(command)) {
        const title = TRAITS[language].title;
        const originalError = `${title} interpreter not available: there is no ${command} on this machine.`;
        throw sandboxError(notAvailable(program), originalError, { originalError });
      }
      const originalError = messageOf(error);
      throw sandboxError("INTERNAL_ERROR", `Failed to create code context: ${originalError}`, {
        originalError,
      });
    }
    const id = randomUUID();
    this.#contexts.set(id, kernel);
    const now = new Date();
    return { id, language, cwd: "/workspace", createdAt: now, lastUsed: now };
  }

  /** Runs code. When the code ends, passes its output to the callbacks. There is no time limit, as in the image. */
  async runCodeStream(
    contextId: string,
    code: string,
    _language: unknown,
    callbacks: RunCallbacks,
  ): Promise<void> {
    const reply = await this.#execute(contextId, code);
    await this.#results.run(() => passOn(reply, callbacks));
  }

  /** Ends the context's kernel. Errors: CONTEXT_NOT_FOUND. */
  async deleteCodeContext(contextId: string): Promise<void> {
    const kernel = this.#kernelOf(contextId);
    this.#contexts.delete(contextId);
    kernel.stop();
  }

  /** Starts a Python kernel for the first context. Call it before any user code runs. */
  startFirst(): void {
    this.#first ??= this.#prepareKernel("python", 0);
  }

  close(): void {
    this.#isClosed = true;
    for (const kernel of this.#contexts.values()) kernel.stop();
    for (const kernel of this.#prepared.values()) kernel.stop();
    this.#contexts.clear();
    this.#prepared.clear();
  }

  async #execute(contextId: string, code: string): Promise<KernelReply> {
    const kernel = this.#kernelOf(contextId);
    if (!kernel.isHealthy) {
      const hint = "Context executor has terminated. Please delete and recreate the context.";
      throw sandboxError("INTERNAL_ERROR", hint, { contextId });
    }
    return await kernel.execute(code);
  }

  #kernelOf(contextId: string): Kernel {
    const kernel = this.#contexts.get(contextId);
    if (!kernel) throw sandboxError("CONTEXT_NOT_FOUND", `Context ${contextId} not found`, { contextId });
    return kernel;
  }

  /**
   * Waits for the first prepared kernel, which no user code can block. Does not wait for a later one, which may hang in a
   * `usercustomize.py` that the user has fixed since.
   */
  async #obtainKernel(program: KernelProgram): Promise<Kernel> {
    if (program === "python") await this.#first;
    const prepared = this.#prepared.get(program);
    this.#prepared.delete(program);
    const isUsable = prepared?.isRunning === true && prepared.isCurrent;
    if (!isUsable) prepared?.stop();
    const kernel = isUsable ? prepared : await Kernel.start(program, this.#scripts, this.#cwd);
    // Most sandboxes have one context for each program. For these, a prepared kernel would cost a quarter of a second of
    // processor time and 33 MiB, and never be used.
    if (this.#used.has(program)) void this.#prepareKernel(program, PREPARE_DELAY_MS);
    this.#used.add(program);
    return kernel;
  }

  /** If the start fails, the next new context tries it again. */
  async #prepareKernel(program: KernelProgram, delayMs: number): Promise<void> {
    if (this.#starting.has(program)) return;
    this.#starting.add(program);
    await pause(delayMs, undefined, { ref: false });
    if (!this.#isClosed && !this.#prepared.has(program)) {
      const kernel = await Kernel.start(program, this.#scripts, this.#cwd).catch(() => undefined);
      if (this.#isClosed) kernel?.stop();
      else if (kernel !== undefined) this.#prepared.set(program, kernel);
    }
    this.#starting.delete(program);
  }
}

function isAvailable(command: string): boolean {
  const { status, error } = spawnSync(command, ["--version"], { timeout: 5_000 });
  // An interpreter that fails for lack of processes or time is not missing.
  if (status === null && codeOf(error) !== "ENOENT") return true;
  return status === 0;
}

const notAvailable = (program: KernelProgram) =>
  `${program.toUpperCase() as Uppercase<KernelProgram>}_NOT_AVAILABLE` as const;

async function passOn({ stdout, stderr, success, error }: KernelReply, callbacks: RunCallbacks) {
  // Meanwhile, Node sends the response for the previous result, and the Worker can release that result.
  await setImmediate();
  if (stdout) await callbacks.onStdout?.({ text: stdout, timestamp: Date.now() });
  if (stderr) await callbacks.onStderr?.({ text: stderr, timestamp: Date.now() });
  if (success !== false) return;
  await callbacks.onError?.({
    name: error?.type || "ExecutionError",
    message: (error ? error.message : stderr) || "Code execution failed",
    traceback: error?.traceback?.split("\n") ?? [],
  });
}

/**
 * An error in the form that the Sandbox SDK expects from a container: a plain `Error` with the own properties `code` and `details`,
 * which capnweb sends. The SDK makes its typed class (ContextNotFoundError, ...) from `code`, with `details` as its `context`. A
 * subclass of Error would arrive as a plain Error.
 * @param code from the SDK's registry; an unknown code would look like a transport failure
 */
function sandboxError(
  code: "CONTEXT_NOT_FOUND" | ReturnType<typeof notAvailable> | "INTERNAL_ERROR",
  message: string,
  details: Record<string, unknown>,
): Error {
  return Object.assign(new Error(message), { code, details });
}
