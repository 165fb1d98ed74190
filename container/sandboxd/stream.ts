/**
 * One stream of a run's output: a file that holds it until the actor has it. A short command's output waits in its pipe and
 * is moved here at its end. That of a longer one is copied here by `tee`, a process of its own, so that nothing is lost
 * when sandboxd is killed; every byte that `tee` has written it also writes into a second pipe, the brake: while sandboxd
 * takes nothing out of that, `tee` stops, the first pipe fills, and the program that prints waits as at any full pipe.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  openSync,
  readSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { Socket } from "node:net";
import { textOf } from "./places.ts";
import { PIECE_BYTES, type Stream, TAIL_BYTES, WINDOW_BYTES } from "./protocol.ts";
import { type Slot, brakeOf, openToRead, pipeOf } from "./slot.ts";

/** Bytes of a file that are worth a process to give back to the disk. */
const FREE_BYTES = 16 * 1024 * 1024;

const { O_RDONLY, O_RDWR, O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK, O_NOFOLLOW } = constants;

/** Takes the data of a stream at an offset; there is no gap but where bytes were dropped. */
export type Taker = (offset: number, bytes: Buffer) => void;

const piece = Buffer.allocUnsafe(PIECE_BYTES);

/** Valid until the next call. */
function readAt(file: number, from: number, to: number): Buffer {
  return piece.subarray(0, readSync(file, piece, 0, Math.max(0, Math.min(piece.length, to - from)), from));
}

export class OutputStream {
  readonly name: Stream;
  readonly #path: string;
  #file: number | undefined;
  /** Bytes in the file that are known to belong to the run. */
  #size = 0;
  /** Where the run's output ends, once that is known. */
  #end: number | undefined;
  /** Where the taker is, and what it has safe. */
  #sent = 0;
  #stored = 0;
  #freed = 0;
  #isFull = false;
  #taker: Taker | undefined;
  #brake: Socket | undefined;
  /** Bytes that have come into the file by now: what else is in it the command has put there. */
  #limit = 0;
  #copier: ChildProcess | undefined;
  readonly #mark: Buffer | undefined;
  readonly #changed: () => void;
  readonly #stopped: () => void;

