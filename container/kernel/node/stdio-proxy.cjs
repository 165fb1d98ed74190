"use strict";
/** process.stdout and process.stderr as user code sees them. Only the executor uses the real streams. */
const { Writable } = require("node:stream");
const { process } = globalThis;

/** Stays open after `end` and `destroy`, so that later code can still print. `takeOver` in streams.cjs sets `write`. */
class StdioProxy extends Writable {
  constructor(fd) {
    super({ decodeStrings: false, autoDestroy: false, emitClose: false });
    this.fd = fd;
    this.isTTY = false;
  }

  /** Called when code bypasses this object's `write`, for example with `Writable.prototype.write.call`. */
  _write(chunk, encoding, done) {
    this.write(chunk, encoding);
    done();
  }

  end(chunk, encoding, callback) {
    const done = [chunk, encoding, callback].find((argument) => typeof argument === "function");
    if (chunk !== undefined && chunk !== null && typeof chunk !== "function") {
      this.write(chunk, typeof encoding === "string" ? encoding : undefined);
    }
    process.nextTick(() => {
      done?.();
      this.emit("finish");
    });
    return this;
  }

  destroy() {
    return this;
  }

  destroySoon() {}
}

module.exports = { StdioProxy };
