/**
 * One stream of a run's output, in a file until the actor has stored it. The output of a short command waits in its pipe, and
 * sandboxd moves it to the file at the command's end. The output of a longer command is copied by `tee`, a separate process, so
 * that nothing is lost if sandboxd is killed. `tee` also writes every byte to a second pipe, the brake. While sandboxd does not
 * read the brake, `tee` blocks, the first pipe fills, and the program's writes block.
 *
 * Nothing more is sent while WINDOW_BYTES are unconfirmed, or SHARED_WINDOW_BYTES of all streams. Offsets count from the output's
 * first byte. At the output's end, the command's keeper (slot.ts) writes a mark to the pipe.
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
import { Pace, pieceWeight } from "./pace.ts";
import {
  PIECE_BYTES,
  LEAST_WINDOW_BYTES,
  SHARED_WINDOW_BYTES,
  type Stream,
  SHOWN_END_BYTES,
  WINDOW_BYTES,
} from "./protocol.ts";
import { attempt } from "./file-error.ts";
import { type Slot, brakePipeOf, openToRead, pipeOf } from "./slot.ts";

/** The disk space of stored bytes is freed in units of this size, because freeing needs a process. */
const FREE_BYTES = 16 * 1024 * 1024;
/** The most bytes read after a command's end: more than a pipe holds. Later output comes from background processes. */
const MAX_DRAINED_BYTES = 16 * 1024 * 1024;
/** A disk with fewer free bytes counts as full, because a copier writes this many bytes at once. */
const NO_SPACE_BYTES = 64 * 1024;
/**
 * How often all streams together may look for new short output. After the burst, a stream waits between two looks, and so sends
 * more bytes in each message. Each message takes time of the Worker's thread, which all sandboxes share. Long output does not wait.
 */
const pace = new Pace({ burst: 200, perSecond: 200 });
const MAX_WAIT_MS = 50;
const { O_RDONLY, O_RDWR, O_WRONLY, O_APPEND, O_CREAT, O_NONBLOCK, O_NOFOLLOW } = constants;

/** Receives output at an offset. Bytes are skipped only after `keepOnlyTail`. */
type Receiver = (offset: number, bytes: Buffer) => void;

const piece = Buffer.allocUnsafe(PIECE_BYTES);

/** At most PIECE_BYTES. The next call reuses the buffer. */
function readAt(file: number, from: number, to: number): Buffer {
  return piece.subarray(0, readSync(file, piece, 0, Math.max(0, Math.min(piece.length, to - from)), from));
}

/** The streams that have a receiver. */
const followed = new Set<OutputStream>();

export class OutputStream {
  readonly name: Stream;
  readonly #path: string;
  #file: number | undefined;
  /** The file was searched for the mark up to this offset. All bytes before this offset belong to the run. */
  #size = 0;
  #end: number | undefined;
  #sent = 0;
  #stored = 0;
  #freed = 0;
  /** Whether the receiver stores no more. Then it needs only the last bytes, and their offset. */
  #isFull = false;
  #receiver: Receiver | undefined;
  #brake: Socket | undefined;
  /** The number of copied bytes, counted at the brake. If the file is longer, the command itself wrote the other bytes. */
  #limit = 0;
  #isWaiting = false;
  #copier: ChildProcess | undefined;
  /** The last copied bytes, one fewer than the mark has, because two reads may split the mark. */
  #lastCopied = Buffer.alloc(0);
  isIncomplete = false;
  #ranOutOfSpace = false;
  readonly #mark: Buffer | undefined;
  readonly #onChange: () => void;
  readonly #onCopierEnd: (hasRun: boolean) => void;

  /**
   * @param mark the text that ends the output in a pipe
   * @param onChange called at the output's end
   * @param onCopierEnd called when no copier runs
   */
  constructor(
    name: Stream,
    path: string,
    mark: Buffer | undefined,
    onChange: () => void,
    onCopierEnd: (hasRun: boolean) => void,
  ) {
    this.#onCopierEnd = onCopierEnd;
    this.name = name;
    this.#path = path;
    this.#mark = mark;
    this.#onChange = onChange;
  }

