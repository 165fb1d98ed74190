/**
 * One stream of a run's output, in a file until the actor has stored it. The output of a short command waits in its pipe, and
 * sandboxd moves it to the file when the command ends. That of a longer one is copied to the file by `tee`, a process of its
 * own, so that nothing is lost when sandboxd is killed. `tee` also writes every byte into a second pipe, the brake: while
 * sandboxd reads nothing from the brake, `tee` stops, the first pipe fills, and the program that prints waits in its write.
 *
 * Nothing more is sent to the taker while WINDOW_BYTES wait that it has not reported as stored. Offsets count from the first
 * byte of the output.
 */
import { type ChildProcess, type StdioOptions, execFile, spawn } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { Socket } from "node:net";
import { basename, dirname } from "node:path";
import { COPIER, makeLinks, textOf } from "./directories.ts";
import { NO_ENV } from "./run-processes.ts";
import { PIECE_BYTES, type Stream, SHOWN_END_BYTES, WINDOW_BYTES } from "./protocol.ts";
import { type Slot, pausePipeOf, openToRead, pipeOf } from "./slot.ts";

/** Stored bytes are given back to the disk so many at a time, because that takes a process. */
const FREE_BYTES = 16 * 1024 * 1024;

/** How much of a pipe is read at most once its command has ended: more than a pipe holds. What comes then is of background processes. */
const MAX_DRAINED_BYTES = 16 * 1024 * 1024;

/** A disk with less room than this counts as full, bytes: a copier writes so many at once. */
const NO_SPACE_BYTES = 64 * 1024;

const { O_RDONLY, O_RDWR, O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK, O_NOFOLLOW } = constants;

/** Takes output at an offset. Bytes are left out only after `full`. */
export type Taker = (offset: number, bytes: Buffer) => void;

const piece = Buffer.allocUnsafe(PIECE_BYTES);

/** At most PIECE_BYTES. The buffer is used again by the next call. */
function readAt(file: number, from: number, to: number): Buffer {
  return piece.subarray(0, readSync(file, piece, 0, Math.max(0, Math.min(piece.length, to - from)), from));
}

export class OutputStream {
  readonly name: Stream;
  readonly #path: string;
  #file: number | undefined;
  /** How far the file has been searched for the mark: the bytes before it are the run's. */
  #size = 0;
  /** Where the output ends, once that is known. */
  #end: number | undefined;
  /** How much the taker was given, and how much of that it has reported as stored. */
  #sent = 0;
  #stored = 0;
  /** How much was given back to the disk. */
  #freed = 0;
  /** Whether the taker keeps no more: it wants only the last bytes, and their offset. */
  #isFull = false;
  #taker: Taker | undefined;
  #brake: Socket | undefined;
  /** Bytes that have been copied, as counted at the brake. What is beyond in the file is not output: the command wrote it there. */
  #limit = 0;
  #copier: ChildProcess | undefined;
  /** The last bytes that were copied, fewer than the mark has. */
  #lastCopied = Buffer.alloc(0);
  #isCut = false;
  /** Whether the disk was full when output was missing in the file. */
  #hadNoSpace = false;
  readonly #mark: Buffer | undefined;
  readonly #changed: () => void;
  readonly #stopped: (hasRun: boolean) => void;

  /**
   * @param mark what follows the output in the pipe; undefined for output that is no pipe's
   * @param changed is called when the end has been found, and when all has been sent
   * @param stopped is called when the copier has ended, or could not be started
   */
  constructor(
    name: Stream,
    path: string,
    mark: Buffer | undefined,
    changed: () => void,
    stopped: (hasRun: boolean) => void,
  ) {
    this.#stopped = stopped;
    this.name = name;
    this.#path = path;
    this.#mark = mark;
    this.#changed = changed;
  }

  /** Where the output ends; undefined as long as more may come. */
  get end(): number | undefined {
    return this.#end;
  }

  /** Whether the taker was given all output. */
  get isDelivered(): boolean {
    return this.#end !== undefined && this.#sent >= this.#end;
  }

