"use strict";
/**
 * Where a JavaScript kernel's output goes.
 *
 * The executor replaces process.stdout.write while a cell runs and puts it back before it writes its answer by console.log.
 * Code and executor find a proxy as process.stdout, whose `write` is an accessor: the executor's function is kept aside
 * for our document, everybody else gets ours, and only the one write of the console that follows the executor's "put back"
 * goes to the real stream, which is its protocol channel.
 *
 * A run's output goes to the run's files, `<files>.out` and `<files>.err`, where it can be read while the run goes on; what
 * is short by its end comes with the answer instead.
 */
const { Readable } = require("node:stream");
const { patchChildren } = require("./children.cjs");
const { patchFiles } = require("./files.cjs");
const { Log, TAIL_BYTES } = require("./log.cjs");
const { StdioProxy } = require("./stdio-proxy.cjs");

const LATE_BYTES = 16 * 1024;

class Streams {
  constructor() {
    this.active = false;
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
      const { head, dropped } = early[name];
      for (const data of head) this.logs[name].add(data);
      if (dropped === 0) continue;
      const note = `\n[... ${dropped} more bytes printed between two runs were not kept ...]\n`;
      this.logs[name].add(Buffer.from(note));
    }
    this.overrides = {};
    this.active = true;
  }

  /** Ends the run and gives its summary: {spilled, stdout: {...}, stderr: {...}}. */
  end() {
    for (const log of this.shared) log.account();
    this.shared.clear();
    this.active = false;
    this.overrides = {};
    const [stdout, stderr] = [this.logs.stdout.end(), this.logs.stderr.end()];
    this.logs = this.late();
    return { spilled: [stdout, stderr].some(({ text }) => text === undefined), stdout, stderr };
  }

  write(name, chunk, encoding) {
    const log = this.logs[name];
    if (log.kept >= log.cap && typeof chunk === "string") {
      log.drop(Buffer.from(chunk.slice(-TAIL_BYTES), encoding), Buffer.byteLength(chunk, encoding));
      return;
    }
    // A string's lone surrogates become U+FFFD here.
    log.add(typeof chunk === "string" ? Buffer.from(chunk, encoding) : Buffer.from(chunk));
  }

  /** A file that what is appended to comes out of this stream. Nobody listens between runs. */
  share(name) {
    const log = this.logs[name];
    if (!this.active || !log.open()) return undefined;
    this.shared.add(log);
    return log;
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
    const proxy = new StdioProxy(name === "stdout" ? 1 : 2);
    const ours = (chunk, encoding, callback) => {
      const done = typeof encoding === "function" ? encoding : callback;
      this.write(name, chunk, typeof encoding === "string" ? encoding : undefined);
      // At once: in a loop that never yields, callbacks put off would fill the memory.
      if (typeof done === "function") done();
      return true;
    };
    Object.defineProperty(proxy, "write", {
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
      if (name !== "stdout" || !this.answering) return proxy.write(...args);
      this.answering = false;
      return Reflect.apply(original, real, args);
    };
    Object.defineProperty(process, name, { get: () => proxy, configurable: true, enumerable: true });
  }
}

module.exports = { Streams };
