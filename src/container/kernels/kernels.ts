/**
 * Live kernels: one process for each language and context name, which keeps its state from call to call.
 *
 * The SDK's `runCode` ignores its timeout, delivers output at the end only, and never settles when its kernel dies. So
 * the deadline is kept here, a kernel is interrupted or killed by its process id, and one that takes longer than a second
 * is looked at now and then. A call of the SDK that nobody waits for any more is counted in `abandoned`.
 */
import { KeyedQueue } from "../../shared/queue.ts";
import { answerOf } from "../answer.ts";
import { isRecord } from "../../shared/is-record.ts";
import { ToolError, answered, damaged, exhausted, saysExhausted, sdkCode } from "../../shared/errors.ts";
import { type ExecHost, endStarted, exitCode, signal, watch } from "./process.ts";
import { within } from "../../shared/within.ts";
import { type CodeOutcome, type Printed, isPrinted, outcomeOf, unanswered } from "./outcome.ts";
import { type Language, idleCell, loadCell, parseHello, runCell } from "./protocol.ts";
import { type Kernel, KernelRegistry } from "./registry.ts";

/** What of the SDK's class this needs. */
export interface KernelHost extends ExecHost {
  createCodeContext(options: { language: Language }): Promise<{ id: string }>;
  runCode(code: string, options: { context: KernelContext }): Promise<Printed>;
  deleteCodeContext(id: string): Promise<void>;
}

/** A context as the SDK's `runCode` takes it. */
interface KernelContext {
  readonly id: string;
  readonly language: string;
  readonly cwd: string;
  readonly createdAt: Date;
  readonly lastUsed: Date;
}

export interface CodeSpec {
  runID: string;
  language: Language;
  /** Contexts of two languages are two contexts even when they have one name. */
  context: string;
  code: string;
  /** From the moment the code starts, milliseconds. */
  timeoutMs: number;
  /** Bytes kept of each stream; 100 MiB where undefined. */
  logCapBytes?: number;
}

/** What has become of a kernel that was at work for an earlier actor. */
export type TakenOver = "idle" | "interrupted" | "killed";

/** Why the waiting for a call ended before the call did. */
type Stop = "timeout" | "cancelled" | "died" | "gone";

/** How long an interrupted Python kernel has to answer. */
const INTERRUPT_GRACE_MS = 2_000;

/** How long a kernel may take to come up, with its container, milliseconds. */
const CREATE_MS = 120_000;

/** What an interpreter says of a file that it does not find, or that is not ours any more. */
const MISSING =
  /No module named|Cannot find module|No such file|ENOENT|cannot import name|has no attribute 'start'|start is not a function/;

const GONE = /not found|terminated/i;

export class Kernels {
  readonly #host: KernelHost;
  readonly #table: KernelRegistry;
  readonly #queue = new KeyedQueue();
  /** How to stop what runs or waits its turn, by run id. */
  readonly #stops = new Map<string, (why: Stop) => void>();
  readonly #running = new Set<string>();
  /** Kernels whose call failed while they may be at work; they are ended when a container is surely there. */
  #orphans: Kernel[] = [];

  /**
   * Calls of the SDK that will never settle by themselves. Each keeps the SDK's connection busy and with it the container
   * awake: when no other call is under way, close the connection (`client.disconnect()`), and they settle.
   */
  abandoned = 0;

  constructor(host: KernelHost, sql: SqlStorage) {
    this.#host = host;
    this.#table = new KernelRegistry(sql);
  }

