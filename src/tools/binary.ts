/** Binary files for a model: a description, or the requested bytes. */
import { fileTypeFromBuffer } from "file-type";
import { binaryText } from "./texts.ts";

export const BINARY_BYTES = 48 * 1024;

const FIRST_BYTES = 128;

const ROW_BYTES = 16;

/** @param start the file's beginning; more bytes make the detected type more certain @param next the call that reads the bytes */
export async function describeBinary(path: string, size: number, start: Uint8Array, next: string) {
  // The library throws for a file that only begins like a known type.
  const type = await fileTypeFromBuffer(start).catch(() => undefined);
  const kind = type && `${type.mime} (${type.ext})`;
  const shown = start.subarray(0, FIRST_BYTES);
  return `${binaryText(path, { size, kind, next, shown: shown.length })}\n${hexDump(shown)}`;
}

/** Bytes as `xxd` shows them: offset, hexadecimal, printable characters. */
function hexDump(bytes: Uint8Array): string {
  const rows = Array.from({ length: Math.ceil(bytes.length / ROW_BYTES) }, (_, row) => {
    const part = bytes.subarray(row * ROW_BYTES, (row + 1) * ROW_BYTES);
    const hex = part.toHex().replaceAll(/(.{4})(?=.)/g, "$1 ");
    const printable = Array.from(part, (byte) =>
      byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : ".",
    ).join("");
    return `${(row * ROW_BYTES).toString(16).padStart(8, "0")}: ${hex.padEnd(39)}  ${printable}`;
  });
  return rows.join("\n");
}
