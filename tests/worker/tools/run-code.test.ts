import { describe, expect, it } from "vitest";
import { callsIn, owner, sh } from "../support.ts";

const sandbox = "code";

const { code: run } = callsIn(sandbox);
const text = async (code: string, more?: Record<string, unknown>) => (await run(code, more)).text;

it("a prepared Python kernel finds packages that were installed after its start", async () => {
  for (const context of ["default", "other"]) await run("1", { context });
  await sh(
    sandbox,
    [
      "until [ $(pgrep -xc python3) -ge 3 ]; do sleep 0.1; done; sleep 1",
      'packages=$(python3 -m site --user-site); mkdir -p "$packages" /tmp/late',
      'echo /tmp/late >"$packages/late.pth"; echo "VALUE = 7" >/tmp/late/late_module.py',
    ].join("\n"),
  );
  expect(await text("import late_module; late_module.VALUE", { context: "late" })).toBe("result: 7");
});

it("a running Python kernel finds a package that pip installs as editable, and before that names its directory", async () => {
  const context = "editable";
  await run("1", { context });
  await sh(
    sandbox,
    [
      "mkdir -p /workspace/project/src/own_package; cd /workspace/project",
      "echo VALUE = 7 >src/own_package/__init__.py",
      'echo \'from setuptools import setup; setup(name="own", packages=["own_package"], package_dir={"": "src"})\' >setup.py',
    ].join("\n"),
    { session: "project" },
  );
  const missing = await text("import own_package", { context });
  expect(missing).toContain("the sandbox has /workspace/project/src/own_package: ");
  expect(missing).not.toContain("pip install own_package");
  await sh(sandbox, "pip install -q --no-build-isolation --no-index -e project", { session: "pip" });
  expect(await text("import own_package; own_package.VALUE", { context })).toBe("result: 7");
});

it("code and commands import the current text of a module that was rewritten within a second", async () => {
  const write = async (value: number) => {
    await owner.call("write_file", { sandbox, path: "rewritten.py", content: `VALUE = ${value}\n` });
    await sh(sandbox, "touch -d @1700000000 rewritten.py");
  };
  await write(1);
  expect(await text("import rewritten; rewritten.VALUE")).toBe("result: 1");
  await write(2);
  expect(await text("import rewritten; rewritten.VALUE", { context: "other" })).toBe("result: 2");
  await write(3);
  expect(await sh(sandbox, "python3 -c 'import rewritten; print(rewritten.VALUE)'")).toBe("3\n");
});

it.each([
  ["python", "x = 41", "print('out'); import sys; print('err', file=sys.stderr); 'value'", "pass"],
  ["javascript", "const x = 41", "console.log('out'); console.error('err'); 'value'", ";"],
  [
    "typescript",
    "const x: number = 41",
    "console.log('out' as string); console.error('err'); 'value'",
    "type A = string",
  ],
])(
  "%s keeps its variables from call to call, and returns value, stdout and stderr separately",
  async (language, define, print, nothing) => {
    expect((await run(define, { language })).isError).toBe(false);
    expect(await text("x + 1", { language })).toBe("result: 42");
    expect(await text(print, { language })).toBe("stdout: out\nstderr: err\nresult: 'value'");
    expect(await text(nothing, { language })).toBe("Done, without output.");
  },
);

it("each context has its own variables", async () => {
  await run("own = 1");
  expect(await text("own", { context: "other" })).toContain("NameError");
  expect(await text("own")).toBe("result: 1");
});