  /**
   * Runs code after what was queued before it in its context.
   * @param begins is told the kernel that is given the code, once it is its turn
   * @param turn is told when that is
   * @throws {ToolError} `language_unavailable`; other errors are the SDK's
   */
  async run(
    spec: CodeSpec,
    begins: (kernel: Kernel) => void = () => {},
    turn: () => void = () => {},
  ): Promise<CodeOutcome> {
    const key = keyOf(spec);
    const { promise: stopped, resolve: stop } = Promise.withResolvers<Stop>();
    const { promise: withdrawn, resolve: withdraw } = Promise.withResolvers<CodeOutcome>();
    const never: CodeOutcome = {
      ...unanswered("cancelled", "kept", false),
      started: false,
      spilled: false,
    };
    let cancelled = false;
    this.#stops.set(spec.runID, (why) => {
      cancelled ||= why === "cancelled";
      stop(why);
      if (!this.#running.has(spec.runID)) withdraw(never);
    });
    const outcome = this.#queue.run(key, spec.runID, async () => {
      if (cancelled) return never;
      this.#running.add(spec.runID);
      turn();
      return this.#run(key, spec, stopped, begins);
    });
    try {
      return await Promise.race([outcome, withdrawn]);
    } finally {
      this.#stops.delete(spec.runID);
      this.#running.delete(spec.runID);
    }
  }

  /** The runs that this one waits for, the one under way first. */
  ahead(spec: CodeSpec): string[] {
    return this.#queue.ahead(keyOf(spec), spec.runID);
  }

  /** Whether the code of a run is under way, and does not wait its turn. */
  isRunning(runID: string): boolean {
    return this.#running.has(runID);
  }

  /** Cancels a run; one that still waits its turn never starts. Answers whether there was such a run. */
  interrupt(runID: string): boolean {
    const stop = this.#stops.get(runID);
    stop?.("cancelled");
    return stop !== undefined;
  }

  /** The container is gone, and every kernel with it. */
  forget(): void {
    this.#table.clear();
    this.#orphans = [];
    for (const [runID, stop] of this.#stops) stop(this.#running.has(runID) ? "gone" : "cancelled");
  }

  /**
   * Makes a kernel free again that an earlier actor gave code to, whose answer nobody will get. It is stopped as at its
   * deadline, unless it comes to its end meanwhile; code of the same context waits for that.
   */
  async takeOver(runID: string, kernel: Kernel): Promise<TakenOver> {
    const { promise: gone, resolve: stop } = Promise.withResolvers<Stop>();
    this.#stops.set(runID, (why) => why === "gone" && stop(why));
    this.#running.add(runID);
    try {
      return await this.#queue.run(kernel.key, runID, () => this.#free(runID, kernel, gone));
    } finally {
      this.#stops.delete(runID);
      this.#running.delete(runID);
    }
  }

  async #free(runID: string, kernel: Kernel, gone: Promise<Stop>): Promise<TakenOver> {
    const context = contextOf(kernel.contextID, kernel.language);
    // Answered after the code that was there first.
    const answer = this.#host.runCode(idleCell(kernel.language), { context });
    const ended = answer.catch(() => undefined);
    const idle = await Promise.race([within(INTERRUPT_GRACE_MS / 2, ended), gone]);
    if (typeof idle === "object") return "idle";
    const freed = idle ?? (await Promise.race([this.#interrupt(kernel, answer), gone]));
    if (typeof freed === "object") {
      await endStarted(this.#host, runID);
      return "interrupted";
    }
    this.#abandon(answer);
    // No call to a container that is gone: it would start a new one.
    if (freed === "gone") return "killed";
    this.#table.delete(kernel);
    this.#kill(kernel, runID);
    return "killed";
  }

  async #run(
    key: string,
    spec: CodeSpec,
    stopped: Promise<Stop>,
    begins: (kernel: Kernel) => void,
  ): Promise<CodeOutcome> {
    const known = this.#table.get(key);
    if (known) {
      begins(known);
      try {
        return await this.#attempt(known, spec, stopped, false);
      } catch (error) {
        this.#table.delete(known);
        // Only these two say that the code never ran; after any other error it may have.
        const missed = sdkCode(error) === "CONTEXT_NOT_FOUND" || sdkCode(error) === "INTERNAL_ERROR";
        if (!missed || !GONE.test(String(error))) {
          this.#orphans.push(known);
          throw error;
        }
      }
    }
    const kernel = await this.#create(key, spec.language);
    begins(kernel);
    try {
      return await this.#attempt(kernel, spec, stopped, true);
    } catch (error) {
      this.#table.delete(kernel);
      this.#orphans.push(kernel);
      throw error;
    }
  }

  #print(code: string, context: KernelContext): Promise<Printed> {
    return answerOf(this.#host.runCode(code, { context }), isPrinted);
  }

  async #create(key: string, language: Language): Promise<Kernel> {
    let contextID;
    try {
      const created = answerOf(this.#host.createCodeContext({ language }), isContext);
      contextID = (await answered(CREATE_MS, created)).id;
    } catch (error) {
      const code = sdkCode(error) ?? "";
      // A kernel that ends before it is ready has not been given what it needs.
      if (code === "INTERNAL_ERROR" && /Failed to create code context/i.test(String(error)))
        throw exhausted();
      if (!/^(PYTHON|JAVASCRIPT)_NOT_AVAILABLE$/.test(code)) throw error;
      // Said too of an interpreter that could not be started.
      const program = language === "python" ? "python3" : "node";
      if ((await exitCode(this.#host, `command -v ${program} >/dev/null`)) !== 1) throw exhausted();
      throw new ToolError(
        "language_unavailable",
        `This server's sandboxes have no ${language} interpreter.`,
        "Use another language of run_code, or run_command.",
      );
    }
    for (const orphan of this.#orphans.splice(0)) this.#kill(orphan);
    const context = contextOf(contextID, language);
    const printed = await answered(CREATE_MS, this.#print(loadCell(language), context));
    const process = parseHello(printed.logs.stdout.join(""));
    if (!process) {
      const { error, logs } = printed;
      const detail = error ? `${error.name}: ${error.message}` : logs.stderr.join("").slice(-500);
      if (saysExhausted(detail)) throw exhausted();
      // An executor that runs no cell says nothing.
      if (detail === "" || MISSING.test(detail))
        throw damaged(`its ${language} kernel does not start (${detail.slice(-200) || "it says nothing"})`);
      throw new Error(`the prelude of the ${language} kernel did not load: ${detail}`);
    }
    const kernel = { key, contextID, language, ...process };
    this.#table.put(kernel);
    return kernel;
  }

  async #attempt(
    kernel: Kernel,
    spec: CodeSpec,
    stopped: Promise<Stop>,
    fresh: boolean,
  ): Promise<CodeOutcome> {
    const context = contextOf(kernel.contextID, kernel.language);
    const answer = this.#print(runCell(spec.language, spec), context);
    const { promise: timedOut, resolve: timeOut } = Promise.withResolvers<Stop>();
    const timer = setTimeout(() => timeOut("timeout"), spec.timeoutMs);
    const watching = watch(this.#host, kernel);
    try {
      const first = await Promise.race([answer, stopped, timedOut, watching.died]);
      if (typeof first !== "string") return outcomeOf(first, spec.runID, fresh);
      this.#abandon(answer);
      // No call to a container that is gone: it would start a new one.
      if (first === "gone") return unanswered("died", "lost", fresh);
      const late = first === "died" ? undefined : await this.#interrupt(kernel, answer);
      if (late && first !== "died") {
        await endStarted(this.#host, spec.runID);
        return { ...outcomeOf(late, spec.runID, fresh), end: first };
      }
      this.#table.delete(kernel);
      this.#kill(kernel, first === "died" ? undefined : spec.runID);
      return unanswered(first, "lost", fresh);
    } finally {
      clearTimeout(timer);
      watching.end();
    }
  }

  /** The answer of a Python kernel that an interrupt brought to its end, or undefined. */
  async #interrupt(kernel: Kernel, answer: Promise<Printed>): Promise<Printed | undefined> {
    if (kernel.language !== "python") return undefined;
    const ended = answer.catch(() => undefined);
    // Twice: the first may come a moment before the code, or be caught by it.
    for (const pause of [INTERRUPT_GRACE_MS / 2, INTERRUPT_GRACE_MS / 2]) {
      await Promise.race([signal(this.#host, kernel, "INT"), ended]);
      const printed = await within(pause, ended);
      if (printed) return printed;
    }
    return undefined;
  }

  #abandon(answer: Promise<unknown>): void {
    this.abandoned += 1;
    const settled = () => {
      this.abandoned -= 1;
    };
    answer.then(settled, settled);
  }

  /**
   * Ends a kernel, with what the code of the run in it started where one is given. In the background: the SDK starts a
   * spare kernel before it answers that a context is deleted.
   */
  #kill(kernel: Kernel, runID?: string): void {
    const started = runID ? endStarted(this.#host, runID, kernel) : Promise.resolve();
    // A shell's own kill needs no process where there may be none left to start.
    const ended = started.then(() => signal(this.#host, kernel, "KILL"));
    void ended.then(() => this.#host.deleteCodeContext(kernel.contextID).catch(() => undefined));
  }
}

function keyOf({ language, context }: CodeSpec): string {
  return `${language}/${context}`;
}

function isContext(answer: unknown): boolean {
  return isRecord(answer) && typeof answer.id === "string";
}

function contextOf(id: string, language: Language): KernelContext {
  const now = new Date();
  return { id, language, cwd: "/workspace", createdAt: now, lastUsed: now };
}
