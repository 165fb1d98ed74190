/** Features of IPython in a kernel: magics, In and Out, and its own names. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { Lab, type TestKernel, sharedDirectory } from "./kernel-harness.ts";

let kernel: TestKernel;
const directory = sharedDirectory();
writeFileSync(join(directory, "program.py"), "print('the program')\n");
const lab = endLater(await Lab.open());

/** Starts a kernel. Only some tests do this, because the start with IPython takes a second of processor time. */
async function useNewKernel(): Promise<void> {
  kernel = await lab.kernel("python");
  await kernel.run(`%cd ${directory}`);
}

/** The printed output of code that must succeed. */
async function outputOf(code: string): Promise<string | undefined> {
  const { stdout, stderr, error } = await kernel.run(code);
  expect([error, stderr.text]).toEqual([null, ""]);
  return stdout.text;
}

const PLOT = "import matplotlib.pyplot as plt\nfig, ax = plt.subplots(); _ = ax.plot([1, 2])";

describe("matplotlib", () => {
  it.each(["%matplotlib inline", "%matplotlib agg", "%matplotlib", "%pylab inline"])(
    "shows each figure once after %s",
    async (magic) => {
      await useNewKernel();
      expect((await kernel.run(magic)).error).toBeNull();
      for (const end of ["plt.show()", "fig", "display(fig)", "None"]) {
        const { results, error } = await kernel.run(`${PLOT}\n${end}`);
        expect([end, error, results]).toEqual([end, null, [{ png: expect.stringMatching(/^iVBORw0K/) }]]);
      }
    },
  );

  describe("is inline if code selects a backend with a screen:", () => {
    beforeAll(useNewKernel);

    it.each(["notebook", "widget", "qt", "tk"])("%s", async (backend) => {
      const { error, stdout, stderr, results } = await kernel.run(`%matplotlib ${backend}\n${PLOT}`);
      expect([error, stderr.text]).toEqual([null, ""]);
      expect(stdout.text).toMatch(new RegExp(`^%matplotlib ${backend} needs .*inline is used\\.\n$`));
      expect(results).toEqual([{ png: expect.stringMatching(/^iVBORw0K/) }]);
    });
  });
});

describe("open", () => {
  it("is Python's own function, and mocks can replace it, also after %reset", async () => {
    await useNewKernel();
    const mocked =
      "from unittest.mock import mock_open, patch\nwith patch('builtins.open', mock_open(read_data='mocked')):\n    text = open('no such file').read()\ntext";
    expect(await kernel.value(mocked)).toBe("'mocked'");
    await kernel.run("%reset -f");
    expect(await kernel.value("import builtins; open is builtins.open")).toBe("True");
    expect(await kernel.value("open(0, closefd=False).read()")).toBe("''");
    expect(await kernel.run("exit(4)")).toMatchObject({ exit: 4 });
  });
});

describe("the history", () => {
  it("is available in In, Out, _i and %history", async () => {
    await useNewKernel();
    await kernel.run("6 * 7");
    expect(await kernel.value("In[2], Out[2], _, _2, _i2, _i")).toBe(
      "('6 * 7', 42, 42, 42, '6 * 7', '6 * 7')",
    );
    expect(await outputOf("%history 2-3")).toBe("6 * 7\nIn[2], Out[2], _, _2, _i2, _i\n");
    await kernel.run("exit()");
    expect(await kernel.value("In[6]")).toBe("'In[6]'");
  });

  it("shows the text that %load would insert into the next cell", async () => {
    await useNewKernel();
    expect(await outputOf("%load program.py")).toMatch(
      /^# There is no next cell .*\n# %load program.py\nprint/,
    );
  });
});

