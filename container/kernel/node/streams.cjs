"use strict";
/**
 * Where a JavaScript kernel's output goes.
 *
 * The executor replaces process.stdout.write while a cell runs and puts it back before it writes its answer. The property
 * becomes an accessor here: the executor's function is kept aside for our document, everybody else gets ours, and only
 * the one write that follows the executor's "put back" goes to the real descriptor, which is its protocol channel.
 *
 * A run's output stays in memory while it is small and short; past 32 KiB or half a second it goes to the run's files,
 * `<files>.out` and `<files>.err`, where it can be read while the run goes on. A loop that never yields stops no timer from
 * being late, so each write looks at the clock as well.
 */
const childProcess = require("node:child_process");
const fs = require("node:fs");
const { Readable } = require("node:stream");

const MEMORY_BYTES = 32 * 1024;
const BLOCK_BYTES = 8 * 1024;
const TAIL_BYTES = 16 * 1024;
const LATE_BYTES = 16 * 1024;
const SPILL_AFTER_MS = 500;
const FLUSH_MS = 200;

/** One stream of one run: at most `cap` bytes kept, what comes after is counted and its end remembered. */
class Log {
  constructor(cap, path) {
    this.cap = cap;
    this.path = path;
    this.pending = [];
    this.pendingBytes = 0;
    this.memory = [];
    this.memoryBytes = 0;
    this.file = undefined;
    this.kept = 0;
    this.dropped = 0;
    this.tail = Buffer.alloc(0);
  }

  add(data) {
    this.pending.push(data);
    this.pendingBytes += data.length;
  }

  flush() {
    if (this.pendingBytes === 0) return;
    const data = this.pending.length === 1 ? this.pending[0] : Buffer.concat(this.pending);
    this.pending = [];
    this.pendingBytes = 0;
    const room = Math.max(0, this.cap - this.kept);
    const keep = data.subarray(0, room);
    this.kept += keep.length;
    if (this.file !== undefined) this.put(keep);
    else if (keep.length > 0) {
      this.memory.push(keep);
      this.memoryBytes += keep.length;
    }
    if (data.length > room) this.drop(data.subarray(room));
  }

  drop(data) {
    this.dropped += data.length;
    this.tail = Buffer.concat([this.tail, data.subarray(-TAIL_BYTES)]).subarray(-TAIL_BYTES);
  }

  spill() {
    if (this.file !== undefined) return;
    fs.mkdirSync(this.path.slice(0, this.path.lastIndexOf("/")), { recursive: true });
    this.file = fs.openSync(this.path, "a", 0o600);
    const data = Buffer.concat(this.memory);
    this.memory = [];
    this.memoryBytes = 0;
    this.put(data);
  }

  put(data) {
    let rest = data;
    try {
      while (rest.length > 0) rest = rest.subarray(realWriteSync(this.file, rest));
    } catch {
      // A full disk must not stop the code: what does not fit counts as dropped.
      this.kept -= rest.length;
      this.drop(rest);
    }
  }

  summary() {
    const found = { bytes: this.kept + this.dropped, dropped: this.dropped };
    if (this.file === undefined) found.text = Buffer.concat(this.memory).toString("utf8");
    if (this.dropped > 0) found.tail = this.tail.toString("utf8");
    return found;
  }

  close() {
    if (this.file !== undefined) fs.closeSync(this.file);
    this.file = undefined;
  }
}

const realWriteSync = fs.writeSync;

class Streams {
  constructor() {
    this.active = false;
    this.spilled = false;
    this.logs = this.late();
    this.captures = {};
    this.overrides = {};
    this.answering = false;
  }

  /** Takes what timers print while no run is there; its beginning goes to the next run. */
  late() {
    return { stdout: new Log(LATE_BYTES), stderr: new Log(LATE_BYTES) };
  }

  begin(files, cap) {
    const early = this.logs;
    this.logs = { stdout: new Log(cap, `${files}.out`), stderr: new Log(cap, `${files}.err`) };
    for (const name of ["stdout", "stderr"]) {
      early[name].flush();
      for (const data of early[name].memory) this.logs[name].add(data);
    }
    this.overrides = {};
    this.spilled = false;
    this.cannotSpill = false;
    this.started = this.flushed = Date.now();
    this.active = true;
    this.timer = setInterval(() => this.tick(Date.now()), FLUSH_MS);
    this.timer.unref();
  }

