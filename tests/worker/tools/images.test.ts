/** The server does not show images that would end a chat, from a file or a result of code. */
import { describe, expect, it } from "vitest";
import { owner, sh } from "../support.ts";

const sandbox = "images";

/** Complete images of 3 x 2 pixels, and an interlaced image of 9 x 9. */
const WHOLE: Record<string, [mimeType: string, base64: string]> = {
  png: [
    "image/png",
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAIAAAASFvFNAAAACXBIWXMAAAPoAAAD6AG1e1JrAAAAEklEQVQImWP4z8AAQVDqPwMDAEHSBfsYFwTiAAAAAElFTkSuQmCC",
  ],
  "interlaced png": [
    "image/png",
    "iVBORw0KGgoAAAANSUhEUgAAAAkAAAAJCAYAAAGXljaGAAAACXBIWXMAAAPoAAAD6AG1e1JrAAAAJUlEQVQYlWP4z8DwH4QZUBgIArv8f6wMrOr/4xOkiQDRzqGdIgA58KFfVIVVDQAAAABJRU5ErkJggg==",
  ],
  "png with a palette": [
    "image/png",
    "iVBORw0KGgoAAAANSUhEUgAAAAMAAAACCAMAAACqqpYoAAAAA1BMVEX/AAAZ4gk3AAAACXBIWXMAAAPoAAAD6AG1e1JrAAAAC0lEQVQImWNggAAAAAgAAa9T6iIAAAAASUVORK5CYII=",
  ],
  jpeg: [
    "image/jpeg",
    "/9j/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////////////////////////////////////2wBDAVVaWnhpeOuCguv/////////////////////////////////////////////////////////////////////////wAARCAACAAMDASIAAhEBAxEB/8QAFQABAQAAAAAAAAAAAAAAAAAAAAP/xAAUEAEAAAAAAAAAAAAAAAAAAAAA/8QAFQEBAQAAAAAAAAAAAAAAAAAAAwT/xAAUEQEAAAAAAAAAAAAAAAAAAAAA/9oADAMBAAIRAxEAPwCQA1j/2Q==",
  ],
  gif: ["image/gif", "R0lGODlhAwACAIAAAExpcf8AACH5BAUAAAAALAAAAAADAAIAAAICjF8AOw=="],
  webp: ["image/webp", "UklGRjQAAABXRUJQVlA4ICgAAACQAQCdASoDAAIAB0CWJaACdLoAA5gA/uUK+Cepco/+N48CvJdjoAAA"],
  "lossless webp": ["image/webp", "UklGRhwAAABXRUJQVlA4TA8AAAAvAkAAAAcQ/Y/+ByKi/wEA"],
  "webp with transparency": [
    "image/webp",
    "UklGRkYAAABXRUJQVlA4WAoAAAAQAAAAAgAAAQAAQUxQSAcAAAAAgICAgICAAFZQOCAYAAAAMAEAnQEqAwACAAdAliWkAANwAP7vlkAA",
  ],
};

const EACH = Object.entries(WHOLE).map(([name, [mimeType, base64]]) => ({ name, mimeType, base64 }));

const typeName = (mimeType: string) => mimeType.replace("image/", "").toUpperCase();

const write = (path: string, bytes: Uint8Array) =>
  owner.call("write_file", { sandbox, path, content: bytes.toBase64(), encoding: "base64" });
const read = (path: string) => owner.call("read_file", { sandbox, path });

async function png(width: number, height: number, data = "zlib.compress(rows)"): Promise<Uint8Array> {
  const code = `
import struct, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = (b"\\0" * (1 + (${width} + 7) // 8)) * ${height}
head = struct.pack(">IIBBBBB", ${width}, ${height}, 1, 0, 0, 0, 0)
open("made.png", "wb").write(b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", head) + chunk(b"IDAT", ${data}) + chunk(b"IEND", b""))`;
  await owner.call("run_code", { sandbox, code });
  return Uint8Array.fromBase64((await sh(sandbox, "base64 -w0 made.png")).trim());
}

/** Shows bytes as a result of code that declares them a PNG. */
const showAsPNG = (base64: string) =>
  owner.call("run_code", {
    sandbox,
    code: `import base64
class Shown:
    def _repr_png_(self): return base64.b64decode("${base64}")
Shown()`,
  });

