"use strict";
/**
 * Where a JavaScript kernel's output goes.
 *
 * The real process.stdout is the executor's protocol channel. While a cell runs, the executor replaces its `write` to capture the
 * output. Then the executor restores `write` and sends its reply by console.log. We replace process.stdout with a proxy, whose
 * `write` is an accessor. The setter keeps the function that the executor sets, because node.cjs writes the run's document with
 * it. The getter returns our function, or the function that the cell has set. After the executor has restored `write`, its
 * console.log goes to the real stream. Until it has replied, the properties that it replies with have their original values.
 *
 * A run's output goes to `<files>.out` and `<files>.err`, which sandboxd follows. At the end, short output goes into the document.
 */
const { Readable } = require("node:stream");
const { patchChildren } = require("./children.cjs");
const { patchFiles } = require("./files.cjs");
const { Log } = require("./log.cjs");
const { StdioProxy } = require("./stdio-proxy.cjs");
/** Saved here, because user code may replace it. */
const { stringify } = JSON;
const LATE_BYTES = 16 * 1024;
/** The properties with which the executor sends its reply. User code may replace them. */
const REPLY_PROPERTIES = [
  [globalThis, "console"],
  [console, "log"],
  [globalThis, "JSON"],
  [JSON, "stringify"],
].map(([owner, name]) => ({ owner, name, original: Object.getOwnPropertyDescriptor(owner, name) }));

class Streams {
  constructor() {
    this.isActive = false;
    this.logs = this.logsBetweenRuns();
    this.captures = {};
    this.overrides = {};
    this.isReplying = false;
    this.replaced = [];
    /** The run's document as the executor's reply contains it. */
    this.document = "";
    this.shared = new Set();
  }

  /** Returns logs for output of timers and children between two runs. The beginning of that output goes to the next run. */
  logsBetweenRuns() {
    return { stdout: new Log(LATE_BYTES, LATE_BYTES), stderr: new Log(LATE_BYTES, LATE_BYTES) };
  }

  begin(files, cap, tailBytes) {
    // Code that replaces and restores process.stderr.write between two runs looks like a reply.
    if (this.isReplying) this.endReply();
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
    this.isActive = true;
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

  beginReply() {
    this.isReplying = true;
    this.replaced = REPLY_PROPERTIES.map(({ owner, name, original }) => {
      const value = Object.getOwnPropertyDescriptor(owner, name);
      Reflect.defineProperty(owner, name, original);
      return { owner, name, value };
    });
  }

  /** Gives the user's code its own properties again. */
  endReply() {
    this.isReplying = false;
    for (const { owner, name, value } of this.replaced) {
      if (value) Reflect.defineProperty(owner, name, value);
      else Reflect.deleteProperty(owner, name);
    }
  }

  /** Jobs of the user's code may print between the cell's end and the reply. `console.group` indents the reply. */
  isReply(text) {
    return typeof text === "string" && text.trimStart().startsWith("{") && text.includes(this.document);
  }

  writeDocument(text) {
    this.document = stringify(text).slice(1, -1);
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
    // The prelude is loaded inside a cell, so `write` is the executor's capture now. The prototype has the real function.
    this.captures[name] = real.write;
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
      set: (value) => {
        if (this.isActive) {
          this.overrides[name] = value === ours ? undefined : value;
          return;
        }
        // Between runs only the executor sets `write`: to its capture before a cell, and back after it.
        if (value !== ours && value !== original) {
          this.captures[name] = value;
          this.document = "";
        } else if (name === "stderr") this.beginReply();
      },
    });
    // The console writes to the real stream, because the executor used the console before the prelude was loaded.
    real.write = (...args) => {
      if (name !== "stdout" || !this.isReplying || !this.isReply(args[0])) return proxy.write(...args);
      this.endReply();
      return Reflect.apply(original, real, args);
    };
    Object.defineProperty(process, name, { get: () => proxy, configurable: true, enumerable: true });
  }
}

module.exports = { Streams };