  /**
   * @param changed is told when the end has been found, and when all has been sent
   * @param stopped is told when the copying has ended
   */
  constructor(
    name: Stream,
    path: string,
    mark: Buffer | undefined,
    changed: () => void,
    stopped: () => void,
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

  /** Whether the taker has all there was. */
  get isDelivered(): boolean {
    return this.#end !== undefined && this.#sent >= this.#end;
  }

  /** Bytes that have come; undefined while no more are taken. */
  get progress(): number | undefined {
    return this.#brake?.isPaused() ? undefined : this.#limit;
  }

  /** Whether somebody copies the pipe to the file. */
  get isCopied(): boolean {
    return this.#brake !== undefined;
  }

  /** Whether there is a file to copy to: the command may have put something else in its place. */
  get hasFile(): boolean {
    return this.#open() !== undefined;
  }

  /** Takes over the file of a run that has ended. */
  ended(end: number): void {
    this.#size = this.#end = this.#limit = end;
  }

  /** Moves what a command that has ended left in its pipe, up to the mark. Answers whether others hold the pipe. */
  drain(slot: Slot): void {
    let held = Buffer.alloc(0);
    let size: number | undefined;
    while (size === undefined) {
      const bytes = slot.read(this.name, piece);
      if (bytes === undefined || bytes.length === 0) break;
      held = Buffer.concat([held, bytes]);
      const at = this.#mark === undefined ? -1 : held.indexOf(this.#mark);
      if (at < 0) continue;
      size = at;
      // With the mark, by which a sandboxd after this one knows that all is there.
      held = held.subarray(0, at + (this.#mark?.length ?? 0));
    }
    size ??= held.length;
    const file = size > 0 ? this.#open(true) : undefined;
    if (file !== undefined) this.#limit = this.#size += Math.min(size, writeSync(file, held));
    this.finish();
  }

  /** Takes what a program that is no command of ours has added to the file by now. */
  grow(): void {
    const file = this.#open();
    if (file !== undefined) this.#size = this.#limit = Math.max(this.#size, fstatSync(file).size);
    this.#pump();
  }

  /** Nothing more comes. */
  finish(): void {
    this.#end ??= this.#size;
    this.#pump();
    this.#changed();
  }

  /** Where the data of a file ends that another sandboxd began: what is no data in it, the command has put there. */
  #there(file: number): number {
    const { size, blocks } = fstatSync(file);
    this.#freed = Math.min(size, Number(textOf(`${this.#path}.freed`)) || 0);
    this.#size = this.#freed;
    return Math.min(size, this.#freed + blocks * 512);
  }

  /**
   * Has the pipe copied to the file from now on.
   * @param isAdopted whether the file may hold what a sandboxd before took
   * @param isCopied whether a process of that one still copies
   * @throws Error
   */
  copy(slot: Slot, isAdopted: boolean, isCopied: boolean): void {
    const brakePath = brakeOf(slot.directory, this.name);
    const own = this.#open(true);
    if (own !== undefined && isAdopted) this.#limit = this.#there(own);
    const brake = openSync(brakePath, O_RDONLY | O_NONBLOCK);
    if (!isCopied) {
      // Its other end stays open with whoever writes to it: it must not end with this process.
      const far = openSync(brakePath, O_RDWR);
      const pipe = openToRead(pipeOf(slot.directory, this.name));
      const file =
        own === undefined
          ? openSync("/dev/null", O_WRONLY)
          : openSync(`/proc/self/fd/${own}`, O_WRONLY | O_APPEND);
      try {
        this.#copier = spawn("/usr/bin/tee", ["/dev/fd/3"], {
          cwd: "/",
          detached: true,
          env: {},
          stdio: [pipe, file, "ignore", far],
          argv0: "sandboxd-output",
        });
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
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (this.#brake === socket) this.#brake = undefined;
      this.#pump();
      this.#stopped();
    });
    this.#pump();
  }

  /** Follows the output from an offset on. */
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

  stored(offset: number): void {
    if (offset <= this.#stored) return;
    this.#stored = Math.min(offset, this.#sent);
    this.#free();
    this.#pump();
  }

  /** From now on only the size counts, and the end. */
  full(): void {
    this.#isFull = true;
    this.#pump();
  }

  /** Looks for what has been printed, in case nobody told. */
  look(): void {
    this.#pump();
  }

  close(): void {
    this.#taker = undefined;
    this.#brake?.destroy();
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  #open(make = false): number | undefined {
    if (this.#file !== undefined || (!make && !existsSync(this.#path))) return this.#file;
    try {
      const file = openSync(
        this.#path,
        (make ? O_RDWR | O_APPEND | O_CREAT : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK,
        0o600,
      );
      if (fstatSync(file).isFile()) this.#file = file;
      else closeSync(file);
    } catch {
      // The command has put something else in its place, or removed the directory: that output is lost.
    }
    return this.#file;
  }

  /** Passes on what there is, as far as it is wanted now, and looks at what has come. */
  #pump(): void {
    const before = this.#end;
    this.#deliver();
    this.#scan();
    if (this.#isFull && this.#end !== undefined) this.tail();
    this.#regulate();
    if (this.#end !== before || this.isDelivered) this.#changed();
  }

  /** Sends what was looked at before and could not be taken then. */
  #deliver(): void {
    const file = this.#open();
    while (file !== undefined && this.#takes && this.#sent < this.#size) {
      const bytes = readAt(file, this.#sent, this.#size);
      if (bytes.length === 0) break;
      this.#send(bytes);
    }
    // What should be there and is not cannot be sent.
    if (this.#takes && this.#end !== undefined) this.#sent = Math.max(this.#sent, this.#end);
  }

  /** Looks for the mark in what has come, and sends it on where it is the next to be sent. */
  #scan(): void {
    const file = this.#open();
    while (file !== undefined && this.#end === undefined) {
      const bytes = this.#ownPart(readAt(file, this.#size, this.#limit));
      if (bytes.length === 0) break;
      const isNext = this.#takes && this.#sent === this.#size;
      this.#size += bytes.length;
      if (isNext) this.#send(bytes);
    }
    if (!this.#isFull) return;
    this.#stored = this.#size;
    this.#free();
  }

  get #takes(): boolean {
    return this.#taker !== undefined && !this.#isFull && this.#sent - this.#stored < WINDOW_BYTES;
  }

  #send(bytes: Buffer): void {
    const offset = this.#sent;
    this.#sent += bytes.length;
    this.#taker?.(offset, bytes);
  }

  /** Sends the last bytes of a stream whose log is full, if there are new ones. */
  tail(): void {
    const file = this.#open();
    if (!this.#isFull || this.#sent >= this.#size) return;
    this.#sent = Math.max(this.#sent, this.#size - TAIL_BYTES);
    if (file !== undefined) this.#send(readAt(file, this.#sent, this.#size));
    this.#sent = this.#size;
  }

  /** The part of these bytes that belongs to the run: up to the mark, or to what may be the beginning of one. */
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

  /** The copier goes on while what it has copied is taken. */
  #regulate(): void {
    const brake = this.#brake;
    if (brake === undefined) return;
    const held = this.#end === undefined && this.#size - this.#stored >= WINDOW_BYTES;
    if (held && !brake.isPaused()) brake.pause();
    else if (!held && brake.isPaused()) brake.resume();
  }

  /** Gives the disk back that holds what is safe elsewhere; offsets stay as they are. */
  #free(): void {
    const upTo = this.#stored - TAIL_BYTES;
    if (upTo - this.#freed < FREE_BYTES) return;
    const length = String(upTo - this.#freed);
    try {
      writeFileSync(`${this.#path}.freed`, String(upTo));
    } catch {
      // The next sandboxd reads what is freed as well.
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

  /** Ends the copying of what others print after the end. */
  stopCopying(): void {
    this.#brake?.destroy();
    this.#brake = undefined;
    this.#copier?.kill("SIGKILL");
  }

  /** Whether the copier has ended, because nobody can write any more. */
  get isOver(): boolean {
    return this.#brake === undefined || this.#brake.destroyed || this.#brake.readableEnded;
  }
}
