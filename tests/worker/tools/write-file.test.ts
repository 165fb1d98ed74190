import { describe, expect, it } from "vitest";
import { owner, sh, sha256 } from "../support.ts";

const sandbox = "write";

async function write(path: string, content: string, more: Record<string, unknown> = {}) {
  return owner.call("write_file", { sandbox, path, content, ...more });
}

const hex = async (path: string) => (await sh(sandbox, `xxd -p -c 0 '${path}'`)).trim();

/** Random bytes, which compression or text conversion would change. */
function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  return bytes;
}

describe("write_file", () => {
  it("creates missing directories, and returns the path and the number of bytes", async () => {
    const result = await write("deep/er/file.txt", "one\n");
    expect(result).toMatchObject({
      isError: false,
      text: "Wrote 4 bytes to /workspace/deep/er/file.txt.",
      structured: { path: "/workspace/deep/er/file.txt", bytes_written: 4, size: 4 },
    });
    expect(await sh(sandbox, "cat deep/er/file.txt")).toBe("one\n");
  });

  it.each([
    ["relative to /workspace", "rel.txt", "/workspace/rel.txt"],
    ["absolute", "/tmp/abs.txt", "/tmp/abs.txt"],
    ["with ..", "a/../../workspace/./b/../up.txt", "/workspace/up.txt"],
    ["with spaces and quotes", `it's a "file" $HOME \`x\`.txt`, `/workspace/it's a "file" $HOME \`x\`.txt`],
    ["with unusual characters", "-rf/žluť/🐎\ntwo*\\", "/workspace/-rf/žluť/🐎\ntwo*\\"],
  ])("accepts a path %s", async (_what, path, absolute) => {
    const result = await write(path, `in ${path}`);
    expect(result).toMatchObject({ isError: false, structured: { path: absolute } });
    expect((await owner.call("read_file", { sandbox, path })).structured.content).toBe(`in ${path}`);
  });

  it("writes an empty file, a NUL, line breaks and every character unchanged", async () => {
    await write("empty", "");
    expect(await sh(sandbox, "stat -c %s empty")).toBe("0\n");
    const content = "\0a\r\n\t\u0001\u007f\u2028\ufeff🐎\n\n";
    await write("odd", content);
    expect(await hex("odd")).toBe(new TextEncoder().encode(content).toHex());
    await write("no-break", "no break");
    expect(await hex("no-break")).toBe(new TextEncoder().encode("no break").toHex());
  });

  it("accepts bytes in base64, in both alphabets", async () => {
    await write("bytes", "/+8A/w==", { encoding: "base64" });
    expect(await hex("bytes")).toBe("ffef00ff");
    await write("bytes", "_-8A_w", { encoding: "base64" });
    expect(await hex("bytes")).toBe("ffef00ff");
    const result = await write("bytes", "no base64!", { encoding: "base64" });
    expect(result).toMatchObject({ isError: true, text: expect.stringContaining("not valid base64") });
    expect(await hex("bytes")).toBe("ffef00ff");
  });

  it("refuses half a surrogate pair and an invalid path", async () => {
    expect(await write("half", "a\ud83d")).toMatchObject({
      isError: true,
      text: expect.stringContaining("half of a surrogate pair"),
    });
    for (const path of ["a\ud83d", "a\0b"])
      expect(await write(path, "x")).toMatchObject({
        isError: true,
        text: expect.stringContaining("must not contain"),
      });
    expect((await write("", "x")).isError).toBe(true);
    expect(await write("n".repeat(300), "x")).toMatchObject({
      isError: true,
      text: expect.stringMatching(/File name too long.*Use a shorter name/s),
    });
    expect(await sh(sandbox, "ls -A | grep sandbox-mcp || true")).toBe("");
  });

  it("appends, also to a file that does not exist yet", async () => {
    expect((await write("log", "one", { append: true })).structured).toMatchObject({
      size: 3,
      bytes_written: 3,
    });
    expect((await write("log", "\ntwo", { append: true })).structured).toMatchObject({
      size: 7,
      bytes_written: 4,
    });
    await write("log", "AAE=", { append: true, encoding: "base64" });
    expect(await hex("log")).toBe(`${new TextEncoder().encode("one\ntwo").toHex()}0001`);
    expect(await sh(sandbox, "ls -A /var/lib/sandbox-mcp")).not.toMatch(/staged|append.*append/s);
  });

  it("replaces content, and keeps the file's mode", async () => {
    await sh(sandbox, "printf 'a much longer old content' >mode; chmod 751 mode");
    await write("mode", "new");
    await write("mode", "er", { append: true });
    expect(await sh(sandbox, "cat mode; stat -c ' %a' mode")).toBe("newer 751\n");
  });

  it("writes through symbolic links and keeps them", async () => {
    await sh(
      sandbox,
      "mkdir -p real links; echo old >real/file; ln -sf ../real/file links/file; ln -sf ../real/new links/new; ln -sfn real dirlink",
    );
    await write("links/file", "through");
    await write("links/new", "made");
    await write("dirlink/under", "below");
    expect(
      await sh(sandbox, "cat real/file real/new real/under; readlink links/file links/new dirlink"),
    ).toBe("throughmadebelow../real/file\n../real/new\nreal\n");
    await sh(sandbox, "ln -sf loop loop; ln -sf /no/such/dir/file broken");
    expect(await write("loop", "x")).toMatchObject({
      isError: true,
      text: expect.stringContaining("Too many levels"),
    });
    expect((await write("broken", "x")).isError).toBe(true);
    expect(await sh(sandbox, "readlink loop broken")).toBe("loop\n/no/such/dir/file\n");
  });

  it("does not change the content of other hard links", async () => {
    await sh(sandbox, "echo old >first; ln -f first second");
    await write("first", "new");
    expect(await sh(sandbox, "cat second")).toBe("old\n");
  });

  it.each([
    ["a directory", "/workspace", /is a directory.*list_files/],
    ["a path below a file", "file/below", /is a file: use list_files|Not a directory/],
    ["a device", "/dev/null", /device, socket or pipe/],
    ["a pipe", "fifo", /device, socket or pipe/],
    ["a read-only file", "/usr/bin/bash", /mounted read-only: write to another, such as \/workspace/],
    ["a path that cannot be a file", "/proc/new", /Writing \/proc\/new failed: (?!.*\.sandbox-mcp)/],
    ["a process's file", "/proc/self/comm", /Writing \/proc\/self\/comm failed/],
  ])("refuses %s and says why", async (_what, path, words) => {
    await sh(sandbox, "echo x >file; [ -e fifo ] || mkfifo fifo");
    const result = await write(path, "x");
    expect(result).toMatchObject({ isError: true, text: expect.stringMatching(words) });
    expect(result.text).not.toContain("Internal error");
    expect(await sh(sandbox, "[ -c /dev/null ] && [ -p fifo ] && cat file")).toBe("x\n");
  });

  it("accepts 5 MB by append, unchanged", async () => {
    const bytes = noise(5 * 1024 * 1024 + 7);
    const piece = 2 * 1024 * 1024 + 11;
    for (let at = 0; at < bytes.length; at += piece) {
      const content = bytes.subarray(at, at + piece).toBase64();
      const result = await write("big/5mb.bin", content, { encoding: "base64", append: at > 0 });
      expect(result.structured).toMatchObject({ size: Math.min(bytes.length, at + piece) });
    }
    expect(await sh(sandbox, "sha256sum <big/5mb.bin")).toBe(`${await sha256(bytes)}  -\n`);
  });
});

describe("simultaneous calls of write_file", () => {
  it("append all of their texts to one file, or, if they replace it, leave the complete text of one of them", async () => {
    const letters = Array.from({ length: 20 }, (_, n) => String.fromCharCode(97 + n));
    await Promise.all(letters.map((letter) => write("at-once", letter.repeat(5000), { append: true })));
    expect(
      await sh(
        sandbox,
        "fold -w 5000 at-once | cut -c 1 | sort | tr -d '\\n'; fold -w 5000 at-once | sort -u | wc -l",
      ),
    ).toBe(`${letters.join("")}20\n`);
    await Promise.all(letters.map((letter) => write("at-once", letter.repeat(300_000))));
    expect(await sh(sandbox, "fold -w 5000 at-once | sort -u | wc -l; stat -c %s at-once")).toBe(
      "1\n300000\n",
    );
  });
});
