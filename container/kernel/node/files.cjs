"use strict";
/**
 * Makes the functions of `fs` use the run's streams for descriptors 1 and 2, because Node has no dup2, and descriptor 1 is the
 * executor's channel. Descriptor 0 appears empty.
 */
const fs = require("node:fs");
const { syncBuiltinESMExports } = require("node:module");
const { ArrayBuffer, Buffer, Number, Object, RegExp, String, URL, process } = globalThis;
const NAMES = { 1: "stdout", 2: "stderr" };
const NUMBERS = { stdin: 0, stdout: 1, stderr: 2 };
const PATH = new RegExp(
  `^(?:file://)?/(?:dev/(?<name>std(?:in|out|err))|(?:dev|proc/(?:self|${process.pid}))/fd/(?<number>[012]))$`,
);

function numberOf(target) {
  if (typeof target === "number") return target >= 0 && target <= 2 ? target : undefined;
  const found = typeof target === "string" || target instanceof URL ? PATH.exec(String(target)) : undefined;
  return found ? (NUMBERS[found.groups.name] ?? Number(found.groups.number)) : undefined;
}

function nameOf(target) {
  return NAMES[numberOf(target)];
}

function bytesOf(data, [first, second]) {
  if (typeof data === "string") return Buffer.from(data, typeof second === "string" ? second : "utf8");
  const allBytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  const { offset = 0, length } =
    typeof first === "object" && first ? first : { offset: first, length: second };
  const start = offset ?? 0;
  return allBytes.subarray(start, start + (length ?? allBytes.length - start));
}

function encodingOf(options) {
  return typeof options === "string" ? options : options?.encoding;
}

function replace(target, names, make) {
  for (const name of names) {
    const real = target[name];
    target[name] = Object.defineProperties(make(real), Object.getOwnPropertyDescriptors(real));
  }
}

/**
 * @param streams the run's streams: `write(name, chunk, encoding)`; `share(name)` returns a log with a file that children
 * append to
 */
function patchFiles(streams) {
  const writeBytes = (name, data, rest) => {
    const bytes = bytesOf(data, rest);
    streams.write(name, bytes);
    return bytes.length;
  };
  const writeAllBytes = (name, pieces) => pieces.reduce((sum, piece) => sum + writeBytes(name, piece, []), 0);
  const writeWhole = (name, data, options) =>
    streams.write(
      name,
      typeof data === "string" ? Buffer.from(data, encodingOf(options)) : bytesOf(data, []),
    );

  replace(
    fs,
    ["writeSync"],
    (real) =>
      (fd, data, ...rest) =>
        NAMES[fd] ? writeBytes(NAMES[fd], data, rest) : real(fd, data, ...rest),
  );
  replace(
    fs,
    ["writevSync"],
    (real) =>
      (fd, pieces, ...rest) =>
        NAMES[fd] ? writeAllBytes(NAMES[fd], pieces) : real(fd, pieces, ...rest),
  );
  for (const [method, writeData] of Object.entries({ write: writeBytes, writev: writeAllBytes })) {
    replace(fs, [method], (real) => (fd, data, ...rest) => {
      if (!NAMES[fd]) return real(fd, data, ...rest);
      const done = rest.pop();
      const size = writeData(NAMES[fd], data, rest);
      process.nextTick(() => done(null, size, data));
      return undefined;
    });
  }
  replace(fs, ["writeFileSync", "appendFileSync"], (real) => (target, data, options) => {
    const name = nameOf(target);
    return name ? writeWhole(name, data, options) : real(target, data, options);
  });
  replace(fs, ["writeFile", "appendFile"], (real) => (target, data, ...rest) => {
    const name = nameOf(target);
    if (!name) return real(target, data, ...rest);
    writeWhole(name, data, rest[0]);
    process.nextTick(() => rest.at(-1)(null));
    return undefined;
  });
  replace(fs.promises, ["writeFile", "appendFile"], (real) => async (target, data, options) => {
    const name = nameOf(target);
    if (!name) return real(target, data, options);
    if (typeof data === "string" || ArrayBuffer.isView(data)) return writeWhole(name, data, options);
    for await (const piece of data) writeWhole(name, piece, options);
    return undefined;
  });
  patchOpening(streams);
  patchInput();
  syncBuiltinESMExports();
}

function patchOpening(streams) {
  replace(fs, ["openSync"], (real) => (path, ...rest) => {
    const number = numberOf(path);
    return number ? number : real(number === 0 ? "/dev/null" : path, ...rest);
  });
  replace(fs, ["open"], (real) => (path, ...rest) => {
    const number = numberOf(path);
    if (!number) return real(number === 0 ? "/dev/null" : path, ...rest);
    process.nextTick(() => rest.at(-1)(null, number));
    return undefined;
  });
  replace(fs.promises, ["open"], (real) => (path, ...rest) => {
    const number = numberOf(path);
    if (number === undefined) return real(path, ...rest);
    if (number === 0) return real("/dev/null", ...rest);
    return real(streams.share(NAMES[number])?.path ?? "/dev/null", "a");
  });
  // The kernel needs these descriptors, so closing them does nothing.
  replace(fs, ["closeSync"], (real) => (fd) => (numberOf(fd) === undefined ? real(fd) : undefined));
  replace(fs, ["close"], (real) => (fd, done) => {
    if (numberOf(fd) === undefined) return done ? real(fd, done) : real(fd);
    if (done) process.nextTick(() => done(null));
    return undefined;
  });
}

/** Makes descriptor 0 appear empty, because its bytes are the executor's requests. */
function patchInput() {
  replace(fs, ["readFileSync"], (real) => (target, options) => {
    if (numberOf(target) !== 0) return real(target, options);
    return encodingOf(options) ? "" : Buffer.alloc(0);
  });
  replace(
    fs,
    ["readSync"],
    (real) =>
      (fd, ...rest) =>
        fd === 0 ? 0 : real(fd, ...rest),
  );
  replace(fs, ["read"], (real) => (fd, ...rest) => {
    if (fd !== 0) return real(fd, ...rest);
    const buffer = ArrayBuffer.isView(rest[0]) ? rest[0] : (rest[0]?.buffer ?? Buffer.alloc(0));
    process.nextTick(() => rest.at(-1)(null, 0, buffer));
    return undefined;
  });
}

module.exports = { patchFiles };