describe("a complete image", () => {
  it.each(EACH)("is shown: $name", async ({ name, mimeType, base64 }) => {
    await write("whole", Uint8Array.fromBase64(base64));
    const size = name.startsWith("interlaced") ? "9 x 9" : "3 x 2";
    expect(await read("whole")).toMatchObject({
      isError: false,
      content: [
        { type: "text", text: `[/workspace/whole: ${size} pixels, ${typeName(mimeType)}.]` },
        { type: "image", data: base64, mimeType },
      ],
    });
  });

  it("is recognized by its content, not by the type that the code declares", async () => {
    const [mimeType = "", data = ""] = WHOLE.jpeg ?? [];
    const { content, text } = await showAsPNG(data);
    expect(content.slice(1)).toEqual([{ type: "image", data, mimeType }]);
    expect(text).toMatch(/^3 x 2 pixels, JPEG\. Its file is /m);
  });

  it("is shown unchanged with 8,000 pixels on a side", async () => {
    const bytes = await png(8000, 1);
    await write("wide.png", bytes);
    expect((await read("wide.png")).content).toEqual([
      { type: "text", text: "[/workspace/wide.png: 8000 x 1 pixels, PNG.]" },
      { type: "image", data: bytes.toBase64(), mimeType: "image/png" },
    ]);
  });
});

