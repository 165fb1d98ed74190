/** A Python kernel where IPython is not installed. */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { Lab, sharedDirectory } from "./kernel-harness.ts";
import { REMOTE_URL } from "./runtime.ts";

const bare = sharedDirectory();
execFileSync("/usr/bin/python3", ["-m", "venv", "--without-pip", bare]);
const kernel = await endLater(await Lab.open(join(bare, "bin"))).kernel("python");

// Skipped for a remote server: it runs the image, which has IPython.
describe.skipIf(REMOTE_URL)("a Python kernel without IPython", () => {
  it("keeps state, returns values, supports await, and shows errors with their source", async () => {
    await kernel.run("import asyncio\nx = 20");
    expect(await kernel.value("x += 1\nawait asyncio.sleep(0)\nx * 2")).toBe("42");
    expect(await kernel.value("_")).toBe("42");
    const { error } = await kernel.run("def f():\n    return 1 / 0\nf()");
    expect(error?.traceback.join("\n")).toMatch(
      /line 3, in <module>\n {4}f\(\)[^]*line 2, in f\n {4}return 1/,
    );
    expect(await kernel.run("exit(3)")).toMatchObject({ error: { name: "SystemExit" }, exit: 3 });
  });

  it("returns printed output, and objects in each form that they support", async () => {
    const shown =
      "class B:\n    def _repr_html_(self): return '<b>1</b>'\n    def __repr__(self): return 'B!'\nprint('said'); display(B()); B()";
    const { stdout, results } = await kernel.run(shown);
    expect(stdout.text).toBe("said\n");
    expect(results).toEqual([
      { text: "B!", html: "<b>1</b>" },
      { text: "B!", html: "<b>1</b>" },
    ]);
  });

  it("says what magics and shell lines need, and does not change strings", async () => {
    for (const code of ["%pip install x", "!ls", "files = !ls\nfiles", "%%bash\nls"]) {
      const { error } = await kernel.run(code);
      expect(error?.traceback).toEqual([expect.stringMatching(/^SyntaxError: magics .*pip install ipython/)]);
    }
    expect(await kernel.value("'''\n%d\n!''' % 3")).toBe("'\\n3\\n!'");
  });
});
