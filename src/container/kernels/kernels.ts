/**
 * Live kernels: one process for each language and context name. A kernel keeps its variables from call to call.
 *
 * An interpreter delivers output only at the end, has no timeout, and may never settle if its kernel dies. So this class
 * enforces the deadline, and sandboxd follows the output, interrupts and ends the kernel, and notices its death.
 */
import type { KernelProcess } from "../../../container/sandboxd/protocol.ts";
import { type Language, TRAITS } from "../../shared/languages.ts";
import { KeyedQueue } from "../../shared/queue.ts";
import type { RunCall } from "../connection.ts";
import type { ContainerLink, OutputSink } from "../follower.ts";
import {
  DAMAGED,
  NOT_RUN,
  STOPPED,
  containerEnded,
  containerGone,
  kernelNotStarted,
  kernelWithoutSpace,
  noInterpreter,
} from "../texts.ts";
import { isRecord } from "../../shared/is-record.ts";
import { withTimeout, damaged, ending, exhausted, saysExhausted } from "../../shared/errors.ts";
import { cutText } from "../../shared/text.ts";
import { pause, waitAtMost } from "../../shared/timers.ts";
import {
  type CodeOutcome,
  KERNEL_NOT_STARTED,
  type CellResponse,
  isCellResponse,
  loadCell,
  codeOutcomeOf,
  parseHello,
  runCell,
  outcomeWithoutResult,
} from "./kernel-protocol.ts";
import { type Interpreter, InterpreterError } from "./interpreter.ts";
import { type Kernel, KernelRegistry } from "./kernel-registry.ts";
import { RunningCode } from "./running-code.ts";

export interface CodeSpec {
  language: Language;
  /** The same name in two languages means two contexts. */
  context: string;
  code: string;
  /** The time limit from the code's start, in milliseconds. Starting the kernel may take as long again. */
  timeoutMs: number;
  /** Kept bytes of each stream; the rest is only counted. */
  logCapBytes: number;
}

interface CodeStart {
  markStarted(): void;
  /** Called with the kernel that gets the code; with undefined if the kernel was gone and the code did not run. */
  onKernelAssigned(kernel: Kernel | undefined): void;
  /** Called when the code has ended by itself and the kernel has responded. Its output in files is still to be read. */
  onResponse(outcome: CodeOutcome): void;
}

/** How an earlier actor's code was ended in its kernel. */
export type CellHandover = "idle" | "interrupted" | "killed";
type StopReason = "timeout" | "cancelled" | "gone" | "ending";
/** How long a Python kernel may take to respond to each of two interrupts, in milliseconds. Its first traceback takes a busy machine 2 s. */
const INTERRUPT_GRACE_MS = 2_500;
/** How long a kernel may take to start, including its container, in milliseconds. */
const CREATE_MS = 120_000;
/** How long a stopping container may take before the platform kills it, in milliseconds. */
const ENDING_MS = 15 * 60_000;
const STOP_MS = 10_000;
/** How long a connection stays open if only abandoned calls use it, in milliseconds. */
const HANG_UP_MS = 5000;
const DETAIL_CHARS = 200;
/** How much of the reason is read why a prelude did not load, in characters. */
const LOAD_CHARS = 500;
/** Contexts have UUIDs. */
const MAX_CONTEXT_ID_CHARS = 64;

interface KernelsHost extends ContainerLink {
  lifecycle: ContainerLink["lifecycle"] & {
    /** Repeats the work of a run in the next container if its container is gone. */
    retryRunInNextContainer<T>(work: () => Promise<T>, isOver: () => boolean): Promise<T>;
  };
}

interface Refusal {
  until: number;
  /** Whether sandboxd reports that its container continues, so that new code is accepted again. The promise never rejects. */
  isOver: () => Promise<boolean>;
}

export class Kernels {
  readonly #interpreter: Interpreter;
  readonly #link: KernelsHost;
  readonly #registry: KernelRegistry;
  readonly #queue = new KeyedQueue();
  /** The version of the sandbox's variables in each kernel, as far as this actor knows. */
  readonly #versions = new WeakMap<Kernel, number>();
  /** Keys of contexts that have lost their kernel, and whose next result must say so. */
  readonly #lost = new Set<string>();
  /** By run id, the function that stops the run's code, whether the code runs or waits. */
  readonly #stops = new Map<string, (why: StopReason) => void>();

  #refusal: Refusal | undefined;
  /** Abandoned calls of the interpreter, which may never settle by themselves. */
  #abandoned = 0;

  constructor(interpreter: Interpreter, link: KernelsHost, sql: SqlStorage) {
    this.#interpreter = interpreter;
    this.#link = link;
    this.#registry = new KernelRegistry(sql);
  }

