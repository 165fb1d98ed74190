import { describe, expect, it } from "vitest";
import { sleep, until } from "../setup/until.ts";
import { endLater } from "../setup/end-later.ts";
import { Lab } from "./kernel-harness.ts";

const lab = endLater(await Lab.open());
const kernel = await lab.kernel("python");

const MB = 1024 * 1024;

describe("a Python kernel's values", () => {
  it("stay from cell to cell, and the last expression is the result", async () => {
    await kernel.run("x = 20\ndef double(n):\n    return n * 2");
    expect(await kernel.value("x += 1\ndouble(x)")).toBe("42");
    expect(await kernel.value("x = 1")).toBeUndefined();
    expect(await kernel.value("x;")).toBeUndefined();
    expect(await kernel.value("None")).toBeUndefined();
  });

  it("are shown as text of limited length, whatever their type", async () => {
    expect(await kernel.value("{'a': [1, 2], 'o': object, 's': {3}}")).toBe(
      "{'a': [1, 2], 'o': <class 'object'>, 's': {3}}",
    );
    expect(await kernel.value("loop = []; loop.append(loop); loop")).toBe("[...]");
    expect(await kernel.value("list(range(10**6))")).toMatch(/999,\s+\.\.\. 999000 more\]$/);
    expect(await kernel.value("'y' * 10**6")).toMatch(
      /\[\.\.\. 967362 of 1000002 characters omitted: print it, or write it to a file \.\.\.\]\ny{16319}'$/,
    );
    expect(await kernel.value("'\\ud800 \\U0001f600'")).toBe("'\\ud800 😀'");
    expect(await kernel.value("class Bad:\n    def __repr__(self): raise RuntimeError('no')\nBad()")).toBe(
      "<Bad whose repr failed: RuntimeError: no>",
    );
    expect(await kernel.value("float('nan')")).toBe("nan");
  });

  it("have one result for each displayed object, in order", async () => {
    const { results } = await kernel.run(
      "from IPython.display import HTML, Markdown, display\ndisplay(HTML('<b>1</b>'))\ndisplay({'q': 1})\nMarkdown('# 3')",
    );
    expect(results).toEqual([{ html: "<b>1</b>" }, { text: "{'q': 1}" }, { markdown: "# 3" }]);
    const bundle =
      "class B:\n    def _repr_mimebundle_(self, **k): return {'application/json': {'n': float('nan')}}\nB()";
    expect((await kernel.run(bundle)).results[0]?.text).toContain("nan");
  });
});

describe("notebook syntax", () => {
  it("runs shell lines and magics, and does not change strings", async () => {
    const { stdout } = await kernel.run(
      "name = 'x'\n!echo \"it's {name}\"\nfiles = !printf 'a\\nb'\nprint(files)",
    );
    expect(stdout.text).toBe("it's x\n['a', 'b']\n");
    expect(await kernel.value("s = '''\n%d !ls\n'''\ns")).toBe("'\\n%d !ls\\n'");
    expect((await kernel.run("%cd /\n%pwd")).results).toEqual([{ text: "'/'" }]);
    expect((await kernel.run("%%bash\necho from bash")).stdout.text).toBe("from bash\n");
    expect((await kernel.run("%timeit -n 5 1+1")).stdout.text).toContain("per loop");
  });

  it("reports an unknown magic by its name", async () => {
    const { error } = await kernel.run("%nonsense");
    expect(error?.name).toBe("UsageError");
    expect(error?.message).toContain("`%nonsense` not found");
  });
});

