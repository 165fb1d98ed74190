"use strict";
/** What code finds as process.stdout and process.stderr. The executor's own streams are nobody's but the executor's. */
const { Writable } = require("node:stream");

/** Never ends, is never destroyed, and never makes anybody wait. */
class StdioProxy extends Writable {
  constructor(fd) {
    super({ decodeStrings: false, autoDestroy: false, emitClose: false });
    this.fd = fd;
    this.isTTY = false;
  }

  /** For the methods of Writable that do not come by `write`. */
  _write(chunk, encoding, done) {
    this.write(chunk, encoding);
    done();
  }

  end(chunk, encoding, callback) {
    const done = [chunk, encoding, callback].find((one) => typeof one === "function");
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
