import { describe, expect, it } from "vitest";
import { ORIGIN, owner, sh } from "../support.ts";

const sandbox = "write";

async function write(path: string, content: string, more: Record<string, unknown> = {}) {
  return owner.call("write_file", { sandbox, path, content, ...more });
}

/** The file's bytes in hexadecimal. */
const hex = async (path: string) => (await sh(sandbox, `xxd -p -c 0 '${path}'`)).trim();

/** Bytes that no compression or text handling leaves alone by luck. */
function noise(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536));
  return bytes;
}

async function sha256(bytes: Uint8Array): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

describe("write_file", () => {
  it("makes directories on the way and says what it wrote", async () => {
    const result = await write("deep/er/file.txt", "one\n");
    expect(result).toMatchObject({
      isError: false,
      text: "4 bytes written to /workspace/deep/er/file.txt; it has 4 bytes now.",
      structured: { path: "/workspace/deep/er/file.txt", bytes_written: 4, size: 4 },
    });
    expect(await sh(sandbox, "cat deep/er/file.txt")).toBe("one\n");
  });

  it.each([
    ["relative to /workspace", "rel.txt", "/workspace/rel.txt"],
    ["absolute", "/tmp/abs.txt", "/tmp/abs.txt"],
    ["with ..", "a/../../workspace/./b/../up.txt", "/workspace/up.txt"],
    ["with spaces and quotes", `it's a "file" $HOME \`x\`.txt`, `/workspace/it's a "file" $HOME \`x\`.txt`],
    ["with a line break", "two\nlines", "/workspace/two\nlines"],
    ["with unicode", "žluť/🐎.txt", "/workspace/žluť/🐎.txt"],
    ["with a dash first", "-rf", "/workspace/-rf"],
    ["with a star", "*", "/workspace/*"],
    ["with a backslash at the end", "back\\", "/workspace/back\\"],
  ])("takes a path %s", async (_what, path, absolute) => {
    const result = await write(path, `in ${path}`);
    expect(result).toMatchObject({ isError: false, structured: { path: absolute } });
    expect((await owner.call("read_file", { sandbox, path })).text).toBe(`in ${path}`);
  });

  it("writes nothing, a NUL, line breaks and every character as they are", async () => {
    await write("empty", "");
    expect(await sh(sandbox, "stat -c %s empty")).toBe("0\n");
    const content = "\0a\r\n\t\u0001\u007f\u2028\ufeff🐎\n\n";
    await write("odd", content);
    expect(await hex("odd")).toBe(new TextEncoder().encode(content).toHex());
    await write("no-break", "no break");
    expect(await hex("no-break")).toBe(new TextEncoder().encode("no break").toHex());
  });

  it("takes bytes in base64, of either alphabet", async () => {
    await write("bytes", "/+8A/w==", { encoding: "base64" });
    expect(await hex("bytes")).toBe("ffef00ff");
    await write("bytes", "_-8A_w", { encoding: "base64" });
    expect(await hex("bytes")).toBe("ffef00ff");
    const result = await write("bytes", "no base64!", { encoding: "base64" });
    expect(result).toMatchObject({ isError: true, text: expect.stringContaining("not valid base64") });
    expect(await hex("bytes")).toBe("ffef00ff");
  });

  it("refuses half a surrogate pair, and a path that no file can have", async () => {
    expect(await write("half", "a\ud83d")).toMatchObject({
      isError: true,
      text: expect.stringContaining("half of a surrogate pair"),
    });
    expect((await write("a\0b", "x")).isError).toBe(true);
    expect((await write("", "x")).isError).toBe(true);
    expect(await write("n".repeat(300), "x")).toMatchObject({
      isError: true,
      text: expect.stringMatching(/File name too long.*Use a shorter name/s),
    });
    expect(await sh(sandbox, "ls -A | grep sandbox-mcp || true")).toBe("");
  });

  it("appends, also to what is not there yet", async () => {
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

  it("writes through symbolic links and leaves them", async () => {
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

  it("leaves hard links of the old content alone", async () => {
    await sh(sandbox, "echo old >first; ln -f first second");
    await write("first", "new");
    expect(await sh(sandbox, "cat second")).toBe("old\n");
  });

  it.each([
    ["a directory", "/workspace", /is a directory.*Use list_files with path \/workspace\./],
    ["a path below a file", "file/below", /is a file: use list_files|Not a directory/],
    ["a device", "/dev/null", /device, socket or pipe/],
    ["a pipe", "fifo", /device, socket or pipe/],
    ["what is read-only", "/usr/bin/bash", /mounted read-only: write to another, such as \/workspace/],
    ["a place of no file", "/proc/new", /Writing \/proc\/new failed: (?!.*\.sandbox-mcp)/],
    ["a process's file", "/proc/self/comm", /Writing \/proc\/self\/comm failed/],
  ])("refuses %s and says why", async (_what, path, words) => {
    await sh(sandbox, "echo x >file; [ -e fifo ] || mkfifo fifo");
    const result = await write(path, "x");
    expect(result).toMatchObject({ isError: true, text: expect.stringMatching(words) });
    expect(result.text).not.toContain("Internal error");
    expect(await sh(sandbox, "[ -c /dev/null ] && [ -p fifo ] && cat file")).toBe("x\n");
  });

  it("takes 20 MB by append, and gives them back by ranges, byte for byte", async () => {
    const bytes = noise(20 * 1024 * 1024 + 7);
    const piece = 5 * 1024 * 1024 + 11;
    for (let at = 0; at < bytes.length; at += piece) {
      const content = bytes.subarray(at, at + piece).toBase64();
      const result = await write("big/20mb.bin", content, { encoding: "base64", append: at > 0 });
      expect(result.structured).toMatchObject({ size: Math.min(bytes.length, at + piece) });
    }
    expect(await sh(sandbox, "sha256sum <big/20mb.bin")).toBe(`${await sha256(bytes)}  -\n`);
    const back = new Uint8Array(bytes.length);
    for (let offset = 0; offset < bytes.length;) {
      const { content } = await owner.call("read_file", {
        sandbox,
        path: "big/20mb.bin",
        encoding: "base64",
        offset,
      });
      const part = Uint8Array.fromBase64(content[0]?.text ?? "");
      expect(part.length).toBeGreaterThan(0);
      back.set(part, offset);
      offset += part.length;
      const rest = offset < bytes.length ? `Go on with encoding base64 and offset ${offset}.` : "";
      expect(content[1]?.text).toContain(rest);
    }
    expect(await sha256(back)).toBe(await sha256(bytes));
  });

  it("answers a body over the limit with 413 that names append", async () => {
    const message = {
      method: "tools/call",
      params: { name: "write_file", arguments: { sandbox, path: "x", content: "x".repeat(8 * 1024 * 1024) } },
    };
    const response = await owner.fetch(JSON.stringify({ jsonrpc: "2.0", id: 1, ...message }));
    expect(response.status).toBe(413);
    expect(await response.text()).toContain("append");
    expect(ORIGIN).toContain("https://");
  });

  it("says that the disk is full, and changes nothing", async () => {
    const full = "write-full";
    await sh(
      full,
      "echo old >small; head -c 100000 /dev/zero >large; dd if=/dev/zero of=fill bs=1M 2>/dev/null; dd if=/dev/zero of=fill2 bs=1 2>/dev/null; true",
    );
    for (const [path, size] of [
      ["small", 20_000],
      ["large", 200_000],
      ["new", 3_000_000],
    ] as const)
      for (const append of [false, true]) {
        const result = await owner.call("write_file", {
          sandbox: full,
          path,
          content: "x".repeat(size),
          append,
        });
        expect(result).toMatchObject({
          isError: true,
          text: expect.stringMatching(/No space left.*Delete files/s),
        });
      }
    expect(await sh(full, "cat small; stat -c %s large; ls -A")).toBe(
      "old\n100000\nfill\nfill2\nlarge\nsmall\n",
    );
    await sh(full, "rm fill");
    expect(
      (await owner.call("write_file", { sandbox: full, path: "new", content: "x".repeat(3_000_000) }))
        .isError,
    ).toBe(false);
    await owner.call("destroy_sandbox", { sandbox: full });
  });
});

describe("a write that is killed", () => {
  it("leaves the old content or the new, and nothing else", async () => {
    const killed = "write-killed";
    await sh(killed, "echo old >file; chmod 640 file");
    const killer = owner.call("run_command", {
      sandbox: killed,
      command: "for i in $(seq 60); do sleep 0.02; pkill -9 -f '^(cat|cp|base64)' ; done; true",
      session: "killer",
    });
    const sizes = new Set<string>();
    for (let n = 0; n < 6; n++) {
      const result = await owner.call("write_file", {
        sandbox: killed,
        path: "file",
        content: "x".repeat(2_000_000 + n),
      });
      expect(result.text).toMatch(/Writing \/workspace\/file failed|bytes written to/);
      sizes.add((await sh(killed, "stat -c %s file")).trim());
    }
    await killer;
    for (const size of sizes) expect(size === "4" || Number(size) >= 2_000_000).toBe(true);
    expect(await sh(killed, "stat -c %a file; ls -A")).toBe("640\nfile\n");
  });

  it("after an append was done, before its answer was read, is not done twice by the second call", async () => {
    const again = "append-again";
    const id = "3f2b9c1e-0000-4000-8000-000000000001";
    /** One call in a shell of its own, which is killed after the helper's last step. */
    const append = (content: string, call: string) =>
      sh(
        again,
        `bash -c '. /opt/sandbox-mcp/files.sh; sbx_put /workspace/log append ${call} <<<"$0"; kill -9 $$' ${content} || true`,
      );
    await sh(again, "echo zero >log");
    expect(await append("one", id)).toBe("written 9\n");
    expect(await append("one", id)).toBe("written 9\n");
    expect(await append("one", id.replace("1e", "2e"))).toBe("written 13\n");
    expect(await sh(again, "cat log; ls -A")).toBe("zero\none\none\nlog\n");
    await owner.call("destroy_sandbox", { sandbox: again });
  });

  it("with its shell is done again, once", async () => {
    const killed = "write-killed-shell";
    const killer = owner.call("run_command", {
      sandbox: killed,
      command:
        'exec python3 -c \'import os,time,subprocess\nfor i in range(8):\n  time.sleep(0.4); subprocess.run(["pkill","-9","-x","bash"])\'',
      session: "killer",
    });
    const sizeOf = async (path: string) => {
      for (;;) {
        const { structured } = await owner.call("list_files", { sandbox: killed });
        const { entries } = structured as { entries?: { path: string; size: number }[] };
        if (entries) return entries.find((entry) => entry.path === path)?.size;
      }
    };
    let size = 0;
    await owner.call("write_file", { sandbox: killed, path: "appended", content: "" });
    for (let n = 0; n < 12; n++) {
      const content = String.fromCharCode(97 + n).repeat(n % 2 ? 10_000 : 1_000_000);
      const result = await owner.call("write_file", {
        sandbox: killed,
        path: "appended",
        content,
        append: true,
      });
      // Killed again at each attempt it is an error, and may have come to its end all the same.
      const now = result.isError ? await sizeOf("appended") : result.structured.size;
      expect(result.isError ? [size, size + content.length] : [size + content.length]).toContain(now);
      size = Number(now);
      const whole = await owner.call("write_file", { sandbox: killed, path: "whole", content });
      expect(whole.text).not.toContain("Internal error");
    }
    await killer;
    expect(Number(await sh(killed, "stat -c %s appended"))).toBe(size);
    expect(await sh(killed, "ls -A")).toBe("appended\nwhole\n");
  });
});
