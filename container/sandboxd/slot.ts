/**
 * A slot: a directory with named pipes. After `begin` a shell waits there to run one command. Its parent, the keeper, writes
 * the exit status. Node cannot create named pipes, and starting `mkfifo` costs as much as a command. So pipes are created in
 * batches, and reused when no process holds them.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { KEEPER, KEEPER_SCRIPT, SLOTS, makeLinks, textOf } from "./directories.ts";
import { attempt, codeOf } from "./file-error.ts";
import { STREAMS, type Stream } from "./protocol.ts";

const BATCH = 4;
/** The errors if too many files are open, or too little memory is free. */
const SHORTAGES = new Set(["EMFILE", "ENFILE", "ENOMEM"]);
const PIPES = { stdout: "out", stderr: "err" } as const;
const { O_RDONLY, O_RDWR, O_NONBLOCK } = constants;

export function pipeOf(directory: string, stream: Stream): string {
  return join(directory, PIPES[stream]);
}
/** The pipe by which sandboxd slows down the output `stream`: see stream.ts. */
export function brakePipeOf(directory: string, stream: Stream): string {
  return join(directory, `${PIPES[stream]}.copied`);
}

/** Opens a pipe to read from it. A plain open would wait until the pipe has a writer. */
export function openToRead(path: string): number {
  const readWriteEnd = openSync(path, O_RDWR | O_NONBLOCK);
  try {
    return openSync(path, O_RDONLY);
  } finally {
    closeSync(readWriteEnd);
  }
}

export class Slot {
  readonly directory: string;
  /** The keeper writes this mark after the output. Random, so that no program prints it by accident. */
  readonly mark: Buffer;
  readonly #startPipe: number;
  readonly #inputPipe: number;
  readonly #pipes: Record<Stream, number>;
  #keeper: ChildProcess | undefined;
  #isClosed = false;

