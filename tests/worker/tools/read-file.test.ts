import { beforeAll, describe, expect, it } from "vitest";
import { encode, owner, sh } from "../support.ts";

const sandbox = "read";

const read = (path: string, more: Record<string, unknown> = {}) =>
  owner.call("read_file", { sandbox, path, ...more });
const write = (path: string, content: string, encoding = "utf-8") =>
  owner.call("write_file", { sandbox, path, content, encoding });
const numbered = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, n) => `line ${first + n}\n`).join("");

beforeAll(() =>
  sh(sandbox, "seq -f 'line %.0f' 5000 >lines; printf 'a\\nb' >unended; : >empty; mkdir -p dir; mkfifo fifo"),
);

describe("read_file", () => {
  it("returns a text unchanged, and says if some lines end with CRLF", async () => {
    const content = "žluť 🐎\r\n\ttab\n\n\ufeff\n";
    await write("text", content);
    const text = `\`\`\`\n${content}\`\`\`\n[Some lines end with \\r\\n.]`;
    expect(await read("text")).toMatchObject({ isError: false, content: [{ type: "text", text }] });
    expect((await read("/workspace/dir/../text")).structured.content).toBe(content);
  });

  it("returns pages of lines and names the next offset", async () => {
    const first = await read("lines");
    expect(first.structured.content).toBe(numbered(1, 2000));
    expect(first.text).toContain(
      `[5000 lines, ${numbered(1, 5000).length} bytes; shown up to line 2000. Go on with offset 2001.]`,
    );
    const middle = await read("lines", { offset: 2001, limit: 3 });
    expect(middle.structured.content).toBe(numbered(2001, 2003));
    expect(middle.text).toContain("Go on with offset 2004.");
    const last = await read("lines", { offset: 4999 });
    expect(last.structured.content).toBe(numbered(4999, 5000));
    expect(last.text).toContain("this is the end");
    expect((await read("lines", { offset: 5001 })).text).toContain("there is no line 5001");
  });

  it("recognizes the end of a file without a last line break", async () => {
    expect((await read("unended")).text).toBe(
      "```\na\nb\n```\n[/workspace/unended: Its last line has no line break.]",
    );
  });

  it("reports an offset behind the end, and uses the singular for one line", async () => {
    await write("single", "a");
    expect((await read("single", { offset: 2 })).text).toBe(
      "[/workspace/single has 1 line, 1 byte: there is no line 2.]",
    );
    for (const offset of [1, 50])
      expect((await read("single", { offset, encoding: "base64" })).text).toBe(
        `[/workspace/single has 1 byte: there is no byte ${offset}.]`,
      );
  });

  it("reports an empty file", async () => {
    expect((await read("empty")).text).toBe("[/workspace/empty is empty.]");
    expect((await read("empty", { encoding: "base64" })).text).toContain("has 0 bytes");
  });

  it("cuts a text at 32 KiB, between two characters, and does not cut a file of exactly that size", async () => {
    for (const [size, cut] of [
      [32_767, false],
      [32_768, false],
      [32_769, true],
    ] as const) {
      await write("exact", "x".repeat(size));
      const { text } = await read("exact");
      expect(text.includes("To read its rest")).toBe(cut);
    }
    await write("horses", `${"ab\n".repeat(10)}${"🐎".repeat(20_000)}\nend\n`);
    const { text } = await read("horses");
    expect(text).not.toContain("\ufffd");
    expect(text).toContain("line 11, which is cut. Go on with offset 11.");
    const long = await read("horses", { offset: 11 });
    expect(long.text).toContain(
      "Line 11 is longer than 32768 bytes. To read its rest: encoding base64, with offset in bytes (the first byte is 0).",
    );
    expect((await read("horses", { offset: 12 })).structured.content).toBe("end\n");
  });

  it("describes a file that is not text, and returns its bytes on request", async () => {
    await write("binary", "AP8B/g==", "base64");
    expect(await read("binary")).toMatchObject({
      isError: false,
      text: expect.stringContaining(
        [
          "[/workspace/binary is not UTF-8 text: 4 bytes, unknown type. file_link gives the user a URL. To read the file's bytes: read_file with encoding base64, 49152 at a time (offset counts bytes). All of it:]",
          "00000000: 00ff 01fe                                ....",
          "[Download /workspace/binary (",
        ].join("\n"),
      ),
    });
    const { content } = await read("binary", { encoding: "base64" });
    expect(content[0]?.text).toBe("AP8B/g==");
    expect(content[1]?.text).toBe("[/workspace/binary has 4 bytes; bytes 0 to 4 in base64.]");
    expect((await read("binary", { encoding: "base64", offset: 1, limit: 2 })).content[0]?.text).toBe("/wE=");
    expect((await read("binary", { encoding: "base64", offset: 1 })).structured).toEqual({
      path: "/workspace/binary",
      size: 4,
      offset: 1,
      content: "/wH+",
    });
    expect(await read("binary", { encoding: "utf-8" })).toMatchObject({
      isError: true,
      text: "/workspace/binary is not UTF-8 text. Read it with encoding base64, or leave encoding out.",
    });
  });

  it("returns text with NUL when encoding is utf-8, and says so otherwise", async () => {
    await write("nul", "a\0b\nc\0\n");
    expect((await read("nul")).text).toContain(
      "/workspace/nul has NUL bytes: 7 bytes, unknown type. To read it as text: read_file with encoding utf-8.",
    );
    expect((await read("nul", { offset: 2 })).text).toContain("Read it with encoding utf-8");
    expect((await read("nul", { encoding: "utf-8" })).structured.content).toBe("a\0b\nc\0\n");
    expect((await read("nul", { encoding: "utf-8", offset: 2 })).structured.content).toBe("c\0\n");
  });

  it("names the type of a binary file, but neither parses nor decompresses it", async () => {
    await sh(
      sandbox,
      [
        "mkdir types && pushd types && printf 'PK\\003\\004\\377' >broken.zip && head -c 100 /dev/urandom | gzip >a.gz",
        `python3 -c "import io, sqlite3, tarfile, wave, zipfile
sqlite3.connect('a.sqlite').execute('create table a (b)')
tarfile.open('a.tar', 'w').addfile(tarfile.TarInfo('b'))
zipfile.ZipFile('a.xlsx', 'w').writestr('[Content_Types].xml', b'\\xff')
zipfile.ZipFile('a.epub', 'w').writestr('mimetype', 'application/epub+zip')
sound = wave.open('a.wav', 'wb'); sound.setparams((1, 1, 8000, 0, 'NONE', '')); sound.writeframes(b'\\xff' * 9)"`,
        "printf '\\377' | tee -a a.sqlite >>a.tar",
        "printf '\\0\\0\\0\\030ftypmif1\\377' >a.heif; printf '\\377\\363\\0' >a.mp3; popd",
      ].join("\n"),
    );
    const typeOf = async (name: string) =>
      /not UTF-8 text: \d+ bytes, (.*?)\. file_link/.exec((await read(`types/${name}`)).text)?.[1];
    const types = {
      "broken.zip": "application/zip (zip)",
      "a.gz": "application/gzip (gz)",
      "a.sqlite": "application/vnd.sqlite3 (sqlite)",
      "a.tar": "application/x-tar (tar)",
      "a.xlsx": "Office Open XML (docx, xlsx or pptx)",
      "a.epub": "application/epub+zip (epub)",
      "a.wav": "audio/wav (wav)",
      "a.heif": "ISO media (mp4, m4v, 3gp, heif or cr3)",
      "a.mp3": "audio/mpeg (mp3)",
    };
    for (const [name, type] of Object.entries(types))
      expect([name, await typeOf(name)]).toEqual([name, type]);
  });

  it("returns only the type and first bytes of a large binary file, and its content in pieces of 48 KiB on request", async () => {
    await sh(sandbox, "{ printf '\\037\\213\\010\\000'; head -c 400000 /dev/zero; } >large.gz");
    const { text } = await read("large.gz");
    expect(text.length).toBeLessThan(1500);
    expect(text).toMatch(/400004 bytes, application\/gzip.*encoding base64[^]*1f8b 0800/);
    let offset = 0;
    const parts: Uint8Array[] = [];
    for (let calls = 0; calls < 9; calls++) {
      const { content } = await read("large.gz", { encoding: "base64", offset });
      parts.push(Uint8Array.fromBase64(content[0]?.text ?? ""));
      offset += parts.at(-1)?.length ?? 0;
      const note = content[1]?.text ?? "";
      expect(note.includes(`Go on with encoding base64 and offset ${offset}.`)).toBe(offset < 400_004);
    }
    expect(parts.map(({ length }) => length)).toEqual([...Array.from({ length: 8 }, () => 49_152), 6788]);
    expect((await read("large.gz", { encoding: "base64", limit: 400_000 })).content[0]?.text).toHaveLength(
      (49_152 / 3) * 4,
    );
  });

  it("refuses the binary rest of a file that begins with text, and names base64", async () => {
    await sh(sandbox, "{ seq 3000; printf '\\377\\376\\n'; } >late");
    expect((await read("late")).structured.content).toBe(
      Array.from({ length: 2000 }, (_, n) => `${n + 1}\n`).join(""),
    );
    expect(await read("late", { offset: 2001 })).toMatchObject({
      isError: true,
      text: expect.stringMatching(/from line 2001 on.*encoding base64/),
    });
  });

  it("refuses an image that is too large, and returns a text that is named like an image", async () => {
    await sh(sandbox, "{ base64 -d <<<'iVBORw0KGgo='; head -c 9000000 /dev/urandom; } >large.png");
    expect(await read("large.png")).toMatchObject({
      isError: true,
      text: expect.stringContaining("at most 8388608 can be shown"),
    });
    expect((await read("large.png", { encoding: "base64", limit: 8 })).content[0]?.text).toBe("iVBORw0KGgo=");
    await write("not-an-image.png", "just text");
    expect((await read("not-an-image.png")).structured.content).toBe("just text");
  });

  it.each([
    ["missing", "There is no /workspace/missing. Use list_files."],
    [
      "dir/no/such/file",
      "There is no /workspace/dir/no/such/file. Use list_files with path /workspace/dir, the nearest directory that exists.",
    ],
    [
      "/no/such/file",
      "There is no /no/such/file. Use list_files with path /, the nearest directory that exists.",
    ],
    ["dir", "/workspace/dir is a directory. list_files shows its files."],
    ["fifo", "/workspace/fifo is a device, socket or pipe, not a file. Use run_command."],
    ["/dev/zero", "/dev/zero is a device, socket or pipe, not a file. Use run_command."],
    [
      "lines/below",
      "There is no /workspace/lines/below. Use list_files with path /workspace, the nearest directory that exists.",
    ],
  ])("refuses %s with a readable error", async (path, words) => {
    expect(await read(path)).toMatchObject({ isError: true, text: words });
  });

  it("reads through links", async () => {
    await sh(sandbox, "ln -sf text link; ln -sf nowhere dangling");
    expect((await read("link")).text).toContain("žluť");
    expect((await read("dangling")).text).toContain("There is no /workspace/dangling");
  });

  it("reads files that the system generates", async () => {
    expect((await read("/proc/self/comm")).isError).toBe(false);
    expect((await read("/etc/passwd")).text).toContain("root");
  });
});

