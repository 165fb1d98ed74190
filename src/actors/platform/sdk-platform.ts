/**
 * The container through the SDK's class. The SDK calls `onStart` whenever it connects again, calls `onStop` late, sometimes while
 * the next container is being started, and starts a container for any of its calls. None of that shows outside this file.
 */
import { OperationInterruptedError, type Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import type { Interpreter } from "../../container/kernels/interpreter.ts";
import type { Printed } from "../../container/kernels/kernel-protocol.ts";
import type { Language } from "../../shared/languages.ts";
import { pause, within } from "../../shared/within.ts";
import type { ContainerPlatform, Idle } from "./platform.ts";
import { endedWhileStarting, translated, translatedCreation, translatedRun } from "./sdk-errors.ts";

/** The part of the SDK's class that is used here. */
type SDKSandbox = Pick<
  BaseSandbox,
  | "client"
  | "destroy"
  | "stop"
  | "getState"
  | "schedule"
  | "renewActivityTimeout"
  | "createCodeContext"
  | "runCode"
  | "deleteCodeContext"
> & { envVars?: Record<string, string> };

/** How long the SDK's stop hook is waited for, milliseconds. */
const STOP_MS = 5000;

/** How often the SDK's record is looked at, milliseconds: it is behind the container itself for a moment. */
const POLL_MS = 2;

/** How often a container that still comes up while it is ended is ended again, milliseconds. */
const STOP_RETRY_MS = 100;

export class SDKPlatform implements ContainerPlatform {
  readonly #sandbox: SDKSandbox;
  readonly #container: Container | undefined;
  /** Given to the SDK for one start: without it, the SDK's calls start no container. */
  #permit: object | undefined;
  /** The SDK's own attempts that are under way. */
  readonly #attempts = new Set<Promise<void>>();
  /** Settles when the SDK's stop hook has run for the container that has started last; undefined when it has. */
  #hook: PromiseWithResolvers<void> | undefined;
  #stopping: Promise<void> | undefined;
  /** Set from the SDK's `stop` for the previous container until the next one has started. */
  #settled: Promise<void> | undefined;
  #ended: () => void = () => undefined;
  idle: Idle | undefined;

  constructor(sandbox: SDKSandbox, container: Container | undefined) {
    this.#sandbox = sandbox;
    this.#container = container;
    if (this.isRunning) this.#hook = Promise.withResolvers();
  }

  get isRunning(): boolean {
    return this.#container?.running === true;
  }

  async start(env: Readonly<Record<string, string>>): Promise<void> {
    await this.#settle();
    const permit = {};
    this.#permit = permit;
    this.#sandbox.envVars = { ...this.#sandbox.envVars, ...env };
    try {
      await this.#ping();
    } catch (error) {
      throw translated(error);
    } finally {
      if (this.#permit === permit) this.#permit = undefined;
    }
  }

  /** Any call of the SDK starts the container, and its error says why it did not start. */
  async #ping(): Promise<void> {
    for (let isRepeated = false; !this.isRunning; isRepeated = true) {
      try {
        await this.#sandbox.client.utils.ping();
      } catch (error) {
        // The SDK has one attempt for all calls: this one may have got that of an earlier call, which was about to connect to
        // the container before when that ended.
        if (isRepeated || this.isRunning || !endedWhileStarting(error)) throw error;
      }
    }
  }

  /**
   * Cleans up after the container before: the SDK closes its connection when an alarm comes, or else while it starts the next
   * container, which breaks the call that waits for that. `stop` has it close the connection now, and does nothing else where no
   * container runs. Only once, because a container that is being started would be stopped by it.
   */
  async #settle(): Promise<void> {
    if (this.isRunning) return;
    this.#settled ??= this.#sandbox.stop().catch(() => undefined);
    await within(STOP_MS, this.#settled);
    await this.#stopping;
  }

  async end(): Promise<void> {
    // The SDK repeats its attempts.
    this.#permit = undefined;
    await this.#sandbox.destroy();
    while (this.#attempts.size > 0) {
      await Promise.race([...this.#attempts, pause(STOP_RETRY_MS)]);
      await this.#sandbox.destroy();
    }
    await this.#noticed();
  }

  /**
   * Runs the SDK's stop hook for a container that was just destroyed, and resolves when it has run: before that it would
   * close the connection of the next call. The SDK's own alarm runs it up to a second later. Called before the SDK's
   * record is up to date, `stop` would run the hook for the same end twice.
   */
  async #noticed(): Promise<void> {
    const deadline = Date.now() + STOP_MS;
    while (this.#hook && Date.now() < deadline && (await this.#isRecordedAsRunning())) await pause(POLL_MS);
    if (!this.isRunning)
      await within(
        STOP_MS,
        this.#sandbox.stop().catch(() => undefined),
      );
    if (this.#hook) await within(STOP_MS, this.#hook.promise);
    // A container that did not come up has no hook here, and the SDK still has to clean up after it.
    this.#settled = undefined;
  }

  async #isRecordedAsRunning(): Promise<boolean> {
    return ["running", "healthy"].includes((await this.#sandbox.getState()).status);
  }

  async fetch(port: number, request: Request): Promise<Response> {
    if (!this.#container) throw new Error("this actor has no container");
    return await this.#container.getTcpPort(port).fetch(request);
  }

  onEnd(listener: () => void): void {
    this.#ended = listener;
  }

  onIdle(idle: Idle): void {
    this.idle = idle;
  }

  used(): void {
    this.#sandbox.renewActivityTimeout();
  }

  async scheduleSweep(at: Date): Promise<void> {
    await this.#sandbox.schedule(at, "sweepRuns");
  }

  /** For the SDK's attempt to start or to reach the container, which is `work`. */
  async attempt(work: () => Promise<void>): Promise<void> {
    if (!this.#permit && !this.isRunning) throw refused();
    const attempt = work();
    const settled = attempt.catch(() => undefined);
    this.#attempts.add(settled);
    try {
      await attempt;
    } catch (error) {
      // Not a start that has failed, but a container that went away.
      throw !this.#permit && !this.isRunning ? refused() : error;
    } finally {
      this.#attempts.delete(settled);
    }
  }

  /** For the SDK's `onStart`. */
  started(): void {
    if (this.#hook) return;
    this.#hook = Promise.withResolvers();
    this.#settled = undefined;
  }

  /** For the SDK's `onStop`, of which `work` is its own part. */
  stopped(work: () => Promise<void>): Promise<void> {
    this.#stopping = this.#stop(work);
    return this.#stopping;
  }

  async #stop(work: () => Promise<void>): Promise<void> {
    await work();
    const hook = this.#hook;
    // When a container runs, it is the next one, which `start` has cleaned up for.
    if (!this.isRunning) {
      this.#hook = undefined;
      this.#ended();
    }
    hook?.resolve();
  }
}

/** The SDK's interpreters. Its `runCode` ignores its timeout, and never settles when its kernel dies. */
export class SDKInterpreter implements Interpreter {
  readonly #sandbox: SDKSandbox;

  constructor(sandbox: SDKSandbox) {
    this.#sandbox = sandbox;
  }

  async createContext(language: Language): Promise<{ id: string }> {
    try {
      return await this.#sandbox.createCodeContext({ language });
    } catch (error) {
      throw translatedCreation(error);
    }
  }

  async run(code: string, { id, language }: { id: string; language: Language }): Promise<Printed> {
    const now = new Date();
    const context = { id, language, cwd: "/workspace", createdAt: now, lastUsed: now };
    try {
      return await this.#sandbox.runCode(code, { context });
    } catch (error) {
      throw translatedRun(error);
    }
  }

  async deleteContext(id: string): Promise<void> {
    await this.#sandbox.deleteCodeContext(id);
  }

  disconnect(): void {
    this.#sandbox.client.disconnect();
  }
}

/** An error as the SDK makes it, because it passes through the SDK. */
function refused(): OperationInterruptedError {
  return new OperationInterruptedError({
    code: "OPERATION_INTERRUPTED",
    message: "The sandbox has no container, and this operation may not start one.",
    context: {
      reason: "sandbox_lifetime_changed",
      operation: "sandbox.start",
      phase: "startup",
      admitted: false,
      retryable: false,
    },
    httpStatus: 409,
    timestamp: new Date().toISOString(),
  });
}