  /** How many bytes have been copied; undefined while the brake holds the copier back. */
  get progress(): number | undefined {
    return this.#brake?.isPaused() ? undefined : this.#limit;
  }

  /** Whether the output is being copied to the file. */
  get isCopied(): boolean {
    return this.#brake !== undefined;
  }

  /** Why output is missing, or may be; undefined where none is. */
  get missing(): "killed" | "no space" | undefined {
    return !this.#isCut ? undefined : this.#hadNoSpace ? "no space" : "killed";
  }

  /** Output may be missing: what had read it from the pipe was killed. */
  markIncomplete(): void {
    this.#isCut = true;
  }

  /** The file is that of an adopted run which has ended. @param end bytes of its output */
  ended(end: number): void {
    this.#size = this.#end = this.#limit = end;
  }

  /**
   * Moves what is in the pipe of a command that has ended to the file, up to the mark. No copier reads the pipe.
   * @returns whether it found the mark, or that no process can write to the pipe any more
   */
  drain(slot: Slot): boolean {
    const isWhole = this.take(slot, MAX_DRAINED_BYTES);
    this.finish();
    return isWhole;
  }

  /** As `drain`, of a command that goes on, as far as there is room. */
  take(slot: Slot, most = WINDOW_BYTES - (this.#size - this.#stored)): boolean {
    if (this.#end !== undefined) return true;
    const own = this.#open();
    // Of a copier that has ended.
    if (own !== undefined && fstatSync(own).size > this.#limit)
      this.#limit = Math.max(this.#limit, this.#availableBytes(own));
    this.#scan();
    let isOver = false;
    for (let left = most; left > 0 && this.#end === undefined;) {
      const bytes = slot.read(this.name, piece);
      isOver = bytes?.length === 0;
      if (bytes === undefined || isOver) break;
      left -= bytes.length;
      // A stream without output needs no file.
      if (this.#limit === 0 && this.#mark && bytes.indexOf(this.#mark) === 0) this.#end = 0;
      else if (!this.#keep(bytes)) break;
    }
    this.#pump();
    return isOver || this.#end !== undefined;
  }

  /** Writes output to the file with its mark, by which the next sandboxd knows that it is complete. */
  #keep(bytes: Buffer): boolean {
    const file = this.#open(true);
    let written = 0;
    try {
      if (file !== undefined) written = writeSync(file, bytes);
    } catch {
      // The disk is full.
    }
    this.#limit += written;
    this.#scan();
    if (written === bytes.length) return true;
    this.#lookForSpace();
    this.#isCut = true;
    return false;
  }

  /** Takes what has been added to the file since: for a kernel's output, which the kernel writes itself. */
  grow(): void {
    const file = this.#open();
    if (file !== undefined) this.#size = this.#limit = Math.max(this.#size, fstatSync(file).size);
    this.#pump();
  }

  /** The output ends with what has been found by now. */
  finish(): void {
    this.#end ??= this.#size;
    this.#pump();
    this.#changed();
  }

  /**
   * How much of a file that others wrote can be output: its blocks on disk, and what was given back. The command may have made the
   * file longer than that.
   */
  #availableBytes(file: number): number {
    const { size, blocks } = fstatSync(file);
    this.#freed = Math.min(size, Number(textOf(`${this.#path}.freed`)) || 0);
    this.#size = this.#freed;
    return Math.min(size, this.#freed + blocks * 512);
  }

  /**
   * Has the pipe copied to the file from now on.
   * @param isAgain whether the file may hold output that another copier wrote, also for the sandboxd before
   * @param isCopied whether that copier still runs
   * @throws Error when no process can be made, or a pipe is gone
   */
  copy(slot: Slot, isAgain: boolean, isCopied: boolean): void {
    const brakePath = pausePipeOf(slot.directory, this.name);
    const own = this.#open(true);
    if (own !== undefined && isAgain) this.#limit = this.#availableBytes(own);
    const brake = openSync(brakePath, O_RDONLY | O_NONBLOCK);
    if (!isCopied) {
      // For both reading and writing, so that the copier is not ended by SIGPIPE while no sandboxd reads.
      const far = openSync(brakePath, O_RDWR);
      const pipe = openToRead(pipeOf(slot.directory, this.name));
      const file =
        own === undefined
          ? openSync("/dev/null", O_WRONLY)
          : openSync(`/proc/self/fd/${own}`, O_WRONLY | O_APPEND);
      try {
        this.#copier = startCopier([pipe, file, "ignore", far], ["/dev/fd/3"]);
      } finally {
        for (const fd of [far, pipe, file]) closeSync(fd);
      }
      this.#copier.once("error", () => this.#brake?.destroy());
    }
    const socket = new Socket({ fd: brake, readable: true, writable: false });
    this.#brake = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#limit += bytes.length;
      this.#pump();
      this.#seekEnd(bytes);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (this.#brake === socket) this.#brake = undefined;
      this.#pump();
      this.#stopped(this.#copier === undefined || this.#copier.pid !== undefined);
    });
    this.#pump();
  }

  /** Gives the taker the output from an offset on. */
  follow(offset: number, taker: Taker): void {
    this.#taker = taker;
    this.#sent = offset;
    this.#stored = Math.max(this.#stored, offset);
    this.#isFull = false;
    this.#pump();
  }

  unfollow(): void {
    this.#taker = undefined;
    this.#regulate();
  }

  /** The taker has stored the output up to this offset. */
  stored(offset: number): void {
    if (offset <= this.#stored) return;
    this.#stored = Math.min(offset, this.#sent);
    this.#free();
    this.#pump();
  }

  /** The taker keeps no more: from now on it is given the last bytes alone. */
  full(): void {
    this.#isFull = true;
    this.#pump();
  }

  /** Looks for new output that no event has told of. */
  readNow(): void {
    this.#pump();
  }

  close(): void {
    this.#taker = undefined;
    this.#brake?.destroy();
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  /** The file; undefined where there is none. @param make whether to make it, and to open it for writing */
  #open(make = false): number | undefined {
    if (this.#file !== undefined || (!make && !existsSync(this.#path))) return this.#file;
    try {
      // User code may have removed it.
      if (make && !existsSync(dirname(this.#path))) mkdirSync(dirname(this.#path), { recursive: true });
      const file = openSync(
        this.#path,
        (make ? O_RDWR | O_APPEND | O_CREAT : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK,
        0o600,
      );
      if (fstatSync(file).isFile()) this.#file = file;
      else closeSync(file);
    } catch {
      // User code has put something else in its place. That output is lost.
    }
    return this.#file;
  }

  /** Gives the taker what it has room for, searches new output for the mark, and sets the brake. */
  #pump(): void {
    const before = this.#end;
    this.#deliver();
    this.#scan();
    if (this.#isFull && this.#end !== undefined) this.tail();
    this.#regulate();
    if (this.#end !== before || this.isDelivered) this.#changed();
  }

  /** Sends output that was searched when the taker had no room. */
  #deliver(): void {
    const file = this.#open();
    while (file !== undefined && this.#takerHasRoom && this.#sent < this.#size) {
      const bytes = readAt(file, this.#sent, this.#size);
      if (bytes.length === 0) break;
      this.#send(bytes);
    }
    // User code may have cut the file: what is missing is counted as sent.
    if (this.#takerHasRoom && this.#end !== undefined) this.#sent = Math.max(this.#sent, this.#end);
  }

  /** Searches new output for the mark, and sends it at once where everything before it was sent: it is then read only once. */
  #scan(): void {
    const file = this.#open();
    while (file !== undefined && this.#end === undefined) {
      const bytes = this.#ownPart(readAt(file, this.#size, this.#limit));
      if (bytes.length === 0) {
        // What was copied is in the file before it is counted here.
        if (this.#size < this.#limit) this.#lookForSpace();
        break;
      }
      const isNext = this.#takerHasRoom && this.#sent === this.#size;
      this.#size += bytes.length;
      if (isNext) this.#send(bytes);
    }
    if (!this.#isFull) return;
    this.#stored = this.#size;
    this.#free();
  }

  /** Ends output whose mark was copied and is not in the file, which could not be written or was changed. */
  #seekEnd(bytes: Buffer): void {
    if (this.#mark === undefined || this.#end !== undefined) return;
    const copied = Buffer.concat([this.#lastCopied, bytes]);
    const at = copied.indexOf(this.#mark);
    if (at < 0) {
      this.#lastCopied = Buffer.from(copied.subarray(1 - this.#mark.length));
      return;
    }
    this.#isCut ||= this.#limit - copied.length + at > this.#size;
    this.finish();
  }

  #lookForSpace(): void {
    try {
      const { bavail, bsize } = statfsSync(dirname(this.#path));
      this.#hadNoSpace ||= bavail * bsize < NO_SPACE_BYTES;
    } catch {
      // Its directory was removed.
    }
  }

  /** Whether the taker has room. */
  get #takerHasRoom(): boolean {
    return this.#taker !== undefined && !this.#isFull && this.#sent - this.#stored < WINDOW_BYTES;
  }

  #send(bytes: Buffer): void {
    const offset = this.#sent;
    this.#sent += bytes.length;
    this.#taker?.(offset, bytes);
  }

  /** Sends the last SHOWN_END_BYTES to a taker that keeps no more, if they are new. */
  tail(): void {
    const file = this.#open();
    if (!this.#isFull || this.#sent >= this.#size) return;
    this.#sent = Math.max(this.#sent, this.#size - SHOWN_END_BYTES);
    if (file !== undefined) this.#send(readAt(file, this.#sent, this.#size));
    this.#sent = this.#size;
  }

  /** The bytes before the mark, which sets the end, or before what may be the beginning of the mark. */
  #ownPart(bytes: Buffer): Buffer {
    const mark = this.#mark;
    if (mark === undefined) return bytes;
    const at = bytes.indexOf(mark);
    if (at >= 0) {
      this.#end = this.#size + at;
      return bytes.subarray(0, at);
    }
    const last = bytes.lastIndexOf(mark[0] ?? 0);
    if (
      last >= 0 &&
      bytes.length - last < mark.length &&
      mark.subarray(0, bytes.length - last).equals(bytes.subarray(last))
    )
      return bytes.subarray(0, last);
    return bytes;
  }

  /** Holds the copier back while a window of output is not stored. */
  #regulate(): void {
    const brake = this.#brake;
    if (brake === undefined) return;
    const held = this.#end === undefined && this.#size - this.#stored >= WINDOW_BYTES;
    if (held && !brake.isPaused()) brake.pause();
    else if (!held && brake.isPaused()) brake.resume();
  }

  /** Gives the disk space of stored output back, except that of the last SHOWN_END_BYTES. Offsets in the file stay. */
  #free(): void {
    const upTo = this.#stored - SHOWN_END_BYTES;
    if (upTo - this.#freed < FREE_BYTES) return;
    const length = String(upTo - this.#freed);
    try {
      writeFileSync(`${this.#path}.freed`, String(upTo));
    } catch {
      // The disk may be full. The next sandboxd then searches what was freed, which reads as zeros.
    }
    execFile("/usr/bin/fallocate", [
      "--punch-hole",
      "--offset",
      String(this.#freed),
      "--length",
      length,
      this.#path,
    ]).on("error", () => undefined);
    this.#freed = upTo;
  }

  /** Ends the copying of what background processes print after the end. */
  stopCopying(): void {
    this.#brake?.destroy();
    this.#brake = undefined;
    this.#copier?.kill("SIGKILL");
  }

  /** Whether the copier has ended, because no process can write to the pipe any more. */
  get isOver(): boolean {
    return this.#brake === undefined || this.#brake.destroyed || this.#brake.readableEnded;
  }
}

/** Starts `tee` by its link. */
export function startCopier(stdio: StdioOptions, args: readonly string[] = []): ChildProcess {
  if (!existsSync(COPIER)) makeLinks();
  return spawn(COPIER, args, { cwd: "/", detached: true, env: NO_ENV, stdio, argv0: basename(COPIER) });
}