  /** Ends the run and gives its summary: {spilled, stdout: {...}, stderr: {...}}. */
  end() {
    clearInterval(this.timer);
    const { stdout, stderr } = this.logs;
    stdout.flush();
    stderr.flush();
    this.keepSmall();
    this.active = false;
    this.overrides = {};
    this.logs = this.late();
    const found = { spilled: this.spilled, stdout: stdout.summary(), stderr: stderr.summary() };
    stdout.close();
    stderr.close();
    return found;
  }

  write(name, chunk, encoding) {
    const log = this.logs[name];
    if (log.kept >= log.cap && typeof chunk === "string") {
      log.flush();
      log.drop(Buffer.from(chunk.slice(-TAIL_BYTES), encoding));
      log.dropped +=
        Buffer.byteLength(chunk, encoding) - Buffer.byteLength(chunk.slice(-TAIL_BYTES), encoding);
      return;
    }
    // A string's lone surrogates become U+FFFD here.
    log.add(typeof chunk === "string" ? Buffer.from(chunk, encoding) : Buffer.from(chunk));
    if (log.pendingBytes >= BLOCK_BYTES) {
      log.flush();
      this.keepSmall();
    }
    // Many small writes are cheap pieces of one block; the clock is looked at on each of them all the same.
    if (this.active) this.tick(Date.now());
  }

  tick(now) {
    if (!this.active || now - this.flushed < FLUSH_MS || now - this.started < SPILL_AFTER_MS) return;
    this.flush();
    this.flushed = now;
  }

  flush() {
    if (!this.active) return;
    const logs = Object.values(this.logs);
    for (const log of logs) log.flush();
    if (logs.some((log) => log.memoryBytes > 0)) this.spill();
  }

  keepSmall() {
    if (this.active && Object.values(this.logs).some((log) => log.memoryBytes > MEMORY_BYTES)) this.spill();
  }

  /** Both streams of a run go to files together. Without a place for them they stay capped in memory. */
  spill() {
    if (this.spilled || this.cannotSpill) return;
    try {
      for (const log of Object.values(this.logs)) log.spill();
      this.spilled = true;
    } catch {
      this.cannotSpill = true;
      for (const log of Object.values(this.logs))
        log.cap = Math.min(log.cap, Math.max(log.kept, MEMORY_BYTES * 8));
    }
  }

  /** Our document, through the executor's own capture. */
  answer(text) {
    this.captures.stdout?.(text);
  }

  install() {
    for (const name of ["stdout", "stderr"]) this.takeOver(name);
    const empty = Readable.from([]);
    Object.assign(empty, { fd: 0, isTTY: false });
    Object.defineProperty(process, "stdin", { value: empty, configurable: true });
    this.patchFiles();
    this.patchChildren();
  }

  takeOver(name) {
    const stream = process[name];
    // At this moment the executor's capture is in place; the real function is the prototype's.
    this.captures[name] = stream.write;
    const real = Object.getPrototypeOf(stream).write.bind(stream);
    const ours = (chunk, encoding, callback) => {
      const done = typeof encoding === "function" ? encoding : callback;
      if (name === "stdout" && this.answering) {
        this.answering = false;
        return real(chunk, encoding, callback);
      }
      this.write(name, chunk, typeof encoding === "string" ? encoding : undefined);
      // At once: in a loop that never yields, callbacks put off would fill the memory.
      if (typeof done === "function") done();
      return true;
    };
    Object.defineProperty(stream, "write", {
      configurable: true,
      get: () => this.overrides[name] ?? ours,
      set: (value) => {
        if (this.active) {
          this.overrides[name] = value === ours ? undefined : value;
          return;
        }
        // Without a run it is the executor: a capture before a cell, or what it found before, put back after one.
        const back = value === ours || value === real || value === originals[name];
        if (!back) this.captures[name] = value;
        else if (name === "stderr") this.answering = true;
      },
    });
    const originals = { [name]: Object.getPrototypeOf(stream).write };
  }

