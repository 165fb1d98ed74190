"use strict";
/** Turns values and exceptions into text and images for a model. */
// User code may replace properties of `fs` and `JSON`.
const { mkdirSync, rm, writeFileSync } = require("node:fs");
const util = require("node:util");
const { stringify } = JSON;
const { withBuiltins } = require("./builtins.cjs");
const { mapPlaces } = require("./typescript.cjs");
const { Array, Buffer, Error, Math, Number, Object, String, Symbol } = globalThis;
const TEXT_CHARS = 32 * 1024;
const NOTE_CHARS = 128;
const MARKUP_CHARS = 256 * 1024;
// Limits of one output. A run may have RESULTS outputs, which may have TOTAL_BYTES together.
const IMAGE_BYTES = 6 * 1024 * 1024;
const NAME_CHARS = 200;
const TOTAL_BYTES = 12 * 1024 * 1024;
const RESULTS = 100;
// Limits of the document: see sandbox_mcp_kernel/present.py.
const INLINE_BYTES = 960 * 1024;
const DOCUMENT_BYTES = 3 * 1024 * 1024;
const FILES = 20;
const OUTPUTS = "/workspace/.outputs";
const MESSAGE_CHARS = 16 * 1024;
const INSPECT = {
  depth: 6,
  maxArrayLength: 1000,
  maxStringLength: TEXT_CHARS / 2,
  breakLength: 100,
  colors: false,
};
/** Objects may have a method of this name that returns their forms as {mime type: data}. */
const DISPLAY = Symbol.for("Jupyter.display");
const FORMS = {
  "text/plain": "text",
  "text/html": "html",
  "text/markdown": "markdown",
  "text/latex": "latex",
  "image/png": "png",
  "image/jpeg": "jpeg",
  "image/svg+xml": "svg",
  "application/json": "json",
};

function shorten(text, limit = TEXT_CHARS, length = text.length) {
  if (text.length <= limit) return text;
  const half = (limit - NOTE_CHARS) / 2;
  const start = cutText(text, half);
  const end = text.slice(-half).replace(/^[\udc00-\udfff]/, "");
  const note = `[... ${length - start.length - end.length} of ${length} characters omitted: print it, or write it to a file ...]`;
  return `${start}\n${note}\n${end}`;
}

/** At most `units` UTF-16 units, without half of a surrogate pair at the end. */
const cutText = (text, units) => text.slice(0, units).replace(/[\ud800-\udbff]$/, "");

function plainTextOf(value) {
  try {
    if (typeof value === "string" && value.length > TEXT_CHARS) return plainTextOfLong(value);
    return shorten(util.inspect(value, INSPECT));
  } catch (error) {
    return `<value that cannot be shown: ${messageOf(error)}>`;
  }
}

/** Quotes only the two ends, because the whole string can have half a gigabyte. */
function plainTextOfLong(value) {
  const ends = `${value.slice(0, TEXT_CHARS)}${value.slice(-TEXT_CHARS)}`;
  return shorten(util.inspect(ends, { ...INSPECT, maxStringLength: null }), TEXT_CHARS, value.length);
}

/** The run's outputs in order, bounded. Each is an object with one property per form: text, png, ... */
class Results {
  constructor() {
    this.items = [];
    this.size = 0;
    this.omitted = 0;
  }

  display(value) {
    let data;
    try {
      data = typeof value?.[DISPLAY] === "function" ? value[DISPLAY]() : undefined;
    } catch {
      // The object is shown as plain text instead.
    }
    this.add(data ?? { "text/plain": plainTextOf(value) });
  }

  add(data) {
    const output = {};
    for (const [mime, form] of Object.entries(FORMS)) {
      const value = data[mime];
      if (value === undefined || value === null) continue;
      if (form === "png" || form === "jpeg") {
        const text = typeof value === "string" ? value : Buffer.from(value).toString("base64");
        const size = Buffer.byteLength(text, "base64");
        if (size <= IMAGE_BYTES) output[form] = text;
        else
          output.text =
            `[An image is left out: it has ${size} bytes; ` +
            `at most ${IMAGE_BYTES} can be shown. Make it smaller: fewer pixels, or JPEG.]`;
      } else if (form === "json") output.text ??= plainTextOf(value);
      else if ((form === "html" || form === "svg") && String(value).length > MARKUP_CHARS) {
        // Markup is kept whole or not at all: part of it is useless.
        const { length } = String(value);
        output.left_out = `A result's ${form} of ${length} characters is left out: at most ${MARKUP_CHARS} are kept.`;
        output.text ??= `[${form.toUpperCase()} of ${length} characters]`;
      } else
        output[form] = shorten(String(value), form === "html" || form === "svg" ? MARKUP_CHARS : TEXT_CHARS);
    }
    if (!Object.values(output).some((value) => value)) return;
    const size = sizeOf(output);
    if (this.items.length >= RESULTS || this.size + size > TOTAL_BYTES) {
      this.omitted += 1;
      return;
    }
    this.size += size;
    this.items.push(output);
  }

