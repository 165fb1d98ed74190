import { describe, expect, it } from "vitest";
import { owner, sh } from "../support.ts";

const sandbox = "edit";
interface Edit {
  old_text: string;
  new_text: string;
  all?: boolean;
}

const write = (path: string, content: string) => owner.call("write_file", { sandbox, path, content });
const edit = (path: string, ...edits: Edit[]) => owner.call("edit_file", { sandbox, path, edits });
const read = async (path: string) => (await owner.call("read_file", { sandbox, path })).structured.content;

describe("edit_file", () => {
  it.each<[string, Edit, string]>([
    ["one line by several", { old_text: "two", new_text: "2\n2b" }, "one\r\n2\r\n2b\r\nthree\r\n"],
    ["several lines", { old_text: "one\ntwo\n", new_text: "1\n2\r\n" }, "1\r\n2\r\nthree\r\n"],
    ["a break and one line", { old_text: "\ntwo", new_text: "\n2\n2b" }, "one\r\n2\r\n2b\r\nthree\r\n"],
    ["\\r\\n exactly", { old_text: "\r\n", new_text: "\n", all: true }, "one\ntwo\nthree\n"],
  ])("keeps the CRLF of a file when it replaces %s", async (_, change, expected) => {
    await write("crlf.txt", "one\r\ntwo\r\nthree\r\n");
    expect((await owner.call("read_file", { sandbox, path: "crlf.txt" })).text).toContain(
      "[Lines end with \\r\\n. edit_file keeps that.]",
    );
    expect((await edit("crlf.txt", change)).isError).toBe(false);
    expect(await read("crlf.txt")).toBe(expected);
  });

  it("reports that old_text differs from the file only in its line breaks", async () => {
    await write("mixed.txt", "zero\none\r\ntwo\r\n");
    const mixed = await edit("mixed.txt", { old_text: "one\ntwo", new_text: "x" });
    expect(mixed.text).toContain("lines end with \\r\\n");
    await write("lf.txt", "one\ntwo\n");
    const lf = await edit("lf.txt", { old_text: "one\r\ntwo", new_text: "x" });
    expect(lf.text).toContain("lines end with \\n");
  });

  it("creates no directory for a missing file", async () => {
    const result = await edit("no/such/file.txt", { old_text: "a", new_text: "b" });
    expect([result.isError, result.text]).toEqual([true, expect.stringContaining("no/such/file.txt")]);
    expect(await sh(sandbox, "[ -e no ] && echo made; true")).toBe("");
  });

  it("refuses half of a surrogate pair, and keeps the file", async () => {
    await write("whole.txt", "same");
    expect(await edit("whole.txt", { old_text: "same", new_text: "a\ud83d" })).toMatchObject({
      isError: true,
      text: expect.stringContaining("must not contain half of a surrogate pair"),
    });
    expect(await edit("whole.txt", { old_text: "same", new_text: "other" })).toMatchObject({
      isError: false,
    });
    await write("whole.txt", "😀");
    expect((await edit("whole.txt", { old_text: "\ud83d", new_text: "a" })).isError).toBe(true);
    expect(await read("whole.txt")).toBe("😀");
  });

  it("refuses an edit that changes nothing", async () => {
    await write("same.txt", "same\n");
    const result = await edit(
      "same.txt",
      { old_text: "sa", new_text: "s" },
      { old_text: "me", new_text: "me" },
    );
    expect([result.isError, result.text]).toEqual([true, expect.stringContaining("edit 2")]);
    expect(await read("same.txt")).toBe("same\n");
  });

  it("replaces exact text and returns the diff", async () => {
    await write("code.ts", "const a = 1;\nconst b = 2;\nconst c = 3;\n");
    const result = await edit("code.ts", { old_text: "b = 2", new_text: "b = $& $1 \\n" });
    expect(result).toMatchObject({
      isError: false,
      structured: { path: "/workspace/code.ts", replaced: 1, size: 46 },
    });
    expect(result.text).toBe(
      [
        "1 replaced; /workspace/code.ts has 46 bytes.",
        "```",
        "--- /workspace/code.ts",
        "+++ /workspace/code.ts",
        "@@ -1,3 +1,3 @@",
        " const a = 1;",
        "-const b = 2;",
        "+const b = $& $1 \\n;",
        " const c = 3;",
        "```",
      ].join("\n"),
    );
    expect(await read("code.ts")).toBe("const a = 1;\nconst b = $& $1 \\n;\nconst c = 3;\n");
  });

  it("applies edits in order, each to the result of the previous one", async () => {
    await write("order", "one two two\n");
    const result = await edit(
      "order",
      { old_text: "one", new_text: "two" },
      { old_text: "two", new_text: "3", all: true },
    );
    expect(result.structured).toMatchObject({ replaced: 4 });
    expect(await read("order")).toBe("3 3 3\n");
  });

  it("makes all edits or none, and names the missing text and the nearest text", async () => {
    const content = "def f():\n    return 1\n\ndef g():\n    return 2\n";
    await write("all.py", content);
    const result = await edit(
      "all.py",
      { old_text: "return 1", new_text: "return 9" },
      { old_text: "def g():\n  return 2\n", new_text: "x" },
    );
    expect(result).toMatchObject({
      isError: true,
      text: 'Nothing was written: old_text of edit 2 is not in the file. The most similar line is 5: "    return 2". Copy the text exactly: read_file with offset 1.',
    });
    const other = await edit("all.py", { old_text: "  retrun 2", new_text: "x" });
    expect(other.text).toContain('edit 1 is not in the file. The most similar line is 5: "    return 2"');
    expect(await read("all.py")).toBe(content);
    for (const pad of ["", "x"]) {
      await write("emoji", pad + "😀".repeat(1000));
      const { text } = await edit("emoji", { old_text: `${pad}😀`.repeat(2) + "y", new_text: "z" });
      expect(/line is 1: "x?(?:😀)+"/u.test(text)).toBe(true);
    }
  });

  it("names the lines of a text that occurs more than once", async () => {
    await write("twice", "x\ny\nx\n".repeat(11));
    const result = await edit("twice", { old_text: "x\ny", new_text: "z" });
    expect(result.text).toContain(
      "edit 1 is in the file 11 times, on lines 1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31.",
    );
    const repeated = await edit("twice", { old_text: "x", new_text: "z" });
    expect(repeated.text).toMatch(/is in the file 22 times, on lines 1, 3, 4, .* and more\./);
  });

  it("keeps the mode, byte order mark and line ends, and edits the target of a link", async () => {
    await write("real", "\ufeffa\r\nb\r\n");
    await sh(sandbox, "chmod 750 real; ln -sf real link");
    await edit("link", { old_text: "a\r\n", new_text: "c\r\n" });
    expect(
      await sh(sandbox, "xxd -p real; stat -c %a real; readlink link; ls -A | grep sandbox-mcp || true"),
    ).toBe("efbbbf630d0a620d0a\n750\nreal\n");
  });

  it("cuts a long diff at the end of a line, and marks the cut", async () => {
    await sh(sandbox, "seq 700 | sed 's/^/value of a longer line /' > long-diff");
    const { structured } = await edit("long-diff", { old_text: "value", new_text: "number", all: true });
    const diff = String(structured.diff);
    expect(diff.length).toBeLessThanOrEqual(32 * 1024);
    const lines = diff.trimEnd().split("\n");
    expect(lines.pop()).toBe("\\ The diff continues: it is too long to be shown whole.");
    expect(lines.pop()).toMatch(/^\+number of a longer line \d+$/);
  });

  it("refuses a file that would become too large", async () => {
    await sh(sandbox, "head -c 1000000 /dev/zero | tr '\\0' a > grows");
    const { text } = await edit("grows", { old_text: "a", new_text: "b".repeat(30), all: true });
    expect(text).toContain("the file is too large");
    expect(await sh(sandbox, "stat -c %s grows")).toBe("1000000\n");
  });

  it("makes all of several simultaneous edits of one file", async () => {
    const names = Array.from({ length: 20 }, (_, n) => `name-${n};`);
    await write("at-once", names.join("\n"));
    const results = await Promise.all(
      names.map((name) => edit("at-once", { old_text: name, new_text: `${name} done` })),
    );
    expect(results.every(({ isError }) => !isError)).toBe(true);
    expect(await read("at-once")).toBe(names.map((name) => `${name} done`).join("\n"));
  });

  it.each([
    ["missing", "There is no /workspace/missing."],
    ["/tmp", "/tmp is a directory"],
    ["/dev/null", "is a device, socket or pipe"],
    ["binary", "is not UTF-8 text"],
  ])("refuses %s with a readable error", async (path, words) => {
    await sh(sandbox, "printf '\\377a' >binary");
    expect(await edit(path, { old_text: "a", new_text: "b" })).toMatchObject({
      isError: true,
      text: expect.stringContaining(words),
    });
    expect(await sh(sandbox, "ls -d missing 2>&1 || true")).toContain("No such file");
  });
});
