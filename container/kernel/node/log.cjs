"use strict";
/** What is kept of one stream of one run: in memory first, in a file once it is told to, never more than its cap. */
const fs = require("node:fs");

const TAIL_BYTES = 16 * 1024;
/** As it is before children.cjs gives the descriptors another meaning. */
const writeSync = fs.writeSync;

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
    /** The file's descriptor while memory holds the same; null when there is to be none. */
    this.draft = undefined;
    this.kept = 0;
    this.dropped = 0;
    this.tail = Buffer.alloc(0);
  }

  add(data) {
    this.pending.push(data);
    this.pendingBytes += data.length;
    if (this.file === undefined) this.sketch(data);
  }

  /**
   * Writes what is in memory to the file as well, until the run is over or long enough for the file alone: a loop that
   * never yields can only be killed, and what it printed before must not go with it.
   */
  sketch(data) {
    if (this.path === undefined || this.draft === null) return;
    try {
      this.draft ??= this.open();
      if (writeSync(this.draft, data) < data.length) throw new Error("cut short");
    } catch {
      this.discard();
    }
  }

  /** The memory has it all: the file is not needed, or cannot be had. */
  discard() {
    if (typeof this.draft === "number") {
      fs.closeSync(this.draft);
      fs.unlinkSync(this.path);
    }
    this.draft = null;
  }

  open() {
    fs.mkdirSync(this.path.slice(0, this.path.lastIndexOf("/")), { recursive: true });
    return fs.openSync(this.path, "a", 0o600);
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
    this.flush();
    const data = Buffer.concat(this.memory);
    const isThere = typeof this.draft === "number" && this.dropped === 0;
    if (!isThere) this.discard();
    this.file = isThere ? this.draft : this.open();
    this.draft = null;
    this.memory = [];
    this.memoryBytes = 0;
    if (!isThere) this.put(data);
  }

  put(data) {
    let rest = data;
    try {
      while (rest.length > 0) rest = rest.subarray(writeSync(this.file, rest));
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
    this.discard();
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

module.exports = { Log, TAIL_BYTES, account };