describe("an error in a Python kernel", () => {
  it("shows the user's frames with their source, nothing on stdout", async () => {
    const { error, stdout, stderr } = await kernel.run("def f():\n    return 1 / 0\n\nf()");
    expect(error).toMatchObject({ name: "ZeroDivisionError", message: "division by zero" });
    const text = error?.traceback.join("\n") ?? "";
    expect(text).toMatch(/File "<cell \d+>", line 4, in <module>\n {4}f\(\)/);
    expect(text).toMatch(/line 2, in f\n {4}return 1 \/ 0/);
    expect(text).not.toContain("sandbox_mcp_kernel");
    expect([stdout.text, stderr.text]).toEqual(["", ""]);
  });

  it("has the same form for syntax errors and chained errors", async () => {
    const syntax = (await kernel.run("a b")).error;
    expect(syntax?.name).toBe("SyntaxError");
    expect(syntax?.traceback.join("\n")).toMatch(/File "<cell \d+>", line 1\n {4}a b/);
    const chained = (
      await kernel.run("try:\n    {}['k']\nexcept KeyError as e:\n    raise ValueError('v') from e")
    ).error;
    expect(chained?.traceback.join("\n")).toContain("direct cause");
  });

  it("by recursion, memory or an exit does not end the kernel", async () => {
    const deep = (await kernel.run("def r(n): return r(n + 1)\nr(0)")).error;
    expect(deep?.name).toBe("RecursionError");
    expect(deep?.traceback.length).toBeLessThan(100);
    expect((await kernel.run("bytearray(10**15)")).error?.name).toBe("MemoryError");
    expect(await kernel.run("import sys; sys.exit(3)")).toMatchObject({
      error: { name: "SystemExit" },
      exit: 3,
    });
    expect(await kernel.run("exit()")).toMatchObject({ error: null, exit: 0 });
    expect((await kernel.run("input()")).error?.name).toBe("EOFError");
    expect(await kernel.value("x")).toBe("1");
  });

  it.each([
    ["exit(True)", "SystemExit", "True", 1],
    ["exit(False)", undefined, undefined, 0],
    ["exit(10 ** 5000)", "SystemExit", "<message not printable>", 2 ** 53 - 1],
    [
      "exit('m' * 7_000_000)",
      "SystemExit",
      expect.stringMatching(/^m+\n.* of 7000000 characters omitted/),
      1,
    ],
    [
      "exit(type('Silent', (), {'__str__': lambda self: 1 / 0})())",
      "SystemExit",
      "<message not printable>",
      1,
    ],
    [
      "raise type('Bad', (SystemExit,), {'code': property(lambda self: 1 / 0)})('why')",
      "SystemExit",
      "why",
      1,
    ],
  ])("keeps the output of a cell that ends with %s", async (code, name, message, exit) => {
    const { error, stdout, ...ended } = await kernel.run(`print('printed')\n${code}`);
    expect([stdout.text, ended.exit, error?.name, error?.message]).toEqual([
      "printed\n",
      exit,
      name,
      message,
    ]);
  });
});

