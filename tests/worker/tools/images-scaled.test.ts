/** Images that are too large: PIL in the sandbox creates them, and reads the images that the server shows. */
import { beforeAll, describe, expect, it } from "vitest";
import { owner, sh } from "../support.ts";

const sandbox = "images-scaled";

/** Python that draws red, green, blue and yellow quarters, so that the tests notice swapped rows and columns. */
const PICTURES = String.raw`
import io, os, random, struct, zlib
from PIL import Image, ImageDraw
COLOURS = [(255, 0, 0), (0, 160, 0), (0, 0, 255), (255, 255, 0)]
def quarters(width, height, mode="RGB", colours=COLOURS):
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for index, colour in enumerate(colours):
        x, y = width // 2 * (index % 2), height // 2 * (index // 2)
        draw.rectangle((x, y, x + width // 2 + 1, y + height // 2 + 1), fill=colour)
    return image if mode == "RGB" else image.convert(mode)
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def png(width, height, bits, colour, packed):
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
def sixteen(width, height):
    rows = [b"\0" + b"".join(struct.pack(">HHH", *(257 * c for c in COLOURS[(y * 2 // height) * 2 + half])) * (width // 2) for half in (0, 1)) for y in range(height)]
    return png(width, height, 16, 2, zlib.compress(b"".join(rows), 1))
def zeros(width, height, bits=1):
    packer, row = zlib.compressobj(1), bytes(1 + (width * bits + 7) // 8)
    packed = b"".join(packer.compress(row * 1000) for _ in range(height // 1000)) + packer.compress(row * (height % 1000)) + packer.flush()
    return png(width, height, bits, 0, packed)
def inspectImage(path):
    with Image.open(path) as image:
        shown = image.convert("RGB")
        at = [shown.getpixel((int(shown.width * x), int(shown.height * y))) for y in (.25, .75) for x in (.25, .75)]
        return {"width": shown.width, "height": shown.height, "format": image.format, "colours": at}
`;

/** Calls a tool, and drops the notice that a save leaves out a huge file of these tests, which may come at any time. */
async function call(tool: string, args: object) {
  const { content, ...result } = await owner.call(tool, { sandbox, ...args });
  return { ...result, content: content.filter(({ text }) => !text?.startsWith("notice:")) };
}

const run = (code: string) => call("run_code", { code });
const read = (path: string) => call("read_file", { path });

/** Puts a program in place of the sandbox's own program that scales images. */
async function replaceScaler(program: string, where = sandbox): Promise<void> {
  const command = `site=$(python3 -c 'import site; print(site.getsitepackages()[0])'); mkdir -p $site/PIL; cat >$site/PIL/__init__.py`;
  const { isError } = await owner.call("run_command", { sandbox: where, command, stdin: program });
  expect(isError).toBe(false);
}

/** Has a program that scales images and does not end. The server waits for its time limit while the other tests run. */
const endless = "images-scaled-endless";
let endlessResult: ReturnType<typeof read>;

beforeAll(async () => {
  await sh(endless, `python3 -c 'from PIL import Image; Image.new("RGB", (1280, 960)).save("large.png")'`);
  await replaceScaler("import time; time.sleep(600)", endless);
  endlessResult = owner.call("read_file", { sandbox: endless, path: "large.png" });
  // The last test awaits this and reports the error.
  endlessResult.catch(() => undefined);
  await run(PICTURES);
});

interface Seen {
  width: number;
  height: number;
  format: string;
  colours: [number, number, number][];
}

/** The properties that PIL reads from a shown image. */
async function inspectImage(data: string | undefined): Promise<Seen> {
  await owner.call("write_file", { sandbox, path: "shown", content: data ?? "", encoding: "base64" });
  return seenIn("shown");
}

async function seenIn(path: string): Promise<Seen> {
  const { text } = await run(`import json; print(json.dumps(inspectImage("${path}")))`);
  return JSON.parse(/\{.*\}/.exec(text)?.[0] ?? text) as Seen;
}

const QUARTERS = [
  [255, 0, 0],
  [0, 160, 0],
  [0, 0, 255],
  [255, 255, 0],
];