  constructor(directory: string, mark = `\u0001${randomBytes(24).toString("base64url")}`) {
    this.directory = directory;
    this.mark = Buffer.from(mark);
    const opened: number[] = [];
    const open = (path: string, flags: number) => {
      const fd = openSync(path, flags | O_NONBLOCK);
      opened.push(fd);
      return fd;
    };
    try {
      this.#startPipe = open(join(directory, "go"), O_RDWR);
      this.#inputPipe = open(join(directory, "in"), O_RDWR);
      this.#pipes = {
        stdout: open(pipeOf(directory, "stdout"), O_RDONLY),
        stderr: open(pipeOf(directory, "stderr"), O_RDONLY),
      };
    } catch (error) {
      for (const fd of opened) closeSync(fd);
      throw error;
    }
  }

  /**
   * Starts the keeper, which starts the shell. If it fails, no keeper is left.
   * @param onStatus gets the exit status; undefined if the keeper ended without one
   * @throws if a file of the slot cannot be written
   */
  begin(env: NodeJS.ProcessEnv, isTerminal: boolean, onStatus: (status: number | undefined) => void): void {
    writeFileSync(join(this.directory, "mark"), this.mark);
    if (!existsSync(KEEPER)) makeLinks();
    const script = join("..", basename(KEEPER_SCRIPT));
    const keeper = spawn(KEEPER, [script, isTerminal ? "terminal" : ""], {
      cwd: this.directory,
      detached: true,
      env,
      stdio: ["ignore", "pipe", "ignore"],
      argv0: basename(KEEPER),
    });
    this.#keeper = keeper;
    keeper.once("error", () => onStatus(undefined));
    if (keeper.pid === undefined) return;
    let words = "";
    keeper.stdout.on("data", (chunk: Buffer) => {
      words += chunk.toString();
      if (words.endsWith("\n")) onStatus(Number(words));
    });
    keeper.stdout.on("error", () => undefined);
    keeper.once("close", () => words.endsWith("\n") || onStatus(undefined));
    try {
      writeFileSync(join(this.directory, "keeper"), String(keeper.pid));
    } catch (error) {
      attempt(() => process.kill(-(keeper.pid ?? NaN), "SIGKILL"), false);
      throw error;
    }
  }

  /** Sends a path to the shell. The first call sends the path of the session's state, the second the path of the run's directory. */
  sendPath(path: string): void {
    writeSync(this.#startPipe, `${path}\n`);
  }

  /** Tells the keeper that it may end. */
  releaseKeeper(): void {
    this.sendPath("");
  }

  /** Types into the terminal. Returns how many bytes the pipe accepted. A pipe that is full of unread input accepts none. */
  type(bytes: Buffer): number {
    return attempt(() => writeSync(this.#inputPipe, bytes), 0);
  }

  async waitForEnd(): Promise<void> {
    const keeper = this.#keeper;
    if (keeper?.pid === undefined || keeper.exitCode !== null || keeper.signalCode !== null) return;
    await new Promise((resolve) => keeper.once("exit", resolve).once("error", resolve));
  }

  get leader(): number | undefined {
    return numberIn(join(this.directory, "pid"));
  }

  get keeper(): number | undefined {
    return numberIn(join(this.directory, "keeper"));
  }

  get status(): number | undefined {
    const status = numberIn(join(this.directory, "exit"));
    return status === undefined ? undefined : Math.min(status, 255);
  }

  /** A pipe's next bytes; undefined if there are none now, empty if it has no writers. */
  read(stream: Stream, into: Buffer): Buffer | undefined {
    try {
      return into.subarray(0, readSync(this.#pipes[stream], into, 0, into.length, null));
    } catch (error) {
      if (codeOf(error) === "EAGAIN") return undefined;
      throw error;
    }
  }

  /** Whether a process has the pipe open for writing. Discards the pipe's content. */
  hasWriters(stream: Stream): boolean {
    const dropped = Buffer.allocUnsafe(65_536);
    for (;;) {
      const bytes = this.read(stream, dropped);
      if (bytes === undefined) return true;
      if (bytes.length === 0) return false;
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    for (const fd of [this.#startPipe, this.#inputPipe, ...STREAMS.map((stream) => this.#pipes[stream])])
      closeSync(fd);
  }

  remove(): void {
    this.close();
    rmSync(this.directory, { recursive: true, force: true });
  }
}

export class Slots {
  readonly #free: string[] = [];
  #making: Promise<void> | undefined;

  async take(): Promise<Slot> {
    let slot: Slot | undefined;
    while (slot === undefined) {
      while (this.#free.length === 0) await this.#make();
      slot = this.#open(this.#free.pop() ?? "");
    }
    if (this.#free.length === 0) void this.#make().catch(() => undefined);
    return slot;
  }

  release(slot: Slot): void {
    slot.close();
    for (const name of ["keeper", "pid", "exit", "mark"]) rmSync(join(slot.directory, name), { force: true });
    this.#free.push(slot.directory);
  }

  /** Returns undefined if the slot was deleted. Other slots that cannot be opened are dropped, unless they can be opened later. */
  #open(directory: string): Slot | undefined {
    try {
      return new Slot(directory);
    } catch (error) {
      const code = codeOf(error) ?? "";
      if (code === "ENOENT") return undefined;
      if (SHORTAGES.has(code)) this.#free.push(directory);
      throw error;
    }
  }

  #make(): Promise<void> {
    this.#making ??= makeBatch()
      .then((made) => void this.#free.push(...made))
      .finally(() => (this.#making = undefined));
    return this.#making;
  }
}

async function makeBatch(): Promise<string[]> {
  const directories = Array.from({ length: BATCH }, () => join(SLOTS, randomBytes(6).toString("hex")));
  const paths = directories.flatMap((directory) => [
    join(directory, "go"),
    join(directory, "in"),
    ...STREAMS.flatMap((stream) => [pipeOf(directory, stream), brakePipeOf(directory, stream)]),
  ]);
  try {
    for (const directory of directories) mkdirSync(directory, { recursive: true });
    await promisify(execFile)("/usr/bin/mkfifo", ["-m", "600", ...paths]);
    return directories;
  } catch (error) {
    for (const directory of directories) rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

function numberIn(path: string): number | undefined {
  const text = textOf(path)?.trim();
  return text === undefined || !/^\d+$/.test(text) ? undefined : Number(text);
}
