"use strict";
/**
 * Where a JavaScript kernel's output goes.
 *
 * The executor replaces process.stdout.write while a cell runs and puts it back before it writes its answer by console.log.
 * Code and executor find a stand-in as process.stdout, whose `write` is an accessor: the executor's function is kept aside
 * for our document, everybody else gets ours, and only the one write of the console that follows the executor's "put back"
 * goes to the real stream, which is its protocol channel.
 *
 * A run's output stays in memory while it is small and short; past 32 KiB or half a second it goes to the run's files,
 * `<files>.out` and `<files>.err`, where it can be read while the run goes on. A loop that never yields stops no timer from
 * being late, so each write looks at the clock as well.
 */
const { Readable } = require("node:stream");
const { patchChildren } = require("./children.cjs");
const { patchFiles } = require("./files.cjs");
const { Log, TAIL_BYTES, account } = require("./log.cjs");
const { StandIn } = require("./stand-in.cjs");

const MEMORY_BYTES = 32 * 1024;
const BLOCK_BYTES = 8 * 1024;
const LATE_BYTES = 16 * 1024;
const SPILL_AFTER_MS = 500;
const FLUSH_MS = 200;

class Streams {
  constructor() {
    this.active = false;
    this.spilled = false;
    this.logs = this.late();
    this.captures = {};
    this.overrides = {};
    this.answering = false;
    /** Logs that somebody else may append to, by their files. */
    this.shared = new Set();
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
      const { dropped } = early[name];
      if (dropped === 0) continue;
      const note = `\n[... ${dropped} more bytes printed between two runs were not kept ...]\n`;
      this.logs[name].add(Buffer.from(note));
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
    for (const log of this.shared) account(log);
    this.shared.clear();
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
    if (!this.active || this.spilled || this.cannotSpill) return;
    try {
      for (const log of Object.values(this.logs)) log.spill();
      this.spilled = true;
    } catch {
      this.cannotSpill = true;
      for (const log of Object.values(this.logs))
        log.cap = Math.min(log.cap, Math.max(log.kept, MEMORY_BYTES * 8));
    }
  }

  /** A file that what is appended to comes out of this stream. */
  share(name) {
    this.flush();
    this.spill();
    if (!this.active || !this.spilled) return "/dev/null";
    this.shared.add(this.logs[name]);
    return this.logs[name].path;
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
    patchFiles(this);
    patchChildren(this);
  }

  takeOver(name) {
    const real = process[name];
    // At this moment the executor's capture is in place; the real function is the prototype's.
    this.captures[name] = real.write;
    const original = Object.getPrototypeOf(real).write;
    const standIn = new StandIn(name === "stdout" ? 1 : 2);
    const ours = (chunk, encoding, callback) => {
      const done = typeof encoding === "function" ? encoding : callback;
      this.write(name, chunk, typeof encoding === "string" ? encoding : undefined);
      // At once: in a loop that never yields, callbacks put off would fill the memory.
      if (typeof done === "function") done();
      return true;
    };
    Object.defineProperty(standIn, "write", {
      configurable: true,
      get: () => this.overrides[name] ?? ours,
      set: (value) => {
        if (this.active) {
          this.overrides[name] = value === ours ? undefined : value;
          return;
        }
        // Without a run it is the executor: a capture before a cell, or what it found before, put back after one.
        if (value !== ours && value !== original) this.captures[name] = value;
        else if (name === "stderr") this.answering = true;
      },
    });
    // The console has the real stream since the executor said that it is ready.
    real.write = (...args) => {
      if (name !== "stdout" || !this.answering) return standIn.write(...args);
      this.answering = false;
      return Reflect.apply(original, real, args);
    };
    Object.defineProperty(process, name, { get: () => standIn, configurable: true, enumerable: true });
  }
}

module.exports = { Streams };
