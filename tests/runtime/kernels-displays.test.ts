/** Values and displays of libraries in a Python kernel. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { lastStates } from "../../src/runs/terminal-text.ts";
import { endLater } from "../setup/end-later.ts";
import { Lab, sharedDirectory } from "./kernel-harness.ts";
import { REMOTE_URL } from "./runtime.ts";

const directory = sharedDirectory();
const PNG = /^iVBORw0K/;

const lab = endLater(await Lab.open());
const kernel = await lab.kernel("python");
await kernel.run(`%cd ${directory}`);

/** A stub of NumPy 2 that only formats numbers. This machine may not have NumPy. */
const NUMPY_2 = `
import contextlib
__version__ = "2.4.6"
class ndarray: pass
legacy = False
class int64(int):
    def __repr__(self): return str(int(self)) if legacy == "1.25" else f"np.int64({int(self)})"
@contextlib.contextmanager
def printoptions(**options):
    global legacy
    before, legacy = legacy, options["legacy"]
    yield
    legacy = before
`;

describe("a Python kernel", () => {
  it("shows numbers of NumPy 2 as plain numbers, also inside containers of every kind", async () => {
    const newer = await lab.kernel("python");
    mkdirSync(join(directory, "two/numpy"), { recursive: true });
    writeFileSync(join(directory, "two/numpy/__init__.py"), NUMPY_2);
    await newer.run(
      `%cd ${directory}/two\nimport numpy as np\nfrom collections import *\nfrom dataclasses import dataclass\n@dataclass\nclass D: n: object`,
    );
    const six = "np.int64(6)";
    for (const [value, shown] of [
      [six, "6"],
      [`[1, (${six},)]`, "[1, (6,)]"],
      [`Counter([${six}])`, "Counter({6: 1})"],
      [`OrderedDict(a=${six})`, "OrderedDict([('a', 6)])"],
      [`defaultdict(int, a=${six})`, "defaultdict(<class 'int'>, {'a': 6})"],
      [`deque([${six}])`, "deque([6])"],
      [`namedtuple('T', 'n')(${six})`, "T(n=6)"],
      [`D(${six})`, "D(n=6)"],
    ] as const)
      expect(await newer.value(value)).toBe(shown);
    // NumPy still formats numbers that the code itself turns into text.
    expect(await newer.value(`str([${six}])`)).toBe("'[np.int64(6)]'");
  });

  it("shows numbers of the installed NumPy as plain numbers", async () => {
    await kernel.run("import numpy as np");
    expect(await kernel.value("np.array([1, 2]).sum(), np.bool_(True), np.float64(2)")).toBe(
      "(3, True, 2.0)",
    );
    expect(await kernel.value("np.array([1, 2])")).toBe("array([1, 2])");
  });
});

describe("an image of PIL", () => {
  it("is a result of show(), even if the machine has an image viewer", async () => {
    const viewer =
      "from PIL import Image, ImageShow\nclass Window(ImageShow.Viewer):\n    def show(self, image, **options): raise RuntimeError('no screen')\nImageShow.register(Window(), 0)\nImageShow._viewers.append(ImageShow._viewers.pop(0))";
    expect((await kernel.run(viewer)).error).toBeNull();
    const { results, error } = await kernel.run("Image.new('RGB', (3, 3)).show()");
    expect([error, results]).toEqual([null, [{ png: expect.stringMatching(PNG) }]]);
  });
});

/** Draws a text with a library's default font, and returns the picture. */
const DRAWN: Record<string, string> = {
  matplotlib: `
import matplotlib.pyplot as plt
def drawn(text):
    figure = plt.figure()
    figure.text(0.1, 0.5, text)
    figure.canvas.draw()
    plt.close()
    return bytes(figure.canvas.buffer_rgba())`,
  PIL: `
from PIL import Image, ImageDraw
def drawn(text):
    image = Image.new("RGB", (200, 100))
    draw = ImageDraw.Draw(image)
    draw.text((5, 5), text)
    assert draw.textlength(text) > 0
    return image.tobytes()`,
};

it.each(Object.entries(DRAWN))(
  "%s draws Chinese, Japanese, Korean, Hindi and emoji with the machine's fonts, and no boxes",
  async (_library, draw) => {
    const fresh = await lab.kernel("python");
    expect((await fresh.run(draw)).error).toBeNull();
    // A font draws the same box for each character that it lacks.
    const code =
      "characters = '中文あい한글हक🚀🎉'\nlen({drawn(character) for character in characters}) - len(characters)";
    const { error, results, stderr } = await fresh.run(code);
    expect([error, results, stderr.text]).toEqual([null, [{ text: "0" }], ""]);
  },
);