describe("an image that is corrupt", () => {
  it.each(EACH)("is not shown if it is cut off: $name", async ({ base64 }) => {
    const bytes = Uint8Array.fromBase64(base64);
    for (const part of [0.4, 0.7, 0.95]) {
      const cut = bytes.subarray(0, Math.floor(bytes.length * part));
      await write("cut", cut);
      const file = await read("cut");
      expect(file.content.map(({ type }) => type)).toEqual(["text"]);
      expect(file.text).toMatch(/is corrupt \(image\/\w+: .*\)\. .*encoding base64/);
    }
    const result = await showAsPNG(bytes.subarray(0, bytes.length - 3).toBase64());
    expect(result.content.map(({ type }) => type)).toEqual(["text"]);
    expect(result).toMatchObject({ isError: false, text: expect.stringContaining("is corrupt") });
  });

  it.each([
    "b'no zlib stream'",
    "zlib.compress(rows)[:-9]",
    "zlib.compress(rows[:-1])",
    "zlib.compress(rows * 9)",
  ])("is not shown with correct checksums if its data are %s", async (data) => {
    await png(30, 40, data);
    expect(await read("made.png")).toMatchObject({
      isError: true,
      text: expect.stringMatching(/is corrupt \(image\/png: .* pixels/),
    });
  });

  it("is not shown with a wrong checksum or without pixels", async () => {
    const bytes = Uint8Array.fromBase64(WHOLE.png?.[1] ?? "");
    for (const at of [20, 60, 80, bytes.length - 2]) {
      const damaged = bytes.slice();
      damaged[at] = (damaged[at] ?? 0) ^ 0x10;
      await write("damaged.png", damaged);
      expect(await read("damaged.png")).toMatchObject({
        isError: true,
        text: expect.stringContaining("corrupt"),
      });
    }
    const code = `
data = open("made.png", "rb").read()
at = data.index(b"IDAT")
size = struct.unpack(">I", data[at - 4:at])[0]
open("none.png", "wb").write(data[:at - 4] + chunk(b"IDAT", b"") + data[at + size + 8:])`;
    await png(16, 16);
    await owner.call("run_code", { sandbox, code });
    expect(await read("none.png")).toMatchObject({
      isError: true,
      text: expect.stringContaining("is corrupt"),
    });
  });

  it("is not shown if its bytes are not an image", async () => {
    const { content, text } = await showAsPNG(btoa("just text"));
    expect(content.map(({ type }) => type)).toEqual(["text"]);
    expect(text).toContain("is not a PNG, JPEG, GIF or WebP");
  });
});

/** Images with a number of empty chunks, segments or blocks, by their names: Python code that writes them to `made`. */
const IN_PARTS: [name: string, parts: number, code: string][] = [
  ["png", 5000, "image[:33] + chunk(b'tEXt') * parts + image[33:]"],
  ["jpeg", 4900, "image[:2] + b'\\xff\\xfe\\x00\\x02' * parts + image[2:]"],
  [
    "webp",
    5000,
    "image[:4] + struct.pack('<I', len(image) - 8 + 8 * parts) + image[8:] + (b'none' + bytes(4)) * parts",
  ],
  ["gif", 125_000, "image[:-1] + b'\\x21\\xfe\\x01\\x00\\x00' * parts + image[-1:]"],
];

it.each(IN_PARTS)(
  "%s: an image of more than %d chunks, segments or blocks is not shown, because to read it takes long",
  async (name, parts, code) => {
    const [mimeType = "", base64 = ""] = WHOLE[name] ?? [];
    const make = async (count: number) => {
      const program = `
import base64, struct, zlib
def chunk(kind): return struct.pack(">I", 0) + kind + struct.pack(">I", zlib.crc32(kind))
image, parts = base64.b64decode("${base64}"), ${count}
open("made", "wb").write(${code})`;
      expect(await owner.call("run_code", { sandbox, code: program })).toMatchObject({ isError: false });
      return read("made");
    };
    expect((await make(parts - 100)).content.at(-1)).toMatchObject({ type: "image", mimeType });
    expect((await make(parts)).text).toContain("it has too many parts");
  },
);

it("images that are too large are replaced in a result by one line with the size and the limit, and others are shown", async () => {
  const code = `
import base64
from IPython.display import display
class Image:
    def __init__(self, data): self.data = data
    def _repr_png_(self): return self.data
large = Image(b"\\x89PNG\\r\\n\\x1a\\n" + bytes(8_999_992))
for _ in range(3): display(large)
display(Image(base64.b64decode("${WHOLE.png?.[1]}")))`;
  const { content, text, structured } = await owner.call("run_code", { sandbox, code });
  expect(content.map(({ type }) => type)).toEqual(["text", "image"]);
  expect(text).not.toMatch(/^result/m);
  expect(text.match(/An image is left out/g)).toHaveLength(1);
  expect(text).toMatch(
    /^left_out:\n```\nAn image is left out: it has 9000000 bytes; at most 6291456 can be shown\..* \(3 times\)\n```$/m,
  );
  expect(structured.left_out).toContain("(3 times)");
});

it("an image of code is a file with a link, and is in the data too, for clients that show no images", async () => {
  const [mimeType = "", data = ""] = WHOLE.png ?? [];
  const { text, structured } = await showAsPNG(data);
  const [, path = ""] =
    /^3 x 2 pixels, PNG\. Its file is (\/workspace\/\.outputs\/\S+\.png)\.$/m.exec(text) ?? [];
  expect(text).toContain(`[Download ${path} `);
  expect(structured.images).toEqual([{ mime_type: mimeType, data, path }]);
  expect((await sh(sandbox, `base64 -w0 ${path}`)).trim()).toBe(data);
});

describe("?images=", () => {
  const off = owner.withQuery("?images=off");

  it("with off replaces each image with a line that says how to get the image", async () => {
    await write("off.png", Uint8Array.fromBase64(WHOLE.png?.[1] ?? ""));
    const file = await off.call("read_file", { sandbox, path: "off.png" });
    expect(file.content.map(({ type }) => type)).toEqual(["text"]);
    expect(file.text).toMatch(
      /^\[\/workspace\/off\.png: 3 x 2 pixels, PNG, \d+ bytes\. .*\?images=off.*file_link/,
    );
    const code = 'from IPython.display import Image, display\ndisplay(Image("off.png"))';
    const { content, text, structured } = await off.call("run_code", { sandbox, code });
    expect(content.map(({ type }) => type)).toEqual(["text"]);
    expect(text).toMatch(/3 x 2 pixels, PNG\. Its file is \S+\.png\..*\?images=off.*file_link/s);
    expect(structured.images).toEqual([{ mime_type: "image/png", path: expect.any(String) }]);
  });

  it("with on changes nothing, and other values are refused", async () => {
    const { content } = await owner.withQuery("?images=on").call("read_file", { sandbox, path: "off.png" });
    expect(content.map(({ type }) => type)).toEqual(["text", "image"]);
    const { status, messages } = await owner.withQuery("?images=none").post({ method: "tools/list" });
    expect([status, JSON.stringify(messages)]).toEqual([
      400,
      expect.stringContaining("images must be on or off"),
    ]);
  });
});