const GREYS = [76, 94, 29, 226].map((grey) => [grey, grey, grey]);

/** Expects a shown image to respect the limits and keep the original's colours. */
async function expectShown(data: string | undefined, colours = QUARTERS, tolerance = 14): Promise<Seen> {
  const found = await inspectImage(data);
  expect(found.width * found.height).toBeLessThanOrEqual(1_150_000);
  expect(Math.max(found.width, found.height)).toBeLessThanOrEqual(8000);
  const differences = found.colours.map((colour, index) =>
    Math.max(...colour.map((value, sample) => Math.abs(value - (colours[index]?.[sample] ?? -1000)))),
  );
  expect(Math.max(...differences), JSON.stringify(found)).toBeLessThanOrEqual(tolerance);
  return found;
}

const quarters = (width: number, height: number, save: string, mode = "RGB") =>
  `quarters(${width}, ${height}, "${mode}").save("picture", ${save})`;

interface Expected {
  colours?: number[][];
  tolerance?: number;
}

/** The colours of the quarters, half transparent over white. */
const FADED = [
  [255, 127, 127],
  [127, 207, 127],
  [127, 127, 255],
  [255, 255, 127],
];
const fade = (format: string) =>
  `i = quarters(1280, 960, "RGBA"); i.putalpha(128); i.save("picture", "${format}")`;
const noise = 'Image.frombytes("RGB", (1100, 1100), os.urandom(1100 * 1100 * 3)).save("picture", "png")';
const column = 'Image.new("RGB", (1, 12000), (0, 0, 255)).save("picture", "jpeg")';
const fourTimes = (colour: number[]) => Array.from({ length: 4 }, () => colour);

/** One image for each way in which Pillow reads colours. */
const LARGE: [name: string, make: string, from: string, to: string, expected?: Expected][] = [
  ["PNG", quarters(1250, 1000, '"png"'), "1250 x 1000", "1198 x 959"],
  ["PNG of 16 bits", 'open("picture", "wb").write(sixteen(1600, 800))', "1600 x 800", "1516 x 758"],
  ["PNG with transparency", fade("png"), "1280 x 960", "1238 x 928", { colours: FADED }],
  [
    "PNG of noise",
    noise,
    "1100 x 1100",
    "1072 x 1072",
    { colours: fourTimes([127, 127, 127]), tolerance: 128 },
  ],
  ["JPEG of one column", column, "1 x 12000", "1 x 8000", { colours: fourTimes([0, 0, 255]) }],
  ["CMYK JPEG", quarters(1280, 960, '"jpeg"', "CMYK"), "1280 x 960", "1238 x 928"],
  ["grey JPEG", quarters(1280, 960, '"jpeg"', "L"), "1280 x 960", "1238 x 928", { colours: GREYS }],
  ["WebP with transparency", fade("webp"), "1280 x 960", "1238 x 928", { colours: FADED }],
];