describe("magics", () => {
  beforeAll(useNewKernel);

  it("work without % if they are alone on a line and no variable has the name", async () => {
    expect(await outputOf("ls")).toBe("program.py\n");
    expect(await kernel.value("pwd")).toBe(`'${directory}'`);
    expect(await kernel.value("ls = 3\nls")).toBe("3");
    expect(await kernel.value("ls")).toBe("3");
  });

  it.each(["%xmode Plain", "%colors NoColor", "%gui qt", "%edit program.py"])(
    "%s says why it has no effect",
    async (magic) => {
      expect(await outputOf(magic)).toMatch(/^%\w+ changes nothing here: a kernel /);
    },
  );

  it("can show the last error again", async () => {
    await useNewKernel();
    await kernel.run("1 / 0");
    expect(await outputOf("%tb")).toMatch(/^Traceback[^]*<cell 2>[^]*1 \/ 0[^]*ZeroDivisionError/);
  });
});

describe("errors", () => {
  beforeAll(useNewKernel);

  it.each([
    ["%matplotlib inline\nimport numpy as np\nx = np.array([1, 2, 3]\nprint(x)", "'(' was never closed", 3],
    ["!echo x\nimport y z", "invalid syntax", 2],
    ["df.head?\n1 +", "invalid syntax", 2],
  ])("of syntax name the user's line and not a magic: %s", async (code, message, line) => {
    const { error } = await kernel.run(code);
    expect(error?.traceback[0]).toMatch(new RegExp(`^  File "<cell \\d>", line ${line}$`));
    expect(error?.traceback.at(-1)).toBe(`SyntaxError: ${message}`);
  });

  it("in a cell that IPython runs are shown", async () => {
    await useNewKernel();
    expect((await kernel.run("1 / 0")).error).not.toBeNull();
    for (const code of ["_ = get_ipython().run_cell('1 / 0')", "%rerun 2"]) {
      const { stdout, error } = await kernel.run(code);
      expect(error).toBeNull();
      expect(stdout.text).toMatch(
        /Traceback .*\n  File "[^"]+", line 1, in <module>\n    1 \/ 0\n[ ~^]+\nZeroDivisionError: division by zero\n$/,
      );
    }
    // IPython 9 reads this attribute for each line that such a cell prints.
    expect(await kernel.value("get_ipython().display_pub.is_publishing")).toBe("False");
  });

  it("in a captured cell are reported as errors", async () => {
    await useNewKernel();
    expect((await kernel.run("%%capture out\nprint('said')\n1 / 0")).error?.name).toBe("ZeroDivisionError");
    expect(await kernel.value("out.stdout.splitlines()[0]")).toBe("'said'");
    expect((await kernel.run("%%capture\nprint('said')")).stdout.text).toBe("");
    expect((await kernel.run("%%capture\nexit(4)")).exit).toBe(4);
  });
});

describe("input", () => {
  beforeAll(useNewKernel);

  it.each([
    ["input('Name: ')", "Name: "],
    ["import getpass; getpass.getpass()", ""],
    ["breakpoint()", "--Return--\n"],
    ["import pdb; pdb.set_trace()\nx = 1", ""],
    ["%debug", ""],
  ])("that %s requests is refused, and the error suggests run_command", async (code, expected) => {
    await kernel.run("1 / 0");
    const { error, stdout, stderr } = await kernel.run(code);
    expect(error?.name).toBe("EOFError");
    expect(error?.message).toMatch(/no input.*run_command and interactive: true.*send_input/);
    expect([stdout.text, stderr.text]).toEqual([expected, ""]);
    expect(await kernel.value("'goes on'")).toBe("'goes on'");
  });

  it("from a stream that the code itself provides is read", async () => {
    expect(await kernel.value("import io, sys\nsys.stdin = io.StringIO('typed\\n')\ninput()")).toBe(
      "'typed'",
    );
    const debugged =
      "import pdb\nout = io.StringIO()\npdb.Pdb(stdin=io.StringIO('p 6 * 7\\nc\\n'), stdout=out).set_trace()\nx = 1\n'42' in out.getvalue()";
    expect(await kernel.value(debugged)).toBe("True");
  });
});