/** sandboxd reads files of up to 64 KiB synchronously, and larger ones asynchronously. Both ways must return the same texts. */
describe.each([
  ["short", ""],
  ["long", `${"p".repeat(70 * 1024)}\n`],
])("a range of a %s file", (_size, before) => {
  const first = before === "" ? 1 : 2;

  it.each([
    ["all of it", "a\nb\nc\n", 0, 10, "a\nb\nc\n"],
    ["the first line", "a\nb\nc\n", 0, 1, "a\n"],
    ["a line in the middle", "a\nb\nc\n", 1, 1, "b\n"],
    ["a last line without a line break", "a\nb\nc", 2, 5, "c"],
    ["empty lines", "\n\nx\n\n", 1, 3, "\nx\n\n"],
    ["characters of several bytes", "ä€\n𝄞\n", 1, 1, "𝄞\n"],
  ])("contains exactly %s", async (_what, content, offset, limit, expected) => {
    await write("range", before + content);
    const result = await read("range", { offset: first + offset, limit });
    expect(result.structured.content).toBe(expected);
    const lines = content.split("\n").length - (content.endsWith("\n") ? 1 : 0);
    const shown = expected.split("\n").length - (expected.endsWith("\n") ? 1 : 0);
    const goesOn = offset + shown < lines;
    expect(result.text.includes(`${lines + first - 1} lines`)).toBe(goesOn || offset + first > 1);
    expect(result.text.includes(`Go on with offset ${first + offset + shown}.`)).toBe(goesOn);
  });

  it("behind the end is an error with the number of lines, and it can be a range of bytes", async () => {
    await write("range", `${before}a\nb`);
    const past = await read("range", { offset: first + 2 });
    expect(past.text).toContain(`has ${first + 1} lines`);
    expect(past.text).toContain(`there is no line ${first + 2}`);
    await write("range", `${before}0123456789`);
    const offset = before.length + 3;
    const { text } = await read("range", { offset, limit: 4, encoding: "base64" });
    expect(text.startsWith(btoa("3456"))).toBe(true);
    expect(text).toContain(`bytes ${offset} to ${offset + 4}`);
  });
});

