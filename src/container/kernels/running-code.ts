/**
 * Code in a kernel, as sandboxd sees it: its output, its processes, and whether its kernel lives. The SDK reports none of this,
 * and a call never settles if its kernel died.
 */
import type { Signal } from "../../../container/sandboxd/protocol.ts";
import type { RunCall } from "../connection.ts";
import { type ContainerLink, type OutputSink, RunFollower } from "../follower.ts";
import type { KernelProcess, Listening } from "./kernel-protocol.ts";

/** sandboxd begins to follow code after this time, in milliseconds. Following doubles the processor time of short code. */
const FOLLOW_AFTER_MS = 500;
/** If a caller waits for the code's output, sandboxd begins after this time, in milliseconds. */
const FOLLOW_DELAY_MS = 50;

export class RunningCode extends RunFollower {
  readonly #kernel: KernelProcess;
  readonly #died = Promise.withResolvers<"died">();
  /** Calls about the code, except the first call, which describes the code. Each new connection repeats all of them. */
  #orders: RunCall[] = [];
  #isRequested = false;
  #isFinished = false;
  #timer: ReturnType<typeof setInterval> | null;
  #following: Promise<void> | undefined;

  constructor(link: ContainerLink, sink: OutputSink, kernel: KernelProcess) {
    super(link, sink);
    this.#kernel = kernel;
    const start = Date.now();
    this.#timer = setInterval(() => {
      if (sink.isWatched || Date.now() - start >= FOLLOW_AFTER_MS) void this.#follow();
    }, FOLLOW_DELAY_MS);
  }

  /** Resolves when the kernel has died and all output was received. */
  get died(): Promise<"died"> {
    return this.#died.promise;
  }

  interrupt(): void {
    this.#order({ type: "kill", id: this.sink.id, signal: "INT" });
    void this.#follow();
  }

  /** Ends the code's processes (TERM), or the kernel too (KILL). Settles when they have ended and the actor has all output. */
  async end(signal: Exclude<Signal, "INT">): Promise<void> {
    this.#order({ type: "kill", id: this.sink.id, signal });
    await this.finish(true);
  }

  /**
   * Call it when the kernel has responded. @param isLong whether to wait for output in files @param serves `itself`: waits for
   * the kernel's ports. `child`: a later run reports the ports of child processes
   */
  async finish(isLong: boolean, serves?: Listening): Promise<void> {
    clearInterval(this.#timer);
    const isAwaited = isLong || serves === "itself";
    if (this.#following === undefined && !isAwaited) {
      if (serves === "child")
        this.link.connection.send({ type: "expect", id: this.sink.id }).catch(() => undefined);
      return;
    }
    if (!this.#isFinished) this.#order({ type: "finish", id: this.sink.id });
    this.#isFinished = true;
    if (isAwaited) await this.#follow();
  }

  get isFollowed(): boolean {
    return this.#following !== undefined;
  }

  #order(order: RunCall): void {
    this.#orders.push(order);
    if (this.#isRequested) this.link.connection.sendIfOpen(order);
  }

  #follow(): Promise<void> {
    clearInterval(this.#timer);
    this.#following ??= this.#watchKernel();
    return this.#following;
  }

  async #watchKernel(): Promise<void> {
    // Without a connection to sandboxd, only the kernel's own result is used.
    const outcome = await this.outcome().catch(() => undefined);
    if (outcome?.type === "settled" && outcome.isKernelGone) this.#died.resolve("died");
  }

  protected override async requestRun(): Promise<void> {
    const { sink } = this;
    const { pid, started } = this.#kernel;
    const [stdout, stderr] = [sink.position("stdout"), sink.position("stderr")];
    const call: RunCall = { type: "code", id: sink.id, pid, started, stdout, stderr };
    const orders = [...this.#orders];
    await this.link.connection.send(call, ...orders);
    this.#isRequested = true;
    for (const order of this.#orders.slice(orders.length)) this.link.connection.sendIfOpen(order);
  }
}