describe("an image that is too large is scaled down:", () => {
  it.each(LARGE)("%s", async (_name, make, from, to, { colours, tolerance } = {}) => {
    expect((await run(make)).text).not.toContain("Error");
    const { content, isError } = await read("picture");
    expect(isError, content[0]?.text).toBe(false);
    expect(content.map(({ type }) => type)).toEqual(["text", "image"]);
    const { width, height, format } = await expectShown(content[1]?.data, colours, tolerance);
    expect({ size: `${width} x ${height}`, mimeType: content[1]?.mimeType }).toEqual({
      size: to,
      mimeType: `image/${format.toLowerCase()}`,
    });
    expect(content[0]?.text).toContain(
      `[/workspace/picture: ${to} pixels, ${format}; it was made smaller from ${from} pixels, `,
    );
  });

  it("a photo of a rotated camera, which the server also turns upright", async () => {
    const { text } = await run(`i = quarters(1280, 960).transpose(Image.Transpose.TRANSPOSE)
exif = Image.Exif(); exif[274] = 5
i.save("picture", "jpeg", exif=exif); print(i.width)`);
    expect(text).toContain("960");
    const { content } = await read("picture");
    const { width, height } = await expectShown(content[1]?.data);
    expect([width, height]).toEqual([1238, 928]);
  });

  it.each(["gif", "webp"])("the first frame of an animation: %s", async (format) => {
    const more = 'append_images=[Image.new("RGB", (1280, 960), "black")] * 2, save_all=True, duration=100';
    await run(quarters(1280, 960, `"${format}", ${more}`));
    const { content } = await read("picture");
    expect(content[0]?.text).toMatch(
      /1238 x 928 pixels, \w+; it shows the first of \d frames, and was made smaller from 1280 x 960 pixels/,
    );
    await expectShown(content[1]?.data, QUARTERS, 60);
  });

  it("one in a result of code, beside images that fit", async () => {
    const code = "display(quarters(100, 100))\ndisplay(quarters(1350, 900))\nquarters(900, 1350)";
    const { content, text } = await run(`from IPython.display import display\n${code}`);
    expect(content.map(({ type }) => type)).toEqual(["text", "image", "image", "image"]);
    const [, original = ""] =
      /Image 2: 1313 x 875 pixels, \w+; it was made smaller from 1350 x 900 pixels, PNG\. The original is (\S+)\.\n/.exec(
        text,
      ) ?? [];
    expect(await seenIn(original)).toMatchObject({ width: 1350, height: 900, format: "PNG" });
    expect(text).toMatch(/Image 3: .* smaller from 900 x 1350 pixels/);
    const [, unscaled = ""] = /Image 1: 100 x 100 pixels, PNG\. Its file is (\S+)\.\n/.exec(text) ?? [];
    expect(await seenIn(unscaled)).toMatchObject({ width: 100, height: 100, format: "PNG" });
    const links = text.match(/\[Download \/workspace\/\.outputs\/\S+\.png /g);
    expect(links).toHaveLength(3);
    expect(content[1]?.mimeType).toBe("image/png");
    await expectShown(content[2]?.data);
    await expectShown(content[3]?.data);
  });
});

/** Code that displays the file `picture`, an image of noise that is larger than an image in an answer. */
const NOISE: Record<string, string> = {
  python: 'from IPython.display import Image as File\nFile("picture", format="png")',
  javascript:
    "({ [Symbol.for('Jupyter.display')]: () => ({ 'image/png': require('fs').readFileSync('picture') }) })",
};

describe("a result of code with an image of megabytes, which does not pass through the server,", () => {
  beforeAll(() => run(noise));

  it.each(Object.entries(NOISE))(
    "is shown scaled, and its original is a file: %s",
    async (language, code) => {
      const { content, text } = await owner.call("run_code", { sandbox, language, code });
      expect(content.map(({ type }) => type)).toEqual(["text", "image"]);
      await expectShown(content[1]?.data, fourTimes([127, 127, 127]) as typeof QUARTERS, 128);
      expect(text).toMatch(/1072 x 1072 pixels, JPEG; it was made smaller from 1100 x 1100 pixels, PNG\./);
      const [, original = ""] = /The original is (\S+)\.\n/.exec(text) ?? [];
      expect(text).toContain(`[Download ${original} `);
      expect(await sh(sandbox, `cmp ${original} picture && echo same`)).toBe("same\n");
    },
  );

  it.each(Object.entries(NOISE))(
    "is left out with the reason if its file cannot be written: %s",
    async (language, code) => {
      await sh(sandbox, "mv .outputs outputs; touch .outputs");
      const { content, text } = await owner.call("run_code", { sandbox, language, code });
      await sh(sandbox, "rm .outputs; mv outputs .outputs");
      expect(content.map(({ type }) => type)).toEqual(["text"]);
      expect(text).toMatch(/An image is left out: it is large, and its file could not be written \(.*exist/i);
    },
  );

  it.each(Object.entries(NOISE))(
    "is shown if its file cannot be written, and the other results leave enough space: %s",
    async (language, code) => {
      await run('Image.frombytes("RGB", (600, 600), os.urandom(600 * 600 * 3)).save("medium", "png")');
      await sh(sandbox, "mv .outputs outputs; touch .outputs");
      const medium = code.replace("picture", "medium");
      const { content, text } = await owner.call("run_code", { sandbox, language, code: medium });
      await sh(sandbox, "rm .outputs; mv outputs .outputs");
      expect(content.map(({ type }) => type)).toEqual(["text", "image"]);
      expect(text).toContain(
        "it was made smaller from 600 x 600 pixels, PNG. It is not in a file: to keep it, save it",
      );
    },
  );

  it("is left out with the path of its file if it cannot be scaled", async () => {
    const code = `class Shown:
    def _repr_png_(self): return zeros(10_001, 10_000) + os.urandom(1_000_000)
Shown()`;
    const { content, text } = await run(code);
    expect(content.map(({ type }) => type)).toEqual(["text"]);
    const [, path = ""] =
      /An image is left out: it has 10001 x 10000 pixels; .* Its file is (\S+\.png)\.$/m.exec(text) ?? [];
    expect(await sh(sandbox, `head -c 4 ${path} | tail -c 3`)).toBe("PNG");
  });

  it("is also a file if it is small but other results use all the space, and the next small result is shown", async () => {
    const code = `from IPython.display import display
picture = Image.frombytes("RGB", (330, 330), os.urandom(330 * 330 * 3))
for _ in range(9): display(picture)
"last"`;
    const { content, text } = await run(code);
    expect(content.filter(({ type }) => type === "image").length).toBeGreaterThanOrEqual(3);
    expect(text).toContain("last");
    expect(text).toMatch(/^a result of \d+ bytes is left out: .*\. Its file is \S+-9\.png$/m);
    const [, stem = ""] = /Its file is (\S+)-1\.png/.exec(text) ?? [];
    expect((await sh(sandbox, `ls ${stem}-*`)).match(/-[89]\.png/g)).toEqual(["-8.png", "-9.png"]);
  });

  it.each([
    ["png", ""],
    ["gif", "it is animated: many clients show only the first of its 2 frames. "],
  ])("is shown unchanged if it is small, although it is a file: %s", async (format, change) => {
    const code = `from IPython.display import HTML, Image as File, display
first, second = (Image.frombytes("RGB", (330, 330), os.urandom(330 * 330 * 3)) for _ in range(2))
first.save("small", "${format}"${format === "gif" ? ", save_all=True, append_images=[second]" : ""})
for _ in range(13): display(HTML("h" * 240_000))
File("small", format="${format}")`;
    const { content, text } = await run(code);
    expect(text).toContain(`330 x 330 pixels, ${format.toUpperCase()}${change && `; ${change}`}`);
    expect(text).not.toContain("smaller");
    const image = content.find(({ type }) => type === "image");
    expect(image?.mimeType).toBe(`image/${format}`);
    const { length } = Uint8Array.fromBase64(image?.data ?? "");
    expect(`${length}\n`).toBe(await sh(sandbox, "stat -c %s small"));
    expect(await sh(sandbox, "cmp small .outputs/$(ls -t .outputs | head -1) && echo same")).toBe("same\n");
  });

  /** What our code in the kernel, which user code can replace, puts in place of the file at `path`. */
  const FOREIGN = [
    "os.symlink('/dev/zero', path)",
    "os.symlink('/proc/kmsg', path)",
    "os.symlink('/proc/self/mem', path)",
    "os.symlink(path, path)",
    "os.mkfifo(path)",
    "os.mkdir(path)",
    "os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40)",
    "os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 8_000_000)",
    "open(path, 'wb').write(zeros(10_001, 10_000))",
    "open(path, 'w').close()",
    "None",
  ];

  it.each(FOREIGN)("is left out if something else is in its place: %s", async (foreign) => {
    const code = `import sandbox_mcp_kernel.present as present
def to_file(found, form, path, **_):
    ${foreign}
    return {"image_file": form, "text": "beside"}
to_file, present._to_file = present._to_file, to_file
try: display(File("picture", format="png"))
finally: kept = to_file`;
    const { content, text } = await run(`from IPython.display import display, Image as File\n${code}`);
    await run("present._to_file = kept");
    expect(content.map(({ type }) => type)).toEqual(["text"]);
    expect(text).toMatch(/An image is left out: it /);
    expect(text).toContain("beside");
  });

  it.each(["../../../etc/passwd", "svg", "png/../x"])("is ignored in another form: %s", async (form) => {
    const code = `import sandbox_mcp_kernel.present as present
finish = present.Results.finish
present.Results.finish = lambda *_: [{"image_file": "${form}"}, {"text": "beside"}]`;
    const { content, text } = await run(code);
    await run("present.Results.finish = finish");
    expect(content.map(({ type }) => type)).toEqual(["text"]);
    expect(text).not.toContain("image");
    expect(text).toContain("beside");
  });
});

it.each(["gif", "webp"])(
  "a result of code shows an image from the code's display data in its own format: %s",
  async (format) => {
    const { content } = await run(`quarters(100, 100).save("picture", "${format}")
class Shown:
    def _repr_mimebundle_(self, **_):
        return {"image/${format}": open("picture", "rb").read()}
Shown()`);
    expect(
      content.map(({ type, mimeType }) => [type, mimeType]),
      content[0]?.text,
    ).toEqual([
      ["text", undefined],
      ["image", `image/${format}`],
    ]);
  },
);

it("an animation that fits is shown unchanged, and the result says that it is animated", async () => {
  await run(
    'quarters(64, 64).save("picture", "gif", append_images=[Image.new("RGB", (64, 64))], save_all=True)',
  );
  const { content } = await read("picture");
  expect(content[0]?.text).toContain("it is animated: many clients show only the first of its 2 frames");
  expect(content[1]).toMatchObject({
    mimeType: "image/gif",
    data: (await sh(sandbox, "base64 -w0 picture")).trim(),
  });
});

it("a plot stays PNG if that is smaller than JPEG, and does not grow", async () => {
  const { content, text } = await run(`import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(10, 8))
axes.plot([1, 2, 3], [1, 4, 9]); axes.set_title("squares")
figure.savefig("plot.png", dpi=130)
plt.close(figure)
print(os.path.getsize("plot.png"), "bytes")`);
  const bytes = Number(/(\d+) bytes/.exec(text)?.[1]);
  expect(content.map(({ type }) => type)).toEqual(["text"]);
  const file = await read("plot.png");
  expect(file.content[0]?.text).toMatch(/, PNG; it was made smaller from 1300 x 1040 pixels, PNG\./);
  expect(file.content[1]?.mimeType).toBe("image/png");
  expect(Uint8Array.fromBase64(file.content[1]?.data ?? "").length).toBeLessThanOrEqual(bytes);
});

/** Small files that declare images with too many pixels. */
const BOMBS: { name: string; make: string; words: RegExp }[] = [
  {
    name: "PNG",
    make: "zeros(10_001, 10_000)",
    words: /has 10001 x 10000 pixels; the server scales only images of at most 100000000\. .*PIL/s,
  },
  { name: "PNG without rows", make: "zeros(2_000_000_000, 0)", words: /has no pixels/ },
  {
    name: "JPEG",
    make: "(lambda j, at: j[:at + 5] + struct.pack('>HH', 65500, 65500) + j[at + 9:])(jpeg, jpeg.index(b'\\xff\\xc0'))",
    words: /65500 x 65500 pixels/,
  },
  { name: "GIF", make: "gif[:6] + b'\\xff' * 4 + gif[10:]", words: /65535 x 65535 pixels/ },
  {
    name: "GIF of a large frame",
    make: "(lambda at: gif[:at + 5] + b'\\xff' * 4 + gif[at + 9:])(gif.index(b'\\x2c\\0\\0\\0\\0'))",
    words: /1280 x 960 pixels, GIF/,
  },
  {
    name: "WebP",
    make: "(lambda at: webp[:at + 3] + b'\\xff\\x3f' * 2 + webp[at + 7:])(webp.index(b'\\x9d\\x01\\x2a'))",
    words: /16383 x 16383 pixels/,
  },
];

describe("an image that has too many pixels", () => {
  beforeAll(async () => {
    await run(`
def coded(image, form):
    file = io.BytesIO(); image.save(file, form); return file.getvalue()
jpeg, gif, webp = (coded(quarters(1280, 960), form) for form in ("jpeg", "gif", "webp"))`);
  });

  it.each(BOMBS)("is refused with a readable error: $name", async ({ make, words }) => {
    expect((await run(`open("bomb", "wb").write(${make})`)).text).not.toContain("Error");
    const file = await read("bomb");
    expect(file.text).toMatch(words);
    expect(file.isError).toBe(true);
  });

  it("is left out of a result of code", async () => {
    const { content, text } = await run(`open("bomb", "wb").write(gif[:6] + b'\\xff' * 4 + gif[10:])
class Shown:
    def _repr_png_(self): return open("bomb", "rb").read()
Shown()`);
    expect(content.map(({ type }) => type)).toEqual(["text"]);
    expect(text).toMatch(/An image is left out/);
  });
});

it.each(["png", "jpeg", "webp", "gif"])(
  "an image with damaged pixel data is shown within the limits, or has a readable error: %s",
  async (format) => {
    await run(`${quarters(1280, 960, `"${format}"`)}
data = bytearray(open("picture", "rb").read())
r = random.Random(3)
for _ in range(4): data[r.randrange(40, len(data))] = r.randrange(256)
open("damaged", "wb").write(data)`);
    const { content, isError, text } = await read("damaged");
    const found = isError ? undefined : await inspectImage(content.at(-1)?.data);
    expect(found ? `shown: ${found.width * found.height <= 1_150_000}` : text).toMatch(
      /^shown: true$|is corrupt|the server scales only images of|too much time or memory/,
    );
  },
);

describe("the sandbox's own program that scales images, which code can replace,", () => {
  // The last tests of this sandbox, because it then has no Pillow.
  beforeAll(async () => {
    await run('quarters(1280, 960).save("large.png"); open("wide.png", "wb").write(zeros(9000, 1))');
  });

  it("is missing without Pillow, and then the result describes the image and says how to get Pillow", async () => {
    await replaceScaler("raise ModuleNotFoundError");
    const file = await read("large.png");
    expect(file.content.map(({ type }) => type)).toEqual(["text"]);
    expect(file.text).toMatch(/1280 x 960 pixels, PNG, \d+ bytes.*Pillow.*run_command.*pip install pillow/s);
    const result = await run("from IPython.display import Image\nImage('large.png')");
    expect(result).toMatchObject({ isError: false, text: expect.stringContaining("pip install pillow") });
  });

  it.each([
    ["text", "import os; os.write(1, b'<html>'); os._exit(0)"],
    ["an empty output", "import os; os._exit(0)"],
    [
      "an image as large as before",
      "import shutil, sys; sys.stdout.buffer.write(open('/workspace/large.png', 'rb').read()); sys.stdout.flush(); __import__('os')._exit(0)",
    ],
    [
      "an image that is too wide",
      "import os; os.write(1, open('/workspace/wide.png', 'rb').read()); os._exit(0)",
    ],
    [
      "a part of an image",
      "import os; os.write(1, open('/workspace/wide.png', 'rb').read()[:-4]); os._exit(0)",
    ],
    ["endless bytes", "import os\nwhile True: os.write(1, bytes(1 << 20))"],
    ["the output of a program that uses up the memory", "held = bytearray(2 << 30)"],
    ["the output of a program that does not end", undefined],
  ])("cannot make the server show %s", async (_, program) => {
    if (program !== undefined) await replaceScaler(program);
    const { content, isError, text } = await (program === undefined ? endlessResult : read("large.png"));
    expect(content.map(({ type }) => type)).toEqual(["text"]);
    expect({ isError, text }).toEqual({
      isError: true,
      text: expect.stringMatching(/1280 x 960 pixels, PNG/),
    });
    expect(text).toMatch(/cannot be decoded|too much time or memory/);
  });
});