describe("displays", () => {
  it("have only their last state if the code updates or clears them", async () => {
    const updated =
      "from IPython.display import clear_output, display\nhandle = display('first', display_id=True)\ndisplay('between')\nfor n in range(300): handle.update(n)";
    expect((await kernel.run(updated)).results).toEqual([{ text: "299" }, { text: "'between'" }]);
    const cleared =
      "for n in range(300):\n    clear_output(wait=True)\n    display(n)\nclear_output(wait=True)";
    expect((await kernel.run(cleared)).results).toEqual([{ text: "299" }]);
    expect((await kernel.run("display(1); clear_output(); display(2)")).results).toEqual([{ text: "2" }]);
  });

  it("remove earlier printed output if the code clears them", async () => {
    const show = async (code: string) => {
      const { stdout, stderr, results } = await kernel.run(
        `from IPython.display import clear_output, display\nimport sys\n${code}`,
      );
      return [lastStates(stdout.text ?? ""), lastStates(stderr.text ?? ""), results];
    };
    const steps = "for n in range(30):\n    clear_output(wait=True)\n    print('step', n)";
    expect(await show(steps)).toEqual(["step 29\n", "", []]);
    expect(await show("print(1)\nclear_output()")).toEqual(["", "", []]);
    expect(await show("print(1)\nclear_output(wait=True)")).toEqual(["1\n", "", []]);
    expect(await show("display(1)\nprint('x', file=sys.stderr)\nclear_output(wait=True)\nprint(2)")).toEqual([
      "2\n",
      "",
      [],
    ]);
    expect(await show("!echo 1\nclear_output(wait=True)\ndisplay(2)\nprint(3)")).toEqual([
      "3\n",
      "",
      [{ text: "2" }],
    ]);
  });

  it("in HTML without a text form are described by their size", async () => {
    const { results } = await kernel.run(
      "from IPython.display import HTML\ndisplay(HTML('<b>1</b>'))\nHTML('<i>x</i>' * 1000)",
    );
    expect(results).toEqual([
      { html: "<b>1</b>" },
      {
        text: "<IPython.core.display.HTML object>\n[HTML of 8000 characters]",
        html: expect.stringMatching(/^<i>x/),
      },
    ]);
  });

  it("of tqdm.notebook are progress bars in text", async ({ skip }) => {
    // `npm test` requires tqdm, but the image does not have it.
    const { error: missing } = await kernel.run("from tqdm import tqdm");
    skip(REMOTE_URL !== undefined && missing !== null, "tqdm is missing");
    const { error, stderr } = await kernel.run(
      "from tqdm.notebook import tqdm, trange\nfor n in tqdm(range(30)): pass\nfor n in trange(2): pass",
    );
    expect(error).toBeNull();
    expect(stderr.text).toMatch(/100%\|.*\| 30\/30 .*100%\|.*\| 2\/2 /s);
  });
});

/** A stub of Plotly that only shows a chart, for machines without nbformat. */
const PLOTLY = {
  "plotly/__init__.py": "",
  "plotly/io/__init__.py":
    "from ._renderers import renderers, show\ndef to_html(fig, include_plotlyjs=True, full_html=True, validate=True):\n    return f'<html><script>chart of {fig!r}</script></html>'",
  "plotly/io/_renderers.py":
    "class renderers: default = 'plotly_mimetype+notebook'\ndef show(fig, renderer=None, validate=True, **options):\n    if renderer == 'json': print('as JSON'); return\n    raise ValueError('Mime type rendering requires nbformat>=4.2.0 but it is not installed')",
  "plotly/graph_objects.py":
    "class Figure:\n    def __repr__(self): return 'Figure()'\n    def show(self, *a, **k):\n        import plotly.io as pio\n        return pio.show(self, *a, **k)\n    def _ipython_display_(self): self.show()\n    def _repr_html_(self): return '<div>a second chart</div>'",
};

describe("Plotly", () => {
  beforeAll(() => {
    for (const [path, text] of Object.entries(PLOTLY)) {
      mkdirSync(join(directory, path, ".."), { recursive: true });
      writeFileSync(join(directory, path), text);
    }
  });

  it.each(["fig", "fig.show()", "fig.show('notebook')", "display(fig)"])(
    "gives one chart for %s",
    async (show) => {
      const { results, error, stdout, stderr } = await kernel.run(
        `import plotly.graph_objects as go\nfig = go.Figure()\n${show}`,
      );
      expect([error, stdout.text, stderr.text]).toEqual([null, "", ""]);
      expect(results).toEqual([{ text: expect.stringMatching(/^\[An interactive page, HTML of \d+ bytes/) }]);
    },
  );

  it("uses another renderer that code selects", async () => {
    expect((await kernel.run("fig.show('json')")).stdout.text).toBe("as JSON\n");
  });
});
