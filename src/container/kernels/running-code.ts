/**
 * Code in a kernel, as sandboxd sees it: its output, its processes, and whether its kernel lives. The SDK reports none of this,
 * and a call never settles if its kernel died.
 */
import type { KernelProcess, Signal } from "../../../container/sandboxd/protocol.ts";
import type { RunCall } from "../connection.ts";
import { type ContainerLink, type OutputSink, RunFollower } from "../follower.ts";
import type { Listening } from "./kernel-protocol.ts";

/** sandboxd begins to follow code after this time, in milliseconds. Following short code would double its processor time. */
const FOLLOW_AFTER_MS = 500;
/** If a caller waits for the code's output, sandboxd begins to follow the code after this time, in milliseconds. */
const FOLLOW_WATCHED_AFTER_MS = 50;

export class RunningCode extends RunFollower {
  readonly #kernel: KernelProcess;
  readonly #died = Promise.withResolvers<"died">();
  /** Calls about the code, except the first call, which describes the code. Each new connection repeats all of them. */
  #calls: RunCall[] = [];
  #isRequested = false;
  /** How the kernel died, if that is known. */
  cause: string | undefined;
  #isFinished = false;
  #timer: ReturnType<typeof setInterval> | null;
  #following: Promise<void> | undefined;

  constructor(link: ContainerLink, sink: OutputSink, kernel: KernelProcess) {
    super(link, sink);
    this.#kernel = kernel;
    const start = Date.now();
    this.#timer = setInterval(() => {
      if (sink.isWatched || Date.now() - start >= FOLLOW_AFTER_MS) void this.#follow();
    }, FOLLOW_WATCHED_AFTER_MS);
  }

  /** Resolves when the kernel has died and all output was received. */
  get died(): Promise<"died"> {
    return this.#died.promise;
  }

  interrupt(): void {
    this.#call({ type: "kill", id: this.sink.id, signal: "INT" });
    void this.#follow();
  }

  /** Ends the code's processes (TERM), or the kernel too (KILL). Settles when they have ended and the actor has all output. */
  async end(signal: Exclude<Signal, "INT">): Promise<void> {
    this.#call({ type: "kill", id: this.sink.id, signal });
    await this.finish(true);
  }

  /**
   * Call it when the kernel has responded. @param isLong whether to wait for output in files
   * @param serves `itself`: waits for the kernel's ports. `child`: a later run reports the ports of child processes
   */
  async finish(isLong: boolean, serves?: Listening): Promise<void> {
    clearInterval(this.#timer);
    const isAwaited = isLong || serves === "itself";
    if (this.#following === undefined && !isAwaited) {
      if (serves === "child")
        this.link.connection.send({ type: "expect", id: this.sink.id }).catch(() => undefined);
      return;
    }
    if (!this.#isFinished) this.#call({ type: "finish", id: this.sink.id });
    this.#isFinished = true;
    if (isAwaited) await this.#follow();
  }

  get isFollowed(): boolean {
    return this.#following !== undefined;
  }

  #call(call: RunCall): void {
    this.#calls.push(call);
    if (this.#isRequested) this.link.connection.sendIfOpen(call);
  }

  #follow(): Promise<void> {
    clearInterval(this.#timer);
    this.#following ??= this.#watchKernel();
    return this.#following;
  }

  async #watchKernel(): Promise<void> {
    // Without a connection to sandboxd, only the kernel's own result is used.
    const outcome = await this.waitForOutcome().catch(() => undefined);
    if (outcome?.type !== "settled" || !outcome.isKernelGone) return;
    this.cause = outcome.cause;
    this.#died.resolve("died");
  }

  protected override async requestRun(): Promise<void> {
    const { sink } = this;
    const { pid, started } = this.#kernel;
    const [stdout, stderr] = [sink.position("stdout"), sink.position("stderr")];
    const description: RunCall = { type: "code", id: sink.id, pid, started, stdout, stderr };
    const calls = [...this.#calls];
    await this.link.connection.send(description, ...calls);
    this.#isRequested = true;
    for (const call of this.#calls.slice(calls.length)) this.link.connection.sendIfOpen(call);
  }
}