describe("errors of the code", () => {
  it.each([
    ["python", "import left_pad_of_python", "pip install left_pad_of_python"],
    ["python", "import git.left.pad", "pip install gitpython"],
    ["javascript", "require('left-pad')", "npm install left-pad"],
    ["javascript", "await import('@left/pad/of')", "npm install @left/pad"],
    ["typescript", "import pad from 'left-pad'", "npm install left-pad"],
  ])("of %s about a missing module (%s) name the call that installs it", async (language, code, command) => {
    const result = await text(code, { language });
    expect(result).toMatch(/(ModuleNotFoundError: No module named|Cannot find (module|package)) '/);
    expect(result).toContain(`is not installed: run_command with ${command}.`);
  });

  it.each([
    ["python", "import email.left_pad"],
    ["python", "raise ModuleNotFoundError('No module named \\'a; rm -rf /\\'')"],
    ["javascript", "require('./left-pad.js')"],
    ["javascript", "throw new Error('Cannot find module of mine')"],
  ])("of %s about something else (%s) name no such call", async (language, code) => {
    const result = await text(code, { language });
    expect(result).toContain("rror");
    expect(result).not.toContain("is not installed");
  });

  it("are results with a traceback of the user's lines", async () => {
    const result = await run("print('before')\ndef divide(a, b):\n    return a / b\n\ndivide(1, 0)");
    expect(result.isError).toBe(false);
    expect(result.text).toMatch(
      /^stdout: before\nerror:\n```\n.*line 5.*line 3, in divide.*ZeroDivisionError: division by zero/s,
    );
    expect(result.text).not.toMatch(/sandbox_mcp|\/opt\//);
  });
});

describe("rich results", () => {
  it("of matplotlib are an image for each show, as in a notebook, also if the last figure is left open", async () => {
    const images = async (code: string) =>
      (await run(`import matplotlib.pyplot as plt\n${code}`)).content.flatMap(({ data }) => data ?? []);
    const bars = "_ = plt.hist([1, 1, 2])\n";
    const [first] = await images("_ = plt.plot([1, 2, 3])\nplt.show()");
    const [second] = await images(`${bars}plt.show()`);
    expect(first).not.toBe(second);
    for (const last of ["plt.show()", ""]) {
      // Repeated, because a new object can have the address of a deleted one.
      const code = `for _ in range(2):\n    plt.plot([1, 2, 3])\n    plt.show()\n${bars}${last}`;
      expect(await images(code)).toEqual([first, first, second]);
    }
    expect(await images("plt.show()")).toEqual([]);
  });

  it("of matplotlib are images even if its first import failed", async () => {
    const context = "again";
    await run("import os; os.environ['MPLBACKEND'] = 'module://nosuch'\nimport matplotlib.pyplot", {
      context,
    });
    const code =
      "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt\nplt.plot([1])\nplt.show()\nplt.plot([2])\nplt.show()";
    const { content } = await run(code, { context });
    expect(content.filter(({ type }) => type === "image")).toHaveLength(2);
  });
});

describe("a time limit", () => {
  it("interrupts Python, which keeps its state", async () => {
    await run("kept = 'kept'");
    const result = await run("import time\nprint('begun', flush=True)\ntime.sleep(1000)", {
      timeout_seconds: 1,
    });
    expect(result.isError).toBe(false);
    expect(result.text).toMatch(
      /^state: timed_out\nnote:\sThe python kernel was interrupted after 1 s\. Variables and imports are kept\.\nstdout: begun/,
    );
    expect(await text("kept")).toBe("result: 'kept'");
  });

  it("restarts the JavaScript kernel, and says that its state is lost", async () => {
    await run("globalThis.kept = 1", { language: "javascript" });
    const result = await text("console.log('before'); for (;;);", {
      language: "javascript",
      timeout_seconds: 1,
    });
    expect(result).toMatch(/\nstdout: before$/);
    expect(result).toContain("state: timed_out");
    expect(result).toContain("Variables and imports are lost; the next call starts a fresh kernel.");
    expect(await text("typeof kept", { language: "javascript" })).toBe("result: 'undefined'");
  });

  it("ends a Python kernel that ignores the interrupt, and says that its state is lost", async () => {
    const context = "stubborn";
    await run("kept = 1", { context });
    const code =
      "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(1)";
    const result = await text(code, { context, timeout_seconds: 1 });
    expect(result).toContain("state: timed_out");
    expect(result).toContain("are lost");
    expect(await text("kept", { context })).toContain("NameError");
  });

  it("ends endless printing, with a shortened answer, and breaks nothing", async () => {
    const result = await run("while True: print(1)", { timeout_seconds: 1 });
    expect(result.text).toContain("state: timed_out");
    expect(result.text).toMatch(/\[\.\.\. \d+ of \d+ bytes omitted \.\.\.\]/);
    expect(result.text.length).toBeLessThan(40_000);
    expect(await text("1 + 1")).toBe("result: 2");
    expect(await sh(sandbox, "echo fine")).toBe("fine\n");
  });
});

// Parsers of some clients, such as the one of the Python SDK, refuse a JSON document with half of a pair.
it.each([
  ["python", String.raw`raise Exception("a\ud800 \U0001f600")`],
  [
    "python",
    String.raw`from IPython.display import display, Markdown; display(Markdown("a\ud800 \U0001f600"))`,
  ],
  ["javascript", String.raw`throw new Error("a\ud800 \u{1f600}")`],
])("%s: half of a surrogate pair becomes U+FFFD in %s", async (language, code) => {
  const shown = await text(code, { language });
  // First, because the test runner cannot report such a text.
  expect(shown.isWellFormed()).toBe(true);
  expect(shown).toContain("a\ufffd 😀");
});

it("a long traceback is cut between two characters", async () => {
  for (const pad of ["x", "xx"]) {
    const code = `throw new Error(("${pad}" + "😀".repeat(3000) + "\\n").repeat(12))`;
    const { structured } = await run(code, { language: "javascript" });
    const { traceback } = structured.error as { traceback: string[] };
    expect(traceback).toHaveLength(3);
    expect(traceback.every((line) => line.isWellFormed() && !line.includes("\ufffd"))).toBe(true);
  }
});

describe("a kernel that dies", () => {
  const unknown = "the code or another program ended its process, or the memory was used up";

  it.each([
    ["python", "import os\nprint('last', flush=True)\nos._exit(3)", "exit status 3"],
    [
      "python",
      "import os, time\ntime.sleep(0.1)\nprint('last', flush=True)\nos.kill(os.getpid(), 9)",
      unknown,
    ],
    ["python", "import os\nos.system('echo last')\nsys.stdout.flush()\nos.kill(os.getpid(), 9)", unknown],
    // PyDLL keeps the interpreter's lock, so no thread of the kernel can read what the function writes.
    [
      "python",
      "import ctypes, os\nctypes.PyDLL(None).write(2, b'last\\n', 5)\nos.abort()",
      "signal SIGABRT (abort)",
    ],
    [
      "python",
      "import ctypes, os\nos.write(2, b'last\\n')\nctypes.string_at(0)",
      "signal SIGSEGV (segmentation fault)",
    ],
    ["javascript", "console.log('last'); process.reallyExit(4)", "exit status 4"],
    ["javascript", "console.log('last'); process.abort()", "signal SIGABRT (abort)"],
  ])(
    "gives a result with its last output and says how it died, and affects no other: %s: %s",
    async (language, code, cause) => {
      await run("kept = 1");
      await run("import sys", { context: "dies" });
      const result = await run(code, { context: "dies", language });
      expect(result.isError).toBe(false);
      expect(result.text).toContain("last");
      expect(result.text).toContain(`died: ${cause}. Variables and imports are lost`);
      expect(await text("1 + 1", { context: "dies", language })).toBe("result: 2");
      expect(await text("kept")).toBe("result: 1");
    },
  );

  it("by a crash shows the lines of the code", async () => {
    const { structured } = await run("import ctypes\n\nctypes.string_at(0)", { context: "crashes" });
    expect(structured.stderr).toMatch(/Fatal Python error: Segmentation fault[^]*"<cell 1>", line 3/);
    expect(structured.stderr).not.toContain("/opt/sandbox-mcp");
  });
});

it("exit() ends the code with its exit code, and the kernel keeps its variables", async () => {
  await run("kept = 2");
  expect(await text("exit(3)")).toContain("exit_code: 3");
  expect(await text("kept")).toBe("result: 2");
});

describe("simultaneous calls", () => {
  it("run in parallel in two contexts", async () => {
    const code = (mine: string, other: string) =>
      `import os, time\nopen('/tmp/${mine}', 'w').close()\nwhile not os.path.exists('/tmp/${other}'): time.sleep(0.02)\n'${mine}'`;
    const results = await Promise.all([text(code("c1", "c2")), text(code("c2", "c1"), { context: "other" })]);
    expect(results).toEqual(["result: 'c1'", "result: 'c2'"]);
  });

  it("run in order in one context, and mix no output", async () => {
    await run("calls = []");
    const numbers = [0, 1, 2, 3, 4, 5];
    const results = await Promise.all(
      numbers.map((n) => text(`import time\ntime.sleep(0.1)\ncalls.append(${n})\nprint("n", ${n})\n${n}`)),
    );
    expect(results).toEqual(numbers.map((n) => `stdout: n ${n}\nresult: ${n}`));
    expect(await text("calls")).toBe("result: [0, 1, 2, 3, 4, 5]");
  });
});

describe("code", () => {
  it("may have a million characters, and one more is refused with advice", async () => {
    const code = `len("""${"x".repeat(999_989)}""")`;
    expect(code.length).toBe(1_000_000);
    expect(await text(code)).toBe("result: 999989");
    const refused = await run(`${code} `);
    expect(refused).toMatchObject({
      isError: true,
      text: expect.stringContaining("save it with write_file and run the file"),
    });
  });

  it.each([
    ["python", "len('žluť🐎\u2028\\ud83d')", "7"],
    ["javascript", "'žluť🐎\u2028\\ud83d'.length", "8"],
  ])("of %s may contain any character", async (language, code, length) => {
    expect(await text(code, { language })).toBe(`result: ${length}`);
  });

  it("may have half a surrogate pair in its source or output", async () => {
    expect((await run("s = 'a\ud83d'\nlen(s)")).isError).toBe(false);
    expect(await text("print('\\ud83d')")).not.toContain("Internal error");
    expect(await text("console.log('\\ud83d')", { language: "javascript" })).toBe("stdout: \ufffd");
    expect(await text("1 + 1")).toBe("result: 2");
  });

  it("may use await, and starts in /workspace like run_command", async () => {
    expect(await text("import asyncio\nawait asyncio.sleep(0.01, 'slept')")).toBe("result: 'slept'");
    expect(
      await text("await new Promise((r) => setTimeout(() => r('slept'), 10))", { language: "javascript" }),
    ).toBe("result: 'slept'");
    await run("open('from-code', 'w').write('here')");
    expect(await sh(sandbox, "cat from-code")).toBe("here");
  });
});

describe("results of libraries", () => {
  it("that are DataFrames are text, and also HTML for a program that requests data", async () => {
    const { text: shown, structured } = await run("import pandas\npandas.DataFrame({'a': [1, 2]})");
    expect(shown).toBe("result:\n```\n   a\n0  1\n1  2\n```");
    expect(structured).toMatchObject({
      result: "   a\n0  1\n1  2",
      html: [expect.stringContaining('<table border="1" class="dataframe">')],
    });
    const { structured: again } = await callsIn(sandbox).code("6 * 7");
    expect(again).not.toHaveProperty("html");
  });

  it("that are pictures of numbers also have the numbers, for example after sympy.init_printing", async () => {
    const code = [
      "import io",
      "from PIL import Image",
      "picture = io.BytesIO(); Image.new('RGB', (3, 3)).save(picture, 'png')",
      "formatter = get_ipython().display_formatter.formatters['image/png']",
      "formatter.for_type(int, lambda n: picture.getvalue());",
    ];
    await run(code.join("\n"));
    const { text: shown, content } = await run("6 * 7");
    await run("formatter.pop(int);");
    expect(shown).toContain("result: 42");
    expect(content).toContainEqual(expect.objectContaining({ type: "image", mimeType: "image/png" }));
  });

  it("that are progress bars have only their last state in the text, and every state in the data", async () => {
    const code = "for n in range(300): print(end=f'\\r{n + 1} of 300')\nprint('\\nWindows\\r\\nends')";
    const { text: shown, structured } = await run(code);
    expect(shown).toBe("stdout:\n```\n300 of 300\nWindows\r\nends\n```");
    expect(structured.stdout).toMatch(/^\r1 of 300\r2 of 300\r/);
    const { content } = await owner.call("get_result", { id: structured.id, cursor: 0 });
    expect(content.map((block) => block.text).join("\n")).toMatch(/\[stdout\]\n```\n300 of 300\nWindows/);
  });
});