  /** Returns the outputs for the document of this run. Those that do not fit are empty, and large images are in files. */
  finish(run) {
    let room = DOCUMENT_BYTES;
    let files = 0;
    const shown = this.items.map((output, index) => {
      let [found, size] = [output, sizeOf(output)];
      const form = ["png", "jpeg"].find((one) => one in output);
      if (form && size > Math.min(room, INLINE_BYTES) && files < FILES) {
        files += 1;
        const path = `${OUTPUTS}/${run.replace(/^.*\./s, "")}-${index + 1}.${form}`;
        found = toFile(output, form, path, size <= room);
        size = sizeOf(found);
      }
      if (size <= room) {
        room -= size;
        return found;
      }
      this.omitted += 1;
      return {};
    });
    if (this.omitted > 0) {
      shown.push({ text: `[${this.omitted} more outputs not shown: too many or too large]` });
    }
    return shown;
  }
}

/** Moves the image of an output to a file. If that fails, for example on a full disk, the image stays if `orInline`. */
function toFile(output, form, path, orInline) {
  const { png, jpeg, ...rest } = output;
  try {
    mkdirSync(OUTPUTS, { recursive: true });
    writeFileSync(path, Buffer.from(png ?? jpeg, "base64"));
    return { ...rest, image_file: form };
  } catch (error) {
    rm(path, () => undefined);
    if (orInline) return output;
    const text = `[An image is left out: it is large, and its file could not be written (${messageOf(error)}).]`;
    return { ...rest, text };
  }
}

function messageOf(error) {
  try {
    return shorten(
      String(util.types.isNativeError(error) ? error.message : util.inspect(error)),
      MESSAGE_CHARS,
    );
  } catch {
    return "<message not printable>";
  }
}

/** The bytes of an output in the document. The document is JSON in ASCII, where a UTF-16 unit takes up to six bytes. */
function sizeOf(found) {
  return stringify(found).replace(/[^\x20-\x7e]/g, "\\u0000").length;
}

/** {name, message, traceback: lines}. The traceback has the user's frames, and the line of the cell where the error happened. */
function describe(error, sources) {
  const message = messageOf(error);
  if (!util.types.isNativeError(error) && !(error instanceof Error)) {
    return { name: "Error", message, traceback: [`Thrown: ${message}`] };
  }
  const name = cutText(String(error.name || "Error"), NAME_CHARS);
  let text = `${name}: ${message}`;
  try {
    text = `${stackOf(error) ?? text}${extrasOf(error)}`;
  } catch {
    // A getter of the user's object threw. Name and message are enough then.
  }
  const place = /\b(cell-\d+\.(?:js|ts)):(\d+):(\d+)/.exec(text);
  const line = place && sources.get(place[1])?.split("\n")[Number(place[2]) - 1];
  const head = line ? [`${place[1]}:${place[2]}`, `    ${line.trim()}`] : [];
  return { name, message, traceback: [...head, ...shorten(text, 4 * MESSAGE_CHARS).split("\n")] };
}

/** Keeps only the beginning, because the other frames of a deep recursion repeat it. */
function stackOf(error) {
  return typeof error.stack === "string" ? error.stack.split("\n").slice(0, 40).join("\n") : undefined;
}

function extrasOf(error) {
  const extras = { ...error };
  if (error.cause !== undefined) extras["[cause]"] = error.cause;
  if (Array.isArray(error.errors)) extras["[errors]"] = error.errors;
  return Object.keys(extras).length > 0 ? ` ${util.inspect(extras, { ...INSPECT, depth: 3 })}` : "";
}

/** Removes the frames of the inspector, this prelude and the executor from every stack. */
function trimStacks() {
  Error.prepareStackTrace = (error, frames) => {
    try {
      return stackText(error, frames);
    } catch {
      // A cell has replaced a method. Programs may need many stacks, so only this case restores the methods.
      return withBuiltins(() => stackText(error, frames));
    }
  };
}

function stackText(error, frames) {
  const end = frames.findIndex((frame) => frame.getFileName() === "node:inspector");
  const shown = end < 0 ? frames : frames.slice(0, end);
  let head;
  try {
    head = Error.prototype.toString.call(error);
  } catch {
    head = "Error";
  }
  return [head, ...shown.map((frame) => `    at ${mapPlaces(String(frame))}`)].join("\n");
}

module.exports = { Results, describe, trimStacks };