describe("a Python kernel's output", () => {
  it("includes what child processes print, in order", async () => {
    const { stdout, stderr } = await kernel.run(
      "import os, subprocess, sys\nprint('one')\nos.system('echo two; echo err >&2')\nsubprocess.run(['echo', 'three'])\nprint('four \\ud800')",
    );
    expect(stdout.text).toBe("one\ntwo\nthree\nfour \ufffd\n");
    expect(stderr.text).toBe("err\n");
    expect((await kernel.run("sys.stderr.write('e'); sys.stdout.buffer.write(b'bytes');")).stdout.text).toBe(
      "bytes",
    );
  });

  it("is stored unchanged in the run's files if it is binary", async () => {
    let run = "";
    const { spilled, stdout } = await kernel.run("_ = os.write(1, b'raw \\xff')", {
      onStart: (id) => (run = id),
    });
    expect({ spilled, stdout }).toEqual({ spilled: true, stdout: { bytes: 5 } });
    expect(kernel.file(run, "out")).toBe("raw \ufffd");
  });

  it("still works after code replaced the streams", async () => {
    expect((await kernel.run("sys.stdout = None\nsys.stdin.close()\nprint('nowhere')")).error).toBeNull();
    expect((await kernel.run("print('back')")).stdout.text).toBe("back\n");
  });

  it.each([
    "json.dumps, json.loads, json._default_encoder, json._default_decoder, json.JSONEncoder",
    "json.encoder.JSONEncoder, json.encoder.c_make_encoder, json.encoder.encode_basestring_ascii, sys.modules['json']",
    "time.time, time.monotonic, time.sleep, signal.signal, signal.SIGINT, threading.get_ident, select.poll",
    "os.environ, os.write, os.read, os.open, resource.setrlimit",
    "contextlib.suppress, contextlib.redirect_stdout, io.StringIO, base64.b64encode, traceback.TracebackException",
  ])("and values and errors arrive after code replaced %s", async (replaced) => {
    const fresh = await lab.kernel("python");
    const modules =
      "base64, contextlib, io, json, os, resource, select, signal, sys, threading, time, traceback";
    const { error } = await fresh.run(
      `import ${modules}\nfrom unittest.mock import Mock\n` +
        `(${replaced}) = [Mock(return_value=1) for _ in range(${replaced.split(",").length})]`,
    );
    expect(error).toBeNull();
    for (let index = 0; index < 2; index++) {
      const { stdout, results, error: thrown } = await fresh.run("print('printed')\ndisplay(7)\n1 / 0");
      expect([stdout.text, results[0]?.text]).toEqual(["printed\n", "7"]);
      expect(thrown?.traceback).toContain(
        '  File "<cell 2>", line 3, in <module>'.replace("2", `${index + 2}`),
      );
    }
  });

  it("does not use the clock that code replaces", async () => {
    const code = [
      "import time, unittest.mock as mock",
      "sleep = time.sleep",
      "with mock.patch('time.monotonic', side_effect=[1, 2]):",
      "    first = time.monotonic()",
      "    sleep(0.3)",
      "    print(time.monotonic() - first)",
    ];
    expect((await kernel.run(code.join("\n"))).stdout.text).toBe("1\n");
  });

  it("includes the output of forked children, which do not act as a second kernel", async () => {
    const forked =
      "pid = os.fork()\n_ = pid and os.waitpid(pid, 0)\nprint('child' if pid == 0 else 'parent')";
    expect((await kernel.run(forked)).stdout.text).toBe("child\nparent\n");
    const exits =
      "pid = os.fork()\nif pid == 0: exit(2 ** 70 + 3)\nos.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])";
    expect(await kernel.value(exits)).toBe("255");
    const pool =
      "import multiprocessing\ndef work(i):\n    print('w', i)\n    return i * i\nwith multiprocessing.get_context('fork').Pool(2) as p:\n    r = p.map(work, [1, 2])\nr";
    expect(await kernel.value(pool)).toBe("[1, 4]");
  });

  it("is cut at its limit in bounded memory if code prints 200 MB", async () => {
    const fresh = await lab.kernel("python");
    let run = "";
    const { stdout, spilled } = await fresh.run("for _ in range(200): print('x' * (1 << 20))\nprint('end')", {
      cap: 3 * MB,
      onStart: (runID) => (run = runID),
    });
    expect(spilled).toBe(true);
    expect(stdout.bytes).toBe(200 * (MB + 1) + 4);
    expect(
      Buffer.from(stdout.last ?? [])
        .toString()
        .slice(-8),
    ).toBe("xxx\nend\n");
    expect(fresh.file(run, "out")).toHaveLength(3 * MB);
    const child = await fresh.run("import os; os.system('head -c 50000000 /dev/zero')", { cap: MB });
    expect(child.stdout).toMatchObject({ bytes: 50_000_000 });
    expect(fresh.peakBytes).toBeLessThan(150 * MB);
  });
});

/** Starts code that never ends, and interrupts it once it works. */
async function interrupt(code: string): Promise<void> {
  const document = await kernel.run(`print('on')\n${code}`, {
    onStart: (runID) =>
      void until(() => kernel.file(runID, "out") !== "").then(() => kernel.signal("SIGINT")),
  });
  expect(document.error?.name).toBe("KeyboardInterrupt");
}

describe("an interrupt", () => {
  it.each([
    ["a busy loop", "while True: pass"],
    ["a sleep", "time.sleep(1000)"],
    ["an await", "await asyncio.sleep(1000)"],
    ["a shell command", "os.system('sleep 1000')"],
    ["a child process", "subprocess.run(['sleep', '1000'])"],
    ["endless printing", "while True: print(1)"],
    ["an endless __repr__", "class Slow:\n    def __repr__(self):\n        while True: pass\nprint(Slow())"],
  ])("ends %s and keeps the state", async (_name, code) => {
    await kernel.run("import asyncio, os, subprocess, time\nkept = 'kept'");
    await interrupt(code);
    expect(await kernel.value("kept")).toBe("'kept'");
  });

  it("changes nothing between runs", async () => {
    for (let index = 0; index < 20; index++) kernel.signal("SIGINT");
    expect(await kernel.value("kept")).toBe("'kept'");
  });

  it("leaves a usable kernel, whenever it arrives", async () => {
    for (let index = 0; index < 60; index++) {
      const running = kernel.run("for i in range(3000): print(i)\n{'a': list(range(500))}");
      await sleep(index / 10);
      kernel.signal("SIGINT");
      await running;
    }
    expect(await kernel.value("kept")).toBe("'kept'");
  });
});
