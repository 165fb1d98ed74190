"use strict";
/**
 * Where a JavaScript kernel's output goes.
 *
 * The real process.stdout is the executor's channel. We replace process.stdout with a proxy, whose `write` is an accessor: the getter
 * returns our function, or the function that the cell has set. The console writes to the real stream, whose `write` we also replace.
 *
 * A run's output goes to `<files>.out` and `<files>.err`, which sandboxd follows. At the end, short output goes into the document.
 */
const { Readable } = require("node:stream");
const { patchChildren } = require("./children.cjs");
const { patchFiles } = require("./files.cjs");
const { Log } = require("./log.cjs");
const { StdioProxy } = require("./stdio-proxy.cjs");
const { Buffer, Object, Reflect, Set, process } = globalThis;
const LATE_BYTES = 16 * 1024;
class Streams {
  constructor() {
    this.isActive = false;
    this.logs = this.logsBetweenRuns();
    this.overrides = {};
    /** The functions of the real streams. */
    this.writeReal = {};
    this.hasRun = false;
    this.shared = new Set();
  }

  /** Returns logs for output of timers and children between two runs. The beginning of that output goes to the next run. */
  logsBetweenRuns() {
    return { stdout: new Log(LATE_BYTES, LATE_BYTES), stderr: new Log(LATE_BYTES, LATE_BYTES) };
  }

  begin(files, cap, tailBytes) {
    const earlierLogs = this.logs;
    this.logs = {
      stdout: new Log(cap, tailBytes, `${files}.out`),
      stderr: new Log(cap, tailBytes, `${files}.err`),
    };
    for (const name of ["stdout", "stderr"]) {
      const { head, dropped } = earlierLogs[name];
      for (const data of head) this.logs[name].add(data);
      if (dropped === 0) continue;
      const note = `\n[... ${dropped} more bytes printed between two runs were not kept ...]\n`;
      this.logs[name].add(Buffer.from(note));
    }
    this.overrides = {};
    this.isActive = this.hasRun = true;
  }

  end() {
    for (const log of this.shared) log.recount();
    this.shared.clear();
    this.isActive = false;
    this.overrides = {};
    const [stdout, stderr] = [this.logs.stdout.end(), this.logs.stderr.end()];
    this.logs = this.logsBetweenRuns();
    const spilled = [stdout, stderr].some(({ text, data }) => (text ?? data) === undefined);
    return { spilled, stdout, stderr };
  }

  write(name, chunk, encoding) {
    const log = this.logs[name];
    if (log.kept >= log.cap && typeof chunk === "string") {
      log.drop(Buffer.from(chunk.slice(-log.tailBytes), encoding), Buffer.byteLength(chunk, encoding));
      return;
    }
    // Lone surrogates of a string become U+FFFD.
    log.add(typeof chunk === "string" ? Buffer.from(chunk, encoding) : Buffer.from(chunk));
  }

  share(name) {
    const log = this.logs[name];
    if (!this.isActive || !log.open()) return undefined;
    this.shared.add(log);
    return log;
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
    // The prelude is loaded inside a cell, so `write` is the executor's capture now. The prototype has the real function.
    const original = Object.getPrototypeOf(real).write;
    const proxy = new StdioProxy(name === "stdout" ? 1 : 2);
    const ours = (chunk, encoding, callback) => {
      const done = typeof encoding === "function" ? encoding : callback;
      this.write(name, chunk, typeof encoding === "string" ? encoding : undefined);
      // Called immediately: in a loop that never yields, deferred callbacks would fill the memory.
      if (typeof done === "function") done();
      return true;
    };
    Object.defineProperty(proxy, "write", {
      configurable: true,
      get: () => this.overrides[name] ?? ours,
      // The executor restores `write` at the end of the cell that loads the prelude.
      set: (value) => (this.overrides[name] = [ours, original].includes(value) ? undefined : value),
    });
    this.writeReal[name] = (...args) => Reflect.apply(original, real, args);
    // The console writes to the real stream, because the executor used the console before the prelude was loaded. Until the first
    // run, only the executor writes.
    real.write = (...args) => (this.hasRun ? proxy.write(...args) : this.writeReal[name](...args));
    Object.defineProperty(process, name, { get: () => proxy, configurable: true, enumerable: true });
  }
}

module.exports = { Streams };