it("a text is read unchanged, by lines and by bytes, whatever its characters and its length", async () => {
  for (const content of [
    "\n",
    "a..\n.\n\n\n",
    "\ufeffa\n",
    "a\r\nb\rc\u2028d\u0085e\f",
    "\x01\x1b[31m\x7f\\n%s$(true)`true`'\"\n",
    "a\ufffdb\n",
    "aä€𝄞".repeat(1000),
    "x".repeat(32_768),
    "x".repeat(32_769),
    `${"x".repeat(32_767)}ä`,
  ]) {
    const base64 = encode(content).toBase64();
    await write("exact", base64, "base64");
    expect((await read("exact", { encoding: "base64" })).text.split("\n")[0]).toBe(base64);
    const { structured, text } = await read("exact");
    expect(structured.content).toBe(content.slice(0, 32_768).replace(/(?<=^x{32767})ä$/, ""));
    expect(text).toContain(String(structured.content));
  }
});

it("a file that is not UTF-8 is described, and its bytes are read unchanged", async () => {
  for (const content of [
    [0xff, 0xfe, 0x41, 0x0a],
    [0xed, 0xa0, 0x80],
  ]) {
    const bytes = Uint8Array.from(content);
    await write("no-text", bytes.toBase64(), "base64");
    const { text } = await read("no-text");
    expect(text).toContain(`not UTF-8 text: ${bytes.length} bytes`);
    expect(text).toContain(bytes.subarray(0, 2).toHex());
    expect((await read("no-text", { encoding: "base64" })).text.split("\n")[0]).toBe(bytes.toBase64());
  }
});
