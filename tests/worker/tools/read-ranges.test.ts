import { describe, expect, it } from "vitest";
import { owner } from "../support.ts";

const sandbox = "read-ranges";

/** sandboxd reads files of up to 64 KiB synchronously, and larger ones asynchronously. Both ways must return the same texts. */
const PADDING = { short: "", long: `${"p".repeat(70 * 1024)}\n` };

describe.each(["short", "long"] as const)("a range of a %s file", (size) => {
  const before = PADDING[size];
  const first = before === "" ? 1 : 2;

  it.each([
    ["all of it", "a\nb\nc\n", 0, 10, "a\nb\nc\n"],
    ["the first line", "a\nb\nc\n", 0, 1, "a\n"],
    ["a line in the middle", "a\nb\nc\n", 1, 1, "b\n"],
    ["a last line without a line break", "a\nb\nc", 2, 5, "c"],
    ["empty lines", "\n\nx\n\n", 1, 3, "\nx\n\n"],
    ["characters of several bytes", "ä€\n𝄞\n", 1, 1, "𝄞\n"],
  ])("contains exactly %s", async (_what, content, offset, limit, expected) => {
    const path = `range-${size}`;
    await owner.call("write_file", { sandbox, path, content: before + content });
    const result = await owner.call("read_file", { sandbox, path, offset: first + offset, limit });
    expect(result.structured.content).toBe(expected);
    const lines = content.split("\n").length - (content.endsWith("\n") ? 1 : 0);
    const shown = expected.split("\n").length - (expected.endsWith("\n") ? 1 : 0);
    const goOn = `${lines + first - 1} lines`;
    expect(result.text.includes(goOn)).toBe(offset + shown < lines || offset + first > 1);
    expect(result.text.includes(`Go on with offset ${first + offset + shown}.`)).toBe(offset + shown < lines);
  });

  it("behind the end is an error with the number of lines", async () => {
    const path = `past-${size}`;
    await owner.call("write_file", { sandbox, path, content: `${before}a\nb` });
    const result = await owner.call("read_file", { sandbox, path, offset: first + 2 });
    expect(result.text).toContain(`has ${first + 1} lines`);
    expect(result.text).toContain(`there is no line ${first + 2}`);
  });

  it("can be a range of bytes", async () => {
    const path = `bytes-${size}`;
    await owner.call("write_file", { sandbox, path, content: `${before}0123456789` });
    const offset = before.length + 3;
    const result = await owner.call("read_file", { sandbox, path, offset, limit: 4, encoding: "base64" });
    expect(result.text.startsWith(btoa("3456"))).toBe(true);
    expect(result.text).toContain(`bytes ${offset} to ${offset + 4}`);
  });
});

describe("a file is read unchanged, by lines and by bytes, if it", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);

  it.each([
    ["is one line break", bytes("\n")],
    ["ends in dots and line breaks", bytes("a..\n.\n\n\n")],
    ["begins with a byte order mark", bytes("\ufeffa\n")],
    ["has other line breaks", bytes("a\r\nb\rc\u2028d\u0085e\f")],
    ["has control characters and escapes", bytes("\x01\x1b[31m\x7f\\n%s$(true)`true`'\"\n")],
    ["has the replacement character", bytes("a\ufffdb\n")],
    ["has characters of every length", bytes("aä€𝄞".repeat(1000))],
    ["is exactly as long as one answer allows", bytes("x".repeat(32_768))],
    ["is one byte longer than one answer allows", bytes("x".repeat(32_769))],
    ["has a character across the limit of one answer", bytes(`${"x".repeat(32_767)}ä`)],
  ])("%s", async (_what, content) => {
    const path = "exact";
    const encoding = "base64";
    await owner.call("write_file", { sandbox, path, content: content.toBase64(), encoding });
    const completeRead = await owner.call("read_file", { sandbox, path, encoding });
    expect(completeRead.text.split("\n")[0]).toBe(content.toBase64());
    const { structured, text } = await owner.call("read_file", { sandbox, path });
    const decoded = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(content);
    expect(structured.content).toBe(decoded.slice(0, 32_768).replace(/(?<=^x{32767})ä$/, ""));
    expect(text).toContain(String(structured.content));
  });
});

it.each([
  ["without NUL", [0xff, 0xfe, 0x41, 0x0a]],
  ["with NUL", [0x41, 0x00, 0x42]],
  ["with a surrogate", [0xed, 0xa0, 0x80]],
])("a file that is not UTF-8, %s, is described, and its bytes are read unchanged", async (_what, content) => {
  const path = "no-text";
  const encoded = Uint8Array.from(content).toBase64();
  await owner.call("write_file", { sandbox, path, content: encoded, encoding: "base64" });
  const found = await owner.call("read_file", { sandbox, path });
  expect(found.text).toContain(`not UTF-8 text: ${content.length} bytes`);
  expect(found.text).toContain(Uint8Array.from(content.slice(0, 2)).toHex());
  const read = await owner.call("read_file", { sandbox, path, encoding: "base64" });
  expect(read.text.split("\n")[0]).toBe(encoded);
});