  get end(): number | undefined {
    return this.#end;
  }

  get isDelivered(): boolean {
    return this.#end !== undefined && this.#sent >= this.#end;
  }

  get progress(): number | undefined {
    return this.#brake?.isPaused() ? undefined : this.#limit;
  }

  get isCopied(): boolean {
    return this.#brake !== undefined;
  }

  get missing(): "killed" | "no space" | undefined {
    return !this.isIncomplete ? undefined : this.#ranOutOfSpace ? "no space" : "killed";
  }

  /** Ends the output of an adopted run that has ended. @param end how many bytes of output the run has */
  setEnd(end: number): void {
    this.#size = this.#end = this.#limit = end;
  }

  /**
   * Moves an ended command's last output from the pipe to the file. Returns true if it found the mark or the pipe has no writers.
   */
  drain(slot: Slot): boolean {
    const isWhole = this.readPipe(slot, MAX_DRAINED_BYTES);
    this.finish();
    return isWhole;
  }

  readPipe(slot: Slot, most = WINDOW_BYTES - (this.#size - this.#stored)): boolean {
    if (this.#end !== undefined) return true;
    const fd = this.#open();
    // An earlier copier, which has ended, wrote these bytes.
    if (fd !== undefined && fstatSync(fd).size > this.#limit)
      this.#limit = Math.max(this.#limit, this.#availableBytes(fd));
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
    this.pump();
    return isOver || this.#end !== undefined;
  }

  /** Writes output with its mark to the file; the mark tells the next sandboxd that the output is complete. */
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
    this.isIncomplete = true;
    return false;
  }

  /** Reads new bytes of the file. For code: the kernel itself writes its output to the file. */
  grow(): void {
    const file = this.#open();
    if (file !== undefined) this.#size = this.#limit = Math.max(this.#size, fstatSync(file).size);
    this.pump();
  }

  finish(): void {
    this.#end ??= this.#size;
    this.pump();
    this.#onChange();
  }

  /**
   * How many bytes of output are in a file that other processes wrote: its disk blocks and freed space. Not its length, because
   * the command may have extended the file.
   */
  #availableBytes(file: number): number {
    const { size, blocks } = fstatSync(file);
    this.#freed = Math.min(size, Number(textOf(`${this.#path}.freed`)) || 0);
    this.#size = this.#freed;
    return Math.min(size, this.#freed + blocks * 512);
  }

  /**
   * Follows the copying of the pipe to the file, and starts a copier unless one still runs.
   * @param isAgain whether another copier may have written to the file
   * @param isCopied whether that copier still runs
   * @throws Error if no process can be started, or a pipe is gone
   */
  copy(slot: Slot, isAgain: boolean, isCopied: boolean): void {
    const brakePath = brakePipeOf(slot.directory, this.name);
    const output = this.#open(true);
    if (output !== undefined && isAgain) this.#limit = this.#availableBytes(output);
    const brake = openSync(brakePath, O_RDONLY | O_NONBLOCK);
    if (!isCopied) {
      // Open for reading and writing, so that the copier gets no SIGPIPE while no sandboxd runs.
      const writerEnd = openSync(brakePath, O_RDWR);
      const pipe = openToRead(pipeOf(slot.directory, this.name));
      const file =
        output === undefined
          ? openSync("/dev/null", O_WRONLY)
          : openSync(`/proc/self/fd/${output}`, O_WRONLY | O_APPEND);
      try {
        this.#copier = startCopier([pipe, file, "ignore", writerEnd], ["/dev/fd/3"]);
      } finally {
        for (const fd of [writerEnd, pipe, file]) closeSync(fd);
      }
      this.#copier.once("error", () => this.#brake?.destroy());
    }
    const socket = new Socket({ fd: brake, readable: true, writable: false });
    this.#brake = socket;
    socket.on("data", (bytes: Buffer) => {
      this.#limit += bytes.length;
      this.#sendOrWait();
      this.#seekEnd(bytes);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => {
      if (this.#brake === socket) this.#brake = undefined;
      this.pump();
      this.#onCopierEnd(this.#copier === undefined || this.#copier.pid !== undefined);
    });
    this.pump();
  }

  follow(offset: number, receiver: Receiver): void {
    this.#receiver = receiver;
    followed.add(this);
    this.#sent = offset;
    this.#stored = Math.max(this.#stored, offset);
    this.#isFull = false;
    this.pump();
  }

  unfollow(): void {
    this.#receiver = undefined;
    followed.delete(this);
    this.#pauseOrResume();
  }

  acknowledge(offset: number): void {
    if (offset <= this.#stored) return;
    this.#stored = Math.min(offset, this.#sent);
    this.#free();
    this.pump();
  }

  keepOnlyTail(): void {
    this.#isFull = true;
    this.pump();
  }

  close(): void {
    this.#receiver = undefined;
    followed.delete(this);
    this.#brake?.destroy();
    if (this.#file !== undefined) closeSync(this.#file);
    this.#file = undefined;
  }

  /** The file; undefined if there is none. @param make whether to create it and open it for writing */
  #open(make = false): number | undefined {
    if (this.#file !== undefined || (!make && !existsSync(this.#path))) return this.#file;
    try {
      // User code may have removed the directory.
      if (make && !existsSync(dirname(this.#path))) mkdirSync(dirname(this.#path), { recursive: true });
      const file = openSync(
        this.#path,
        (make ? O_RDWR | O_APPEND | O_CREAT : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK,
        0o600,
      );
      if (fstatSync(file).isFile()) this.#file = file;
      else closeSync(file);
    } catch {
      // User code has replaced the file. The output in it is lost.
    }
    return this.#file;
  }

  /** Reads new output, and sends as much as the receiver has room for. */
  pump(): void {
    const before = this.#end;
    this.#deliver();
    this.#scan();
    if (this.#isFull && this.#end !== undefined) this.tail();
    this.#pauseOrResume();
    if (this.#end !== before || this.isDelivered) this.#onChange();
  }

  #deliver(): void {
    const file = this.#open();
    while (file !== undefined && this.#receiverHasRoom && this.#sent < this.#size) {
      const bytes = readAt(file, this.#sent, this.#size);
      if (bytes.length === 0) break;
      this.#send(bytes);
    }
    // User code may have truncated the file: the missing part counts as sent.
    if (this.#receiverHasRoom && this.#end !== undefined) this.#sent = Math.max(this.#sent, this.#end);
  }

  /** Searches new output for the mark. Sends new output at once if all earlier output was sent, so that it is read only once. */
  #scan(): void {
    const file = this.#open();
    while (file !== undefined && this.#end === undefined) {
      const bytes = this.#ownPart(readAt(file, this.#size, this.#limit));
      if (bytes.length === 0) {
        // The copier writes bytes to the file before they are counted here. So if bytes are missing in the file, the write failed.
        if (this.#size < this.#limit) this.#lookForSpace();
        break;
      }
      const isNext = this.#receiverHasRoom && this.#sent === this.#size;
      this.#size += bytes.length;
      if (isNext) this.#send(bytes);
    }
    if (!this.#isFull) return;
    this.#stored = this.#size;
    this.#free();
  }

  /** Ends the output if its mark was copied but is not in the file: writing failed, or user code changed the file. */
  #seekEnd(bytes: Buffer): void {
    if (this.#mark === undefined || this.#end !== undefined) return;
    const copied = Buffer.concat([this.#lastCopied, bytes]);
    const at = copied.indexOf(this.#mark);
    if (at < 0) {
      this.#lastCopied = Buffer.from(copied.subarray(1 - this.#mark.length));
      return;
    }
    // If the stream is waiting, it has not searched the output before the mark.
    this.pump();
    if (this.end !== undefined) return;
    this.isIncomplete ||= this.#limit - copied.length + at > this.#size;
    this.finish();
  }

  #lookForSpace(): void {
    try {
      const { bavail, bsize } = statfsSync(dirname(this.#path));
      this.#ranOutOfSpace ||= bavail * bsize < NO_SPACE_BYTES;
    } catch {
      // The file's directory was removed.
    }
  }

  /** Bytes that were sent and that the receiver has not stored. */
  get #unconfirmed(): number {
    return Math.max(0, this.#sent - this.#stored);
  }

  get #receiverHasRoom(): boolean {
    if (this.#receiver === undefined || this.#isFull) return false;
    if (this.#unconfirmed < LEAST_WINDOW_BYTES) return true;
    if (this.#unconfirmed >= WINDOW_BYTES) return false;
    let sum = 0;
    for (const stream of followed) sum += stream.#unconfirmed;
    return sum < SHARED_WINDOW_BYTES;
  }

  #send(bytes: Buffer): void {
    const offset = this.#sent;
    this.#sent += bytes.length;
    this.#receiver?.(offset, bytes);
  }

  tail(): void {
    const file = this.#open();
    if (!this.#isFull || this.#sent >= this.#size) return;
    this.#sent = Math.max(this.#sent, this.#size - SHOWN_END_BYTES);
    if (file !== undefined) this.#send(readAt(file, this.#sent, this.#size));
    this.#sent = this.#size;
  }

  /**
   * Returns the bytes before the mark. If the mark is incomplete, returns the bytes before its possible beginning. A complete
   * mark sets the end of the output.
   */
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

  #sendOrWait(): void {
    const limit = this.#limit;
    const weight = pieceWeight(limit - this.#size);
    if (this.#isWaiting && weight > 0) return;
    this.pump();
    const ms = pace.take(weight);
    // A long wait takes no token. If it did, the debt of many streams would make them wait long after their output has decreased.
    if (ms > MAX_WAIT_MS) pace.giveBack(weight);
    if (ms === 0 || this.#isWaiting) return;
    this.#isWaiting = true;
    const resume = () => {
      this.#isWaiting = false;
      if (this.#brake !== undefined && this.#limit > limit) this.#sendOrWait();
    };
    setTimeout(resume, Math.min(ms, MAX_WAIT_MS)).unref();
  }

  #pauseOrResume(): void {
    const brake = this.#brake;
    if (brake === undefined) return;
    const isBehind = this.#end === undefined && this.#size - this.#stored >= WINDOW_BYTES;
    if (isBehind && !brake.isPaused()) brake.pause();
    else if (!isBehind && brake.isPaused()) brake.resume();
  }

  /** Frees the disk space of stored output, except the last SHOWN_END_BYTES. The offsets of the other bytes do not change. */
  #free(): void {
    const upTo = this.#stored - SHOWN_END_BYTES;
    if (upTo - this.#freed < FREE_BYTES) return;
    const length = String(upTo - this.#freed);
    // Fails if the disk is full. The next sandboxd then searches the freed part, which reads as zeros.
    attempt(() => writeFileSync(`${this.#path}.freed`, String(upTo)), undefined);
    const range = ["--offset", String(this.#freed), "--length", length];
    execFile("/usr/bin/fallocate", ["--punch-hole", ...range, this.#path]).on("error", () => undefined);
    this.#freed = upTo;
  }

  stopCopying(): void {
    this.#brake?.destroy();
    this.#brake = undefined;
    this.#copier?.kill("SIGKILL");
  }

  /** Whether the copier has ended. A copier that still runs could read the output of the slot's next command. */
  get isOver(): boolean {
    if (this.#copier?.pid !== undefined)
      return this.#copier.exitCode !== null || this.#copier.signalCode !== null;
    return this.#brake === undefined || this.#brake.destroyed || this.#brake.readableEnded;
  }
}

export function startCopier(stdio: StdioOptions, args: readonly string[] = []): ChildProcess {
  if (!existsSync(COPIER)) makeLinks();
  return spawn(COPIER, args, { cwd: "/", detached: true, env: NO_ENV, stdio, argv0: basename(COPIER) });
}