  /** Descriptors 0, 1 and 2 are the protocol's; reading and writing them by number means the streams. */
  patchFiles() {
    const names = { 1: "stdout", 2: "stderr" };
    const { writeSync, write, readFileSync } = fs;
    fs.writeSync = (fd, data, ...rest) => {
      if (!names[fd]) return writeSync(fd, data, ...rest);
      this.write(names[fd], data);
      return Buffer.byteLength(data);
    };
    fs.write = (fd, data, ...rest) => {
      if (!names[fd]) return write(fd, data, ...rest);
      this.write(names[fd], data);
      const done = rest.at(-1);
      process.nextTick(() => done(null, Buffer.byteLength(data), data));
      return undefined;
    };
    fs.readFileSync = (path, options) => {
      if (path !== 0 && path !== "/dev/stdin") return readFileSync(path, options);
      return options ? "" : Buffer.alloc(0);
    };
    require("node:module").syncBuiltinESMExports();
  }

  /** A child that inherits descriptors inherits the run's, never the protocol's. */
  patchChildren() {
    const streams = this;
    const { ChildProcess } = childProcess;
    const spawn = ChildProcess.prototype.spawn;
    ChildProcess.prototype.spawn = function (options) {
      const { stdio, taken } = replaced(options.stdio, "pipe");
      const answer = Reflect.apply(spawn, this, [{ ...options, stdio }]);
      for (const index of taken) {
        const name = index === 1 ? "stdout" : "stderr";
        this.stdio[index]?.on("data", (data) => streams.write(name, data));
        this[name] = null;
      }
      return answer;
    };
    for (const name of ["spawnSync", "execSync", "execFileSync"]) {
      const real = childProcess[name];
      childProcess[name] = (...args) => {
        const at = args.findLastIndex((one) => one?.stdio !== undefined);
        const options = args[at];
        if (!options?.stdio || !streams.active) return real(...args);
        const { stdio, taken } = replaced(options.stdio, "pipe");
        if (taken.length === 0) return real(...args.with(at, { ...options, stdio }));
        return streams.withFiles(stdio, taken, (files) =>
          real(...args.with(at, { ...options, stdio: files })),
        );
      };
    }
    require("node:module").syncBuiltinESMExports();
  }

  /** A synchronous child writes straight into the run's files, so that its output is there while it runs. */
  withFiles(stdio, taken, call) {
    this.flush();
    this.spill();
    if (!this.spilled) return call(stdio.map((one, index) => (taken.includes(index) ? "ignore" : one)));
    const logs = taken.map((index) => [index, index === 1 ? this.logs.stdout : this.logs.stderr]);
    for (const [, log] of logs) log.flush();
    try {
      return call(stdio.map((one, index) => logs.find(([at]) => at === index)?.[1].file ?? one));
    } finally {
      for (const [, log] of logs) account(log);
    }
  }
}

/** Takes up what somebody else appended to a log's file, and cuts it to the cap. */
function account(log) {
  const size = fs.fstatSync(log.file).size;
  if (size > log.cap) {
    const tail = Buffer.alloc(Math.min(TAIL_BYTES, size - log.cap));
    const reader = fs.openSync(log.path, "r");
    fs.readSync(reader, tail, 0, tail.length, size - tail.length);
    fs.closeSync(reader);
    fs.ftruncateSync(log.file, log.cap);
    log.dropped += size - log.cap;
    log.tail = tail;
  }
  log.kept = Math.min(size, log.cap);
}

/** `stdio` as an array in which nothing refers to the kernel's own 0, 1 and 2, and which of 1 and 2 were meant. */
function replaced(stdio, instead) {
  const list = Array.isArray(stdio) ? [...stdio] : [stdio, stdio, stdio].map((one) => one ?? "pipe");
  const taken = [];
  for (const [index, one] of list.entries()) {
    const inherits = one === "inherit" || one?.type === "inherit" ? index : undefined;
    const fd = inherits ?? (typeof one === "number" ? one : one?.fd);
    if (fd === 0) list[index] = "ignore";
    if (fd !== 1 && fd !== 2) continue;
    list[index] = instead;
    taken.push(index);
  }
  return { stdio: list, taken };
}

module.exports = { Streams };
