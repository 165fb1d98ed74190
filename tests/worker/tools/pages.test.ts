/** Charts for a browser (Plotly, Bokeh, Altair, Folium) as results of code: a picture, if it exists, and the page as a file. */
import { expect, it } from "vitest";
import { owner, sh } from "../support.ts";

const sandbox = "pages";

const PAGE = `"<div id=chart></div><script>" + "x" * 4_000_000 + "</script>"`;

const run = (code: string) => owner.call("run_code", { sandbox, code });

/** The path and the size in the text about a page. */
function pageIn(text: string): { path: string; size: string } {
  const [, size = "", path = ""] =
    /\[An interactive page, HTML of (\d+) bytes: (\/workspace\/\.outputs\/\w+\.html)\]/.exec(text) ?? [];
  return { path, size };
}

it.each([
  ["_repr_html_", `    def _repr_html_(self): return ${PAGE}`],
  [
    "a bundle",
    `    def _repr_mimebundle_(self, **_): return {"text/html": ${PAGE}, "application/vnd.plotly.v1+json": {"data": []}, "text/plain": "Figure({" + "y" * 10_000 + "})"}`,
  ],
  [
    "display",
    `    def _ipython_display_(self):\n        from IPython.display import display\n        display({"text/html": ${PAGE}}, raw=True)`,
  ],
])("a page of megabytes is kept as a file, and the answer has its path: %s", async (_how, method) => {
  const { content, text } = await run(`class Chart:\n${method}\nChart()`);
  expect(content.map(({ type }) => type)).toEqual(["text"]);
  expect(text.length).toBeLessThan(1500);
  const { path, size } = pageIn(text);
  expect(await sh(sandbox, `stat -c %s ${path} && head -c 14 ${path}`)).toBe(`${size}\n<div id=chart>`);
});

it("the result shows a chart's picture if it exists, and names the stored page", async () => {
  const { content, text } = await run(`
import io
from PIL import Image
class Chart:
    def _repr_html_(self): return ${PAGE}
    def _repr_png_(self):
        file = io.BytesIO(); Image.new("RGB", (8, 8)).save(file, "png"); return file.getvalue()
Chart()`);
  expect(content.map(({ type }) => type)).toEqual(["text", "image"]);
  expect(pageIn(text).size).not.toBe("");
});

it("HTML without a script is shown as text, and not stored as a page", async () => {
  const { text } = await run(
    "class Words:\n    def _repr_html_(self): return '<b>bold</b>'\n    def __repr__(self): return 'bold'\nWords()",
  );
  expect(text).toBe("result: bold");
});

it("a run that makes 30 pages stores only 20", async () => {
  await sh(sandbox, "rm -rf .outputs");
  const { text } = await run(
    "from IPython.display import HTML, display\nfor _ in range(30): display(HTML('<script>1</script>'))",
  );
  expect(text).toContain("is not kept: a run keeps at most 20 pages");
  expect((await sh(sandbox, "ls .outputs | wc -l")).trim()).toBe("20");
});