  /**
   * Runs code after earlier code of its context. If the container ends before the code gets a kernel, the code runs in the next one.
   * @throws {ToolError} if the kernel does not start, or the container is ending
   */
  async run(sink: OutputSink, spec: CodeSpec, start: CodeStart): Promise<CodeOutcome> {
    let kernel: Kernel | undefined;
    const onKernelAssigned = (assigned: Kernel | undefined) => {
      kernel = assigned;
      start.onKernelAssigned(assigned);
    };
    return await this.#link.lifecycle.retryRunInNextContainer(
      () => this.#runOnce(sink, spec, { ...start, onKernelAssigned }),
      () => sink.isEnded || kernel !== undefined,
    );
  }

  async #runOnce(sink: OutputSink, spec: CodeSpec, start: CodeStart): Promise<CodeOutcome> {
    if (this.#isEnding) throw ending(NOT_RUN);
    const { promise: stopped, resolve: stop } = Promise.withResolvers<StopReason>();
    const key = keyOf(spec);
    let whyStopped: StopReason | undefined;
    let hasBegun = false;
    this.#stops.set(sink.id, (why) => {
      // Code that waits runs in the next container.
      if (why === "gone" && !hasBegun) return;
      whyStopped ??= why;
      stop(why);
      this.#queue.withdraw(key, sink.id);
    });
    const withdrawn = () => {
      if (whyStopped === "ending") throw ending(NOT_RUN);
      return KERNEL_NOT_STARTED;
    };
    const begin = async () => {
      hasBegun = true;
      if (whyStopped !== undefined || sink.isEnded) return withdrawn();
      start.markStarted();
      return this.#run(sink, spec, start, stopped);
    };
    try {
      return await this.#queue.run(key, sink.id, begin, withdrawn);
    } finally {
      this.#stops.delete(sink.id);
    }
  }

  /** The runs for which this run waits. The running one comes first. */
  waitingFor(runID: string, spec: Pick<CodeSpec, "language" | "context">): string[] {
    return this.#queue.waitingFor(keyOf(spec), runID);
  }

  /** Cancels a run. A run that waits never starts. */
  cancel(runID: string): void {
    this.#stops.get(runID)?.("cancelled");
  }

  /**
   * Refuses new code because the container is stopping. Returns whether code was running or waiting.
   * @param isOver tells whether the container continues after all, because only an earlier sandboxd ended. Each refusal of code
   * calls it
   */
  refuse(isOver: () => Promise<boolean>): boolean {
    this.#refusal = { until: Date.now() + ENDING_MS, isOver };
    return this.#stops.size > 0;
  }

  /** Call it after `refuse`. Returns when no code is left, or after STOP_MS. */
  async stopAll(): Promise<void> {
    for (const stop of this.#stops.values()) stop("ending");
    const deadline = Date.now() + STOP_MS;
    while (this.#stops.size > 0 && Date.now() < deadline) await pause(50);
  }

  get #isEnding(): boolean {
    const refusal = this.#refusal;
    if (refusal === undefined || Date.now() >= refusal.until) return false;
    // A call that waited here could not be cancelled.
    void this.#endRefusal(refusal);
    return true;
  }

  async #endRefusal(refusal: Refusal): Promise<void> {
    if ((await refusal.isOver()) && this.#refusal === refusal) this.#refusal = undefined;
  }

  onContainerStart(): void {
    this.#forgetContainer();
  }

  onContainerEnd(): void {
    this.#forgetContainer();
    for (const stop of this.#stops.values()) stop("gone");
  }

  #forgetContainer(): void {
    this.#refusal = undefined;
    this.#registry.clear();
    this.#lost.clear();
  }

  /** Stops an earlier actor's code as if its time limit were over. The code's result is lost. Other code of the context waits. */
  async freeKernel(sink: OutputSink, kernel: Kernel): Promise<CellHandover> {
    const { promise: stopped, resolve: stop } = Promise.withResolvers<StopReason>();
    this.#stops.set(sink.id, (why) => why === "gone" && stop(why));
    try {
      return await this.#queue.run(kernel.key, sink.id, () => this.#free(sink, kernel, stopped));
    } finally {
      this.#stops.delete(sink.id);
    }
  }

  async #free(sink: OutputSink, kernel: Kernel, stopped: Promise<StopReason>): Promise<CellHandover> {
    const code = new RunningCode(this.#link, sink, kernel);
    // The kernel responds to the idle cell when the earlier code has ended.
    const result = this.#executeCell(TRAITS[kernel.language].idle, kernel, sink);
    const ended = result.catch(() => undefined);
    let first = await Promise.race([waitAtMost(INTERRUPT_GRACE_MS, ended), code.died, stopped]);
    if (typeof first === "object") {
      await code.finish(true);
      return "idle";
    }
    first ??= await Promise.race([this.#interrupt(code, kernel, result), stopped]);
    if (typeof first === "object") {
      await code.end("TERM");
      return "interrupted";
    }
    this.#abandon(result);
    if (first !== "gone") await this.#end(code, kernel);
    return "killed";
  }

  async #run(
    sink: OutputSink,
    spec: CodeSpec,
    start: CodeStart,
    stopped: Promise<StopReason>,
  ): Promise<CodeOutcome> {
    // If no container runs, the registry's kernels belong to an earlier container, and the next sandboxd would report them
    // dead.
    const known = this.#link.lifecycle.isRunning ? this.#registry.get(keyOf(spec)) : undefined;
    if (known) {
      start.onKernelAssigned(known);
      try {
        return await this.#attempt(known, sink, spec, start, stopped);
      } catch (error) {
        this.#lost.add(known.key);
        // After any other error the code may have run, so it is not run again.
        const didNotRun = error instanceof InterpreterError && error.kind === "context_gone";
        if (!didNotRun) throw this.#discard(sink.id, known, error);
        this.#registry.delete(known);
        start.onKernelAssigned(undefined);
      }
    }
    const created = this.#create(keyOf(spec), spec.language, sink);
    const kernel = await waitUnlessStopped(created, stopped, spec.timeoutMs);
    if (typeof kernel !== "object") {
      created.then((late) => this.#discard(sink.id, late)).catch(() => undefined);
      if (kernel === "ending") throw ending(NOT_RUN);
      if (kernel === "gone") throw containerEnded();
      return { ...KERNEL_NOT_STARTED, end: kernel, state: "lost" };
    }
    start.onKernelAssigned(kernel);
    try {
      const outcome = await this.#attempt(kernel, sink, spec, start, stopped);
      return { ...outcome, isFresh: this.#lost.delete(kernel.key) };
    } catch (error) {
      this.#lost.add(kernel.key);
      throw this.#discard(sink.id, kernel, error);
    }
  }

  #executeCell(
    code: string,
    { contextID }: Pick<Kernel, "contextID">,
    sink: OutputSink,
  ): Promise<CellResponse> {
    const response = this.#prepareRun(sink).then(() => this.#interpreter.run(code, contextID));
    return checkResult(response, isCellResponse);
  }

  async #prepareRun(sink: OutputSink): Promise<void> {
    await this.#link.lifecycle.waitUntilReadyForRun(() => sink.isEnded);
    if (sink.isEnded) throw containerGone();
    if (this.#isEnding) throw ending(NOT_RUN);
  }

  async #create(key: string, language: Language, sink: OutputSink): Promise<Kernel> {
    let contextID;
    try {
      const made = this.#prepareRun(sink).then(() => this.#interpreter.createContext(language));
      const created = checkResult(made, isContext);
      contextID = (await withTimeout(CREATE_MS, created)).id;
    } catch (error) {
      throw creationError(error, language);
    }
    try {
      const process = await this.#load({ contextID, language }, sink);
      const kernel = { key, contextID, language, ...process };
      this.#registry.put(kernel);
      return kernel;
    } catch (error) {
      this.#delete(contextID);
      throw error;
    }
  }

  async #load(context: Pick<Kernel, "contextID" | "language">, sink: OutputSink): Promise<KernelProcess> {
    const { language } = context;
    const { error, logs } = await withTimeout(
      CREATE_MS,
      this.#executeCell(loadCell(language), context, sink),
    );
    const process = parseHello(logs.stdout.join(""));
    if (process) return process;
    const detail = error
      ? cutText(`${error.name}: ${error.message}`, LOAD_CHARS)
      : cutText(logs.stderr.join(""), LOAD_CHARS, "start");
    if (saysExhausted(detail)) throw exhausted();
    if (/No space left|quota/i.test(detail)) throw kernelWithoutSpace(language);
    // A working executor prints something for every cell.
    if (detail === "" || TRAITS[language].missingPrelude.test(detail))
      throw damaged(DAMAGED.kernel(language, cutText(detail, DETAIL_CHARS, "start")));
    throw new Error(`the prelude of the ${language} kernel did not load: ${detail}`);
  }

  async #attempt(
    kernel: Kernel,
    sink: OutputSink,
    spec: CodeSpec,
    start: CodeStart,
    stopped: Promise<StopReason>,
  ): Promise<CodeOutcome> {
    const code = new RunningCode(this.#link, sink, kernel);
    const variables = this.#link.variables.current;
    const areVariablesNew = variables !== undefined && this.#versions.get(kernel) !== variables.version;
    const cell = runCell(spec.language, sink.id, {
      ...spec,
      variables: areVariablesNew ? variables : undefined,
    });
    const result = this.#executeCell(cell, kernel, sink);
    try {
      const first = await waitUnlessStopped(Promise.race([result, code.died]), stopped, spec.timeoutMs);
      if (typeof first === "object") {
        if (areVariablesNew) this.#versions.set(kernel, variables.version);
        const outcome = codeOutcomeOf(first, sink.id);
        start.onResponse(outcome);
        await code.finish(outcome.hasFiles, outcome.serves);
        return { ...outcome, hasFiles: outcome.hasFiles || code.isFollowed };
      }
      if (first === "timeout" || first === "cancelled" || first === "ending") {
        const interrupted = await this.#interrupt(code, kernel, result);
        if (interrupted) {
          await code.end("TERM");
          if (first === "ending") throw ending(STOPPED);
          return { ...codeOutcomeOf(interrupted, sink.id), hasFiles: true, end: first };
        }
      }
      this.#abandon(result);
      // A call to the interpreter would start a new container.
      if (first === "gone") return outcomeWithoutResult("died", "lost");
      await this.#end(code, kernel, first === "died");
      if (first === "ending") throw ending(STOPPED);
      return { ...outcomeWithoutResult(first, "lost"), cause: code.cause };
    } finally {
      void code.finish(false);
    }
  }

  async #interrupt(
    code: RunningCode,
    { language }: Kernel,
    result: Promise<CellResponse>,
  ): Promise<CellResponse | undefined> {
    if (!TRAITS[language].isInterruptible) return undefined;
    const ended = result.catch(() => undefined);
    // Twice: the first interrupt may arrive just before the code starts, or the code may catch it.
    for (let time = 0; time < 2; time++) {
      code.interrupt();
      const printed = await waitAtMost(INTERRUPT_GRACE_MS, ended);
      if (printed) return printed;
    }
    return undefined;
  }

  /** Ends a kernel with all processes of its code. If the kernel died by itself, those processes continue. */
  async #end(code: RunningCode, kernel: Kernel, isDead = false): Promise<void> {
    this.#registry.delete(kernel);
    if (!isDead) await code.end("KILL");
    this.#delete(kernel.contextID);
  }

  #abandon(result: Promise<unknown>): void {
    this.#abandoned += 1;
    const settled = () => {
      this.#abandoned -= 1;
    };
    result.then(settled, settled);
  }

  /** Settles abandoned calls, but only while no other call is open: settling may break every call to the interpreter. */
  onRelease(isUnused: () => boolean): void {
    const isDue = () => this.#abandoned > 0 && isUnused();
    if (!isDue()) return;
    // Delayed, because the call that ends the kernel uses the same connection.
    setTimeout(() => isDue() && this.#interpreter.settleAbandoned(), HANG_UP_MS);
  }

  /** Ends a kernel that may run abandoned code, unless the container is gone. @returns the given error */
  #discard(runID: string, kernel: Kernel, error?: unknown): unknown {
    const { pid, started } = kernel;
    this.#registry.delete(kernel);
    const calls: RunCall[] = [
      { type: "code", id: runID, pid, started, stdout: 0, stderr: 0 },
      { type: "kill", id: runID, signal: "KILL" },
    ];
    this.#link.connection.send(...calls).catch(() => undefined);
    return error;
  }

  #delete(contextID: string): void {
    // A call to the interpreter would start a new container.
    if (!this.#link.lifecycle.isRunning) return;
    this.#interpreter.deleteContext(contextID).catch(() => undefined);
  }
}

