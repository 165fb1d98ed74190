"use strict";
/** What is kept of one stream of one run: in a file, where it can be read while the run goes on, and while it is short here. */
const { isUtf8 } = require("node:buffer");
const fs = require("node:fs");

const MEMORY_BYTES = 32 * 1024;
const TAIL_BYTES = 16 * 1024;
/** As it is before files.cjs gives the descriptors another meaning. */
const writeSync = fs.writeSync;

/** One stream of one run: at most `cap` bytes kept, what comes after is counted and its end remembered. */
class Log {
  /** @param path of the file; without one all is kept in memory */
  constructor(cap, path) {
    this.cap = cap;
    this.path = path;
    this.file = undefined;
    /** All that was kept, as long as that is short or there is no file. */
    this.head = [];
    this.kept = 0;
    this.dropped = 0;
    this.tail = Buffer.alloc(0);
  }

  /** At once: a loop that never yields can only be killed, and what it printed before must not go with it. */
  add(data) {
    const room = Math.max(0, this.cap - this.kept);
    const keep = data.subarray(0, room);
    this.kept += keep.length;
    const isInFile = keep.length > 0 && this.open();
    if (!isInFile || this.kept <= MEMORY_BYTES) this.head.push(keep);
    if (isInFile) this.put(keep);
    if (data.length > room) this.drop(data.subarray(room), data.length - room);
  }

  /** Counts bytes that are not kept, of which these are the last. */
  drop(last, count) {
    this.dropped += count;
    this.tail = Buffer.concat([this.tail, last.subarray(-TAIL_BYTES)]).subarray(-TAIL_BYTES);
  }

  /** Whether there is a file. Without a place for one it stays capped in memory. */
  open() {
    if (this.file !== undefined || this.path === undefined) return this.file !== undefined;
    try {
      fs.mkdirSync(this.path.slice(0, this.path.lastIndexOf("/")), { recursive: true });
      this.file = fs.openSync(this.path, "a+", 0o600);
    } catch {
      this.path = undefined;
      this.cap = Math.min(this.cap, MEMORY_BYTES * 8);
    }
    return this.file !== undefined;
  }

  put(data) {
    let rest = data;
    try {
      while (rest.length > 0) rest = rest.subarray(writeSync(this.file, rest));
    } catch {
      // A full disk must not stop the code: what does not fit counts as dropped.
      this.kept -= rest.length;
      this.drop(rest, rest.length);
    }
  }

  /** Takes up what somebody else appended to the file, and cuts it to the cap. */
  account() {
    const { size } = fs.fstatSync(this.file);
    if (size > this.cap) {
      this.drop(this.read(Math.max(this.cap, size - TAIL_BYTES), size), size - this.cap);
      fs.ftruncateSync(this.file, this.cap);
    }
    this.kept = Math.min(size, this.cap);
    this.head = this.kept <= MEMORY_BYTES ? [this.read(0, this.kept)] : [];
  }

  read(from, to) {
    const bytes = Buffer.alloc(to - from);
    return bytes.subarray(0, fs.readSync(this.file, bytes, 0, bytes.length, from));
  }

  /** Ends the log. `text` is there unless the output is in the file alone, because it is long or no text. */
  end() {
    const found = { bytes: this.kept + this.dropped, dropped: this.dropped };
    const whole = Buffer.concat(this.head);
    const isShort = this.file === undefined || (this.kept <= MEMORY_BYTES && isUtf8(whole));
    if (isShort) found.text = whole.toString("utf8");
    if (this.dropped > 0) found.tail = this.tail.toString("utf8");
    if (this.file !== undefined) this.close(isShort);
    return found;
  }

  close(isShort) {
    fs.closeSync(this.file);
    try {
      if (isShort) fs.unlinkSync(this.path);
    } catch {
      // The code has removed it itself.
    }
  }
}

module.exports = { Log, TAIL_BYTES };
