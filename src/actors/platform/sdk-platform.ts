/**
 * Adapts the SDK's class. The SDK calls `onStart` on every reconnect. It calls `onStop` late, sometimes while the next container
 * starts. It starts a container for any call. This file hides these three behaviours from the rest of the server.
 */
import { OperationInterruptedError, type Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import { MAX_UNREAD_CHARS, RESPONSE_MS } from "../../container/connection.ts";
import type { Interpreter } from "../../container/kernels/interpreter.ts";
import type { CellResponse } from "../../container/kernels/kernel-protocol.ts";
import { withTimeout } from "../../shared/errors.ts";
import type { Language } from "../../shared/languages.ts";
import { pause, waitAtMost } from "../../shared/timers.ts";
import { MAY_NOT_START } from "../texts.ts";
import type { ContainerPlatform, Idle } from "./platform.ts";
import {
  hasEndedWhileStarting,
  translateError,
  translateCreationError,
  translateRunError,
} from "./sdk-errors.ts";

type SDKSandbox = Pick<
  BaseSandbox,
  "client" | "destroy" | "stop" | "getState" | "renewActivityTimeout" | "envVars"
>;

const STOP_MS = 5000;

/** The interval for polling the SDK's record of the container's state, which changes late. */
const POLL_MS = 2;

/** A container that is still starting may ignore a request to end, so the request is repeated at this interval. */
const STOP_RETRY_MS = 100;

export class SDKPlatform implements ContainerPlatform {
  readonly #sandbox: SDKSandbox;
  readonly #container: Container | undefined;
  /** Allows the SDK to start one container. Without it, SDK calls start none. */
  #permit: object | undefined;
  #endCount = 0;
  readonly #attempts = new Set<Promise<void>>();
  /** Settles when the SDK's stop hook has run for the latest container; undefined afterwards. */
  #hook: PromiseWithResolvers<void> | undefined;
  #stopping: Promise<void> | undefined;
  /** The call of the SDK's `stop` for the previous container; undefined once the next one has started. */
  #previousStop: Promise<void> | undefined;
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
    const endCount = this.#endCount;
    await this.#cleanUpPrevious();
    if (endCount !== this.#endCount) throw startRefused();
    const permit = {};
    this.#permit = permit;
    this.#sandbox.envVars = { ...this.#sandbox.envVars, ...env };
    try {
      await this.#ping();
    } catch (error) {
      throw translateError(error);
    } finally {
      if (this.#permit === permit) this.#permit = undefined;
    }
  }

  /** Starts the container, as any SDK call does. Throws the SDK's reason if the start failed. */
  async #ping(): Promise<void> {
    for (let isRepeated = false; !this.isRunning; isRepeated = true) {
      try {
        await this.#sandbox.client.utils.ping();
      } catch (error) {
        // The SDK shares one attempt among calls. This call may have joined an attempt to reach the previous container, and that
        // container has ended since.
        if (isRepeated || this.isRunning || !hasEndedWhileStarting(error)) throw error;
      }
    }
  }

  /**
   * Cleans up after the previous container. Otherwise the SDK would close its connection later, at an alarm or during the next
   * start, and break the call that waits for the next container. `stop` closes the connection now, and does nothing else if no
   * container runs. It is called once, because a second call would stop a starting container.
   */
  async #cleanUpPrevious(): Promise<void> {
    if (this.isRunning) return;
    this.#previousStop ??= this.#sandbox.stop().catch(() => undefined);
    await waitAtMost(STOP_MS, this.#previousStop);
    await this.#stopping;
  }

  async end(): Promise<void> {
    this.#endCount++;
    // Without a permit, the SDK gives up its retries of a failed start.
    this.#permit = undefined;
    await this.#sandbox.destroy();
    while (this.#attempts.size > 0) {
      await Promise.race([...this.#attempts, pause(STOP_RETRY_MS)]);
      await this.#sandbox.destroy();
    }
    await this.#waitForStopHook();
  }

  /**
   * Runs the SDK's stop hook for a destroyed container and waits for it. The SDK's own alarm would run the hook up to a
   * second later and close the next call's connection. The SDK's record must be up to date first, or the hook would run
   * twice.
   */
  async #waitForStopHook(): Promise<void> {
    const deadline = Date.now() + STOP_MS;
    while (this.#hook && Date.now() < deadline && (await this.#isRecordedAsRunning())) await pause(POLL_MS);
    if (!this.isRunning)
      await waitAtMost(
        STOP_MS,
        this.#sandbox.stop().catch(() => undefined),
      );
    if (this.#hook) await waitAtMost(STOP_MS, this.#hook.promise);
    // A container that did not start has no hook, but the SDK still has to clean up.
    this.#previousStop = undefined;
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

  noteUse(): void {
    this.#sandbox.renewActivityTimeout();
  }

  /** Wraps the SDK's attempt (`work`) to start or reach the container. */
  async attempt(work: () => Promise<void>): Promise<void> {
    if (!this.#permit && !this.isRunning) throw startRefused();
    const attempt = work();
    const settled = attempt.catch(() => undefined);
    this.#attempts.add(settled);
    try {
      await attempt;
    } catch (error) {
      // The container disappeared; this is not a failed start.
      throw !this.#permit && !this.isRunning ? startRefused() : error;
    } finally {
      this.#attempts.delete(settled);
    }
  }

  noteStart(): void {
    if (this.#hook) return;
    this.#hook = Promise.withResolvers();
    this.#previousStop = undefined;
  }

  /** Handles the SDK's `onStop`. `work` is the SDK's part of it. */
  handleStop(work: () => Promise<void>): Promise<void> {
    this.#stopping = this.#stop(work);
    return this.#stopping;
  }

  async #stop(work: () => Promise<void>): Promise<void> {
    await work();
    const hook = this.#hook;
    // If a container runs, it is already the next one, and `start` has cleaned up after the previous one.
    if (!this.isRunning) {
      this.#hook = undefined;
      this.#ended();
    }
    hook?.resolve();
  }
}

/** The most characters that a cell may print: more than the longest document of a run, which has 5 million. */
const MAX_PRINTED = 6_000_000;

/**
 * The SDK's interpreters, without the SDK's own methods: these keep each context in memory until the sandbox confirms the deletion,
 * and everything that a cell prints. `runCodeStream` never settles if its kernel dies.
 */
export class SDKInterpreter implements Interpreter {
  readonly #sandbox: SDKSandbox;
  /** The characters of code that the control server has not confirmed: see MAX_UNREAD_CHARS. */
  #unreadChars = 0;
  #confirming: Promise<void> | undefined;

  constructor(sandbox: SDKSandbox) {
    this.#sandbox = sandbox;
  }

  async createContext(language: Language): Promise<{ id: string }> {
    try {
      return await this.#sandbox.client.interpreter.createCodeContext({ language });
    } catch (error) {
      throw translateCreationError(error);
    }
  }

  /** Not `async`: otherwise a call that never settles would keep its code in memory. */
  run(code: string, id: string): Promise<CellResponse> {
    if (this.#unreadChars > MAX_UNREAD_CHARS) {
      this.#confirming ??= this.#confirmRead().finally(() => (this.#confirming = undefined));
      return this.#confirming.then(() => this.run(code, id));
    }
    this.#unreadChars += code.length;
    const response: CellResponse = { logs: { stdout: [], stderr: [] } };
    let printed = 0;
    const keepIn =
      (texts: string[]) =>
      ({ text }: { text: string }) => {
        printed += typeof text === "string" ? text.length : Infinity;
        if (printed <= MAX_PRINTED) texts.push(text);
        else texts.length = 0;
      };
    const running = this.#sandbox.client.interpreter.runCodeStream(id, code, undefined, {
      onStdout: keepIn(response.logs.stdout),
      onStderr: keepIn(response.logs.stderr),
      onResult: () => undefined,
      onError: (error) => {
        response.error = error;
      },
    });
    return running.then(
      () => response,
      (error: unknown) => {
        throw translateRunError(error);
      },
    );
  }

  /** Waits until the control server has read all code. @throws {ToolError} `no_answer`, and the connection is closed */
  async #confirmRead(): Promise<void> {
    const chars = this.#unreadChars;
    try {
      // A program in the control server's place could respond before it reads. The engine refuses such responses.
      await withTimeout(RESPONSE_MS, this.#sandbox.client.utils.ping());
    } catch (error) {
      this.settleAbandoned();
      throw translateError(error);
    }
    this.#unreadChars -= chars;
  }

  /** Takes as long as the start of a kernel, because the SDK starts a spare one before it confirms the deletion. */
  async deleteContext(id: string): Promise<void> {
    await this.#sandbox.client.interpreter.deleteCodeContext(id);
  }

  /** Closes the SDK's connection. Otherwise abandoned calls would keep it open, and the actor awake. */
  settleAbandoned(): void {
    this.#sandbox.client.disconnect();
  }
}

/** The error that refuses a start. It has a class of the SDK, because it passes through the SDK. */
function startRefused(): OperationInterruptedError {
  return new OperationInterruptedError({
    code: "OPERATION_INTERRUPTED",
    message: MAY_NOT_START,
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
