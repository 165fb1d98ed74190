/** What libraries show in a Python kernel. */
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Lab, type TestKernel, sharedDirectory } from "./kernel-harness.ts";

let lab: Lab;
let kernel: TestKernel;
const directory = sharedDirectory("kernel-displays-");
const PNG = /^iVBORw0K/;

beforeAll(async () => {
  lab = await Lab.open();
  kernel = await lab.kernel("python");
  await kernel.run(`%cd ${directory}`);
});
afterAll(async () => {
  await lab.close();
  rmSync(directory, { recursive: true, force: true });
});

describe("numbers", () => {
  it("of NumPy show as numbers, whatever its version", async () => {
    // As of NumPy 2, whose repr has the type.
    const newer = ["int64", "float32", "bool_", "str_"].map((name) => {
      const base = name === "bool_" ? "int8" : name;
      return `class ${name}_(np.${base}):\n    def __repr__(self): return f'np.${name}({self})'`;
    });
    await kernel.run(`import numpy as np\n${newer.join("\n")}`);
    expect(await kernel.value("int64_(6)")).toBe("6");
    expect(await kernel.value("[float32_(0.1), (int64_(1), str__('a'))]")).toBe("[0.1, (1, 'a')]");
    expect(await kernel.value("np.array([1, 2]).sum(), np.bool_(True), np.float64(2)")).toBe(
      "(3, True, 2.0)",
    );
    expect(await kernel.value("np.array([1, 2])")).toBe("array([1, 2])");
  });

  it("keep their text beside a picture, as after sympy.init_printing", async () => {
    const register = [
      "import base64",
      "png = base64.b64decode('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==')",
      "formatters = get_ipython().display_formatter.formatters",
      "formatters['image/png'].for_type(int, lambda n: png)",
      "formatters['text/latex'].for_type(int, lambda n: f'${n}$')",
    ];
    await kernel.run(register.join("\n"));
    const { results } = await kernel.run("6 * 7");
    await kernel.run("formatters['image/png'].pop(int); formatters['text/latex'].pop(int);");
    expect(results).toEqual([{ text: "42", latex: "$42$", png: expect.stringMatching(PNG) }]);
  });
});

describe("pictures", () => {
  it("of PIL are shown by show(), also where the machine has a viewer", async () => {
    const viewer =
      "from PIL import Image, ImageShow\nclass Window(ImageShow.Viewer):\n    def show(self, image, **options): raise RuntimeError('no screen')\nImageShow.register(Window(), 0)\nImageShow._viewers.append(ImageShow._viewers.pop(0))";
    expect((await kernel.run(viewer)).error).toBeNull();
    const { results, error } = await kernel.run("Image.new('RGB', (3, 3)).show()");
    expect([error, results]).toEqual([null, [{ png: expect.stringMatching(PNG) }]]);
  });
});

describe("displays", () => {
  it("that are updated or cleared come as their last state", async () => {
    const updated =
      "from IPython.display import clear_output, display\nhandle = display('first', display_id=True)\ndisplay('between')\nfor n in range(300): handle.update(n)";
    expect((await kernel.run(updated)).results).toEqual([{ text: "299" }, { text: "'between'" }]);
    const cleared =
      "for n in range(300):\n    clear_output(wait=True)\n    display(n)\nclear_output(wait=True)";
    expect((await kernel.run(cleared)).results).toEqual([{ text: "299" }]);
    expect((await kernel.run("display(1); clear_output(); display(2)")).results).toEqual([{ text: "2" }]);
  });

  it("of tqdm.notebook are bars of text", async () => {
    const { error, stderr } = await kernel.run(
      "from tqdm.notebook import tqdm, trange\nfor n in tqdm(range(30)): pass\nfor n in trange(2): pass",
    );
    expect(error).toBeNull();
    expect(stderr.text).toMatch(/100%\|.*\| 30\/30 .*100%\|.*\| 2\/2 /s);
  });
});

/** As much of Plotly as shows a chart, where nbformat is not installed. */
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

  it("uses another renderer that was asked for", async () => {
    expect((await kernel.run("fig.show('json')")).stdout.text).toBe("as JSON\n");
  });
});
