"use strict";
/** The output of one stream of one run: in a file, which sandboxd follows, and in memory while it is short. */
const { isUtf8 } = require("node:buffer");
const fs = require("node:fs");
const { Buffer, Math } = globalThis;
const MEMORY_BYTES = 32 * 1024;
/** Saved here, because files.cjs replaces `fs.writeSync` later. */
const writeSync = fs.writeSync;

/** Keeps the first `cap` bytes of a stream. Counts the rest, and keeps the last `tailBytes` of it. */
class Log {
  /** @param path the file's path; without one everything is kept in memory */
  constructor(cap, tailBytes, path) {
    this.cap = cap;
    this.tailBytes = tailBytes;
    this.path = path;
    this.file = undefined;
    this.head = [];
    this.kept = 0;
    this.dropped = 0;
    this.tail = Buffer.alloc(0);
  }

  /** Writes immediately. Code that never yields can only be killed, and its output must not be lost then. */
  add(data) {
    const room = Math.max(0, this.cap - this.kept);
    const isCut = data.length > room;
    // A part is copied, because a view keeps its whole buffer in memory.
    if (room > 0) this.keep(isCut ? Buffer.from(data.subarray(0, room)) : data);
    if (isCut) this.drop(data.subarray(room), data.length - room);
  }

  keep(data) {
    if (data.length === 0) return;
    this.kept += data.length;
    const isInFile = this.open();
    if (!isInFile || this.kept <= MEMORY_BYTES) this.head.push(data);
    if (isInFile) this.put(data);
  }

  drop(last, count) {
    this.dropped += count;
    this.tail = Buffer.concat([this.tail, last.subarray(-this.tailBytes)]).subarray(-this.tailBytes);
  }

  /** Opens the file. Returns whether it is open. If it cannot be created, memory is used, with a lower cap. */
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
      // A full disk must not stop the user's code: the bytes that do not fit are dropped.
      this.kept -= rest.length;
      this.drop(rest, rest.length);
    }
  }

  /** Counts what children have written to the file. */
  recount() {
    const { size } = fs.fstatSync(this.file);
    if (size > this.cap) {
      this.drop(this.read(Math.max(this.cap, size - this.tailBytes), size), size - this.cap);
      fs.ftruncateSync(this.file, this.cap);
    }
    this.kept = Math.min(size, this.cap);
    this.head = this.kept <= MEMORY_BYTES ? [this.read(0, this.kept)] : [];
  }

  read(from, to) {
    const bytes = Buffer.alloc(to - from);
    return bytes.subarray(0, fs.readSync(this.file, bytes, 0, bytes.length, from));
  }

  /** Returns the summary, as `end` in sandbox_mcp_kernel/log.py does. */
  end() {
    const found = { bytes: this.kept + this.dropped };
    const head = Buffer.concat(this.head);
    const isShort = isUtf8(head) && (this.file === undefined || this.kept <= MEMORY_BYTES);
    if (isShort) found.text = head.toString("utf8");
    else if (this.file === undefined) found.data = head.toString("base64");
    if (this.dropped > 0) found.last = this.tail.toString("base64");
    if (this.file !== undefined) this.close(isShort);
    return found;
  }

  close(isShort) {
    fs.closeSync(this.file);
    try {
      if (isShort) fs.unlinkSync(this.path);
    } catch {
      // The user's code has removed the file.
    }
  }
}

module.exports = { Log };