function isContext(result: unknown): boolean {
  return isRecord(result) && typeof result.id === "string" && result.id.length <= MAX_CONTEXT_ID_CHARS;
}

/** The promise's value, or the reason why the wait ended. */
async function waitUnlessStopped<T>(
  promise: Promise<T>,
  stopped: Promise<StopReason>,
  timeoutMs: number,
): Promise<T | StopReason> {
  return (await waitAtMost(timeoutMs, Promise.race([promise, stopped]))) ?? "timeout";
}

function creationError(error: unknown, language: Language): unknown {
  if (!(error instanceof InterpreterError)) return error;
  if (error.kind === "no_language") return noInterpreter(language);
  return kernelNotStarted(language, cutText(error.message, DETAIL_CHARS, "start"));
}

function keyOf({ language, context }: Pick<CodeSpec, "language" | "context">): string {
  return `${language}/${context}`;
}

/**
 * Checks a result of the SDK's control server in the sandbox. User code can replace that server. The SDK throws a TypeError for
 * unreadable results.
 */
async function checkResult<T>(call: Promise<T>, isValid: (result: unknown) => boolean): Promise<T> {
  let result: T;
  try {
    result = await call;
  } catch (error) {
    throw error instanceof TypeError ? malformedResponse(error) : error;
  }
  if (!isValid(result)) throw malformedResponse();
  return result;
}

function malformedResponse(cause?: unknown): Error {
  const error = damaged(DAMAGED.controlServer);
  error.cause = cause;
  return error;
}
