/**
 * Code that runs in one of the SDK's kernels: its output, from the files that the kernel writes once it is long, and the
 * kernel's process. Who gave it to the kernel alone knows when it has ended.
 */
import { join } from "node:path";
import { Followed } from "./followed.ts";
import { KERNEL_OUTPUT } from "./places.ts";
import { type KernelProcess, familyOf, isSame, marked, send } from "./processes.ts";
import { type Event, STREAMS, type Signal } from "./protocol.ts";

/** How often files and process are looked at, milliseconds: what code prints is to be read 50 ms later. */
const LOOK_MS = 20;

export class Code extends Followed {
  readonly #kernel: KernelProcess;
  readonly #timer: NodeJS.Timeout;
  #isFinished = false;
  #isEnding: "what it started" | "its kernel" | undefined;
  #isKernelGone = false;

  constructor(id: string, kernel: KernelProcess) {
    super(id, (name) => join(KERNEL_OUTPUT, `${id}.${name === "stdout" ? "out" : "err"}`));
    const { pid, started } = kernel;
    this.#kernel = { pid, started };
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  protected override end(): Event | undefined {
    const isOver = STREAMS.every((name) => this.streams[name].end !== undefined);
    return isOver ? { type: "settled", id: this.id, isKernelGone: this.#isKernelGone } : undefined;
  }

  /** Whether it runs in this kernel: it is given to another when the first was gone. */
  isIn({ pid, started }: KernelProcess): boolean {
    return this.#kernel.pid === pid && this.#kernel.started === started;
  }

  /** The code has been answered: its output ends with what is in its files. */
  finish(): void {
    this.#isFinished = true;
    this.#look();
  }

  /** Interrupts the kernel (INT), ends what the code has started (TERM), or ends the kernel as well (KILL). */
  kill(signal: Signal): void {
    if (signal === "INT") {
      if (isSame(this.#kernel)) send(this.#kernel.pid, "SIGINT");
      return;
    }
    this.#isEnding = signal === "KILL" ? "its kernel" : (this.#isEnding ?? "what it started");
    this.#look();
  }

  override close(): void {
    clearInterval(this.#timer);
    super.close();
  }

  #look(): void {
    if (this.end() !== undefined) return clearInterval(this.#timer);
    for (const name of STREAMS) this.streams[name].grow();
    const isThere = isSame(this.#kernel);
    if (this.#isEnding !== undefined && this.#endProcesses(isThere)) return;
    if (isThere && !this.#isFinished) return;
    this.#isKernelGone = !isThere;
    for (const name of STREAMS) this.streams[name].finish();
  }

  /** Answers whether there was one to end. The next look finds those that were just being made. */
  #endProcesses(isKernelThere: boolean): boolean {
    const { pid } = this.#kernel;
    const found = marked(this.id, true).filter((one) => one !== pid);
    if (isKernelThere && this.#isEnding === "its kernel") found.push(...familyOf(pid));
    for (const one of found) send(one, "SIGKILL");
    return found.length > 0;
  }
}
