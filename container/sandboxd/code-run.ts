/**
 * Follows code that runs in one of the SDK's kernels: the output files, and the kernel's process. Only the actor knows when the
 * code has ended, and calls `finish` then.
 */
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { attempt } from "./file-error.ts";
import { FollowedRun } from "./followed-run.ts";
import { takeKernelEnd } from "./kernel-ends.ts";
import { PORT_SCAN_INTERVAL_MS, expectPortsOf } from "./listening.ts";
import { KERNEL_OUTPUT } from "./directories.ts";
import { familyOf, isSame, findMarked, send } from "./run-processes.ts";
import { type Event, type KernelProcess, STREAMS, type Signal, type Stream } from "./protocol.ts";

/** The interval for polling files and the process, in milliseconds. Output should reach the reader within 50 ms. */
const POLL_MS = 50;

export class CodeRun extends FollowedRun {
  readonly #kernel: KernelProcess;
  readonly #timer: NodeJS.Timeout;
  #isFinished = false;
  /** What to kill: only the code's processes, or also the kernel. */
  #killing: "processes" | "kernel" | undefined;
  #isKernelGone = false;
  /** How the kernel died, if that is known. */
  #cause: string | undefined;
  #portsAt = performance.now() + PORT_SCAN_INTERVAL_MS;

  constructor(id: string, kernel: KernelProcess) {
    super(id, (name) => pathOf(id, name));
    const { pid, started } = kernel;
    this.#kernel = { pid, started };
    this.#timer = setInterval(() => this.#poll(), POLL_MS);
  }

  protected override end(): Event | undefined {
    const isOver = STREAMS.every((name) => this.streams[name].end !== undefined);
    const isKernelGone = this.#isKernelGone;
    return isOver ? { type: "settled", id: this.id, isKernelGone, cause: this.#cause } : undefined;
  }

  /** Whether the code runs in this kernel. If the kernel has ended, the actor sends the code to a new kernel. */
  isIn({ pid, started }: KernelProcess): boolean {
    return this.#kernel.pid === pid && this.#kernel.started === started;
  }

  finish(): void {
    this.#isFinished = true;
    this.#poll();
  }

  /** INT interrupts the kernel, TERM ends the code's processes, KILL ends the kernel too. */
  kill(signal: Signal): void {
    if (signal === "INT") {
      if (isSame(this.#kernel)) send(this.#kernel.pid, "SIGINT");
      return;
    }
    this.#killing = signal === "KILL" ? "kernel" : (this.#killing ?? "processes");
    this.#poll();
  }

  override close(): void {
    clearInterval(this.#timer);
    super.close();
  }

  #poll(): void {
    if (this.end() !== undefined) return clearInterval(this.#timer);
    const isThere = isSame(this.#kernel);
    if (!isThere) this.#onKernelGone();
    for (const name of STREAMS) this.streams[name].grow();
    if (this.#killing !== undefined && this.#killProcesses(isThere)) return;
    if (isThere && !this.#isFinished) return this.#watchPorts();
    this.checkPorts(0);
    if (this.ports.length === 0 && this.#startedProcesses().length > 0) expectPortsOf(this.id);
    for (const name of STREAMS) this.streams[name].finish();
  }

  /** Adds what the kernel wrote last to the run's stderr, unless the kernel was killed for the run. */
  #onKernelGone(): void {
    if (this.#isKernelGone) return;
    this.#isKernelGone = true;
    const { cause, words } = takeKernelEnd(this.#kernel);
    if (this.#killing === "kernel") return;
    this.#cause = cause;
    // Fails if the disk is full.
    if (words !== "") attempt(() => appendFileSync(pathOf(this.id, "stderr"), words), undefined);
  }

  #watchPorts(): void {
    if (performance.now() < this.#portsAt) return;
    this.#portsAt = performance.now() + PORT_SCAN_INTERVAL_MS;
    this.checkPorts(PORT_SCAN_INTERVAL_MS);
  }

  #startedProcesses(anew = false): number[] {
    return findMarked(this.id, anew).filter((pid) => pid !== this.#kernel.pid);
  }

  /** Returns whether there were any processes to kill. The next poll then searches again, for newly forked processes. */
  #killProcesses(isKernelThere: boolean): boolean {
    const found = this.#startedProcesses(true);
    if (isKernelThere && this.#killing === "kernel") found.push(...familyOf(this.#kernel.pid));
    for (const process of found) send(process, "SIGKILL");
    return found.length > 0;
  }
}

function pathOf(id: string, name: Stream): string {
  return join(KERNEL_OUTPUT, `${id}.${name === "stdout" ? "out" : "err"}`);
}
