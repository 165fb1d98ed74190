/**
 * What is known of a kernel that died. Its parent, the SDK's server, does not tell. So each kernel has a file, in which its prelude
 * records an exit status, and in which V8 and Python's faulthandler write when a signal ends the process. What native code wrote to a
 * Python kernel's descriptor 2 may still be in a pipe. sandboxd keeps that pipe open, because it would end with the kernel.
 */
import { closeSync, constants, fstatSync, openSync, readSync, rmSync, watch } from "node:fs";
import { join } from "node:path";
import { KERNEL_OUTPUT, entriesOf, textOf } from "./directories.ts";
import { attempt } from "./file-error.ts";
import type { KernelProcess } from "./protocol.ts";
import { isSame } from "./run-processes.ts";

export interface KernelEnd {
  /** The exit status or the signal; undefined if nothing is known. */
  cause: string | undefined;
  /** What the kernel wrote last to descriptor 2. */
  words: string;
}

const LAST_CHARS = 8 * 1024;
const PIPE_BYTES = 1024 * 1024;
const EXIT_STATUS = /^exit status -?\d+\n/m;
/** The frames of our prelude and of the executor in a faulthandler's traceback. They follow the user's frames. */
const OWN_FRAMES = /^ {2}File "\/opt\/sandbox-mcp\/.*\n(?: {2}File .*\n)*/gm;
const SIGNALS: [RegExp, string][] = [
  [/^Fatal Python error: Segmentation fault/m, "signal SIGSEGV (segmentation fault)"],
  [/^Fatal Python error: Aborted/m, "signal SIGABRT (abort)"],
  [/^Fatal Python error: Bus error/m, "signal SIGBUS (bus error)"],
  [/^Fatal Python error: Illegal instruction/m, "signal SIGILL (illegal instruction)"],
  [/^Fatal Python error: Floating[ -]point exception/m, "signal SIGFPE (arithmetic error)"],
  [/^FATAL ERROR: .*heap out of memory/m, "signal SIGABRT (V8's heap limit)"],
  [/^-+ Native stack trace -+$/m, "signal SIGABRT (abort)"],
];

/** By the names of their files, the kernels, and the descriptors of their pipes. */
const kernels = new Map<string, { kernel: KernelProcess; pipe: number | undefined }>();

export function watchKernels(): void {
  // Fails if user code has replaced the directory. Then only the files tell how a kernel died.
  attempt(() => {
    watch(KERNEL_OUTPUT, { persistent: false }, (_event, name) => name !== null && onFile(name)).on(
      "error",
      () => {},
    );
    for (const { name } of entriesOf(KERNEL_OUTPUT)) onFile(name);
  }, undefined);
}

function onFile(name: string): void {
  const kernel = kernelOf(name);
  if (kernel === undefined || kernels.has(name) || !isSame(kernel)) return;
  for (const [known, { kernel: earlier }] of kernels) if (!isSame(earlier)) forget(known);
  const pipe = attempt(() => openPipe(kernel), undefined);
  kernels.set(name, { kernel, pipe });
}

function openPipe({ pid }: KernelProcess): number | undefined {
  const file = openSync(`/proc/${pid}/fd/2`, constants.O_RDONLY | constants.O_NONBLOCK);
  if (fstatSync(file).isFIFO()) return file;
  closeSync(file);
  return undefined;
}

/** How a kernel that is gone has ended. Only the first call can tell. */
export function takeKernelEnd(kernel: KernelProcess): KernelEnd {
  const name = nameOf(kernel);
  const recorded = textOf(join(KERNEL_OUTPUT, name)) ?? "";
  const last = readPipe(kernels.get(name)?.pipe);
  forget(name);
  const status = EXIT_STATUS.exec(recorded)?.[0].trim();
  const cause = status ?? SIGNALS.find(([pattern]) => pattern.test(recorded))?.[1];
  const words = last + recorded.replace(EXIT_STATUS, "").replace(OWN_FRAMES, "");
  return { cause, words: words.slice(-LAST_CHARS) };
}

function readPipe(pipe: number | undefined): string {
  if (pipe === undefined) return "";
  const bytes = Buffer.alloc(PIPE_BYTES);
  let size = 0;
  // Fails if the pipe is empty and a child of the kernel still has it.
  attempt(() => {
    for (let count = 1; count > 0; size += count)
      count = readSync(pipe, bytes, size, PIPE_BYTES - size, null);
  }, undefined);
  return bytes.toString("utf8", 0, size);
}

function forget(name: string): void {
  const pipe = kernels.get(name)?.pipe;
  if (pipe !== undefined) closeSync(pipe);
  kernels.delete(name);
  rmSync(join(KERNEL_OUTPUT, name), { recursive: true, force: true });
}

const nameOf = ({ pid, started }: KernelProcess) => `kernel-${pid}-${started}`;

function kernelOf(name: string): KernelProcess | undefined {
  const [, pid, started] = /^kernel-(\d+)-(\d+)$/.exec(name) ?? [];
  return started === undefined ? undefined : { pid: Number(pid), started: Number(started) };
}
