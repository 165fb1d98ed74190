/** Notebook and script features of a Python kernel: local modules, threads, tasks and the real streams. */
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { Lab, sharedDirectory } from "./kernel-harness.ts";
import { until } from "../setup/until.ts";

const directory = sharedDirectory();
const traps = sharedDirectory();
const lab = endLater(await Lab.open());
const kernel = await lab.kernel("python");

describe("imports", () => {
  it("find files of the current directory first", async () => {
    writeFileSync(join(directory, "helper.py"), "def name(): return 'helper'\n");
    await kernel.run(`import os, sys\nos.chdir(${JSON.stringify(directory)})`);
    expect(await kernel.value("import helper\nhelper.name(), sys.path[0]")).toBe("('helper', '')");
  });

  it("of files that are named like Python's own modules do not break a kernel", async () => {
    const names = "json random token tokenize re ast base64 timeit runpy asyncio".split(" ");
    for (const name of [...names, "unicodedata", "inspect", "contextlib", "queue", "tempfile"]) {
      writeFileSync(join(traps, `${name}.py`), "raise RuntimeError('the wrong module')\n");
    }
    const fresh = await lab.kernel("python");
    await fresh.run(`%cd ${traps}`);
    expect((await fresh.run("%timeit -n 1 1+1")).stdout.text).toContain("per loop");
    expect(await fresh.value("import asyncio\nawait asyncio.sleep(0, {'a': 1})")).toBe("{'a': 1}");
    expect((await fresh.run("é = 1\nx = 1 / 0 + é")).error?.traceback.join("\n")).toContain("x = 1 / 0 + é");
    expect((await fresh.run("!echo $HOME")).error).toBeNull();
    expect((await fresh.run("from IPython.display import JSON\nJSON({'a': 1})")).error).toBeNull();
  });
});

describe("the real stdout", () => {
  it("belongs to the run, however code writes to it", async () => {
    const code = [
      "import io, os, subprocess, sys",
      "sys.stdout = io.StringIO(); print('aside'); sys.stdout = sys.__stdout__; print('one')",
      "print('two', file=sys.__stdout__)",
      "_ = os.write(1, b'three\\n')",
      "subprocess.run(['echo', 'four'])",
      "with open('/dev/stdout', 'w') as f: f.write('five\\n')",
      "sys.__stdout__.buffer.write(b'six\\n'); sys.__stdout__.flush()",
      "print('err', file=sys.__stderr__)",
      "sys.__stdin__.readline()",
    ].join("\n");
    const { stdout, stderr, results } = await kernel.run(code);
    expect(stdout.text?.split("\n").toSorted()).toEqual(["", "five", "four", "one", "six", "three", "two"]);
    expect([stderr.text, results[0]?.text]).toEqual(["err\n", "''"]);
    expect(await kernel.value("1 + 1")).toBe("2");
  });
});

describe("threads", () => {
  it("that print between two runs add their output to the next run", async () => {
    const file = join(directory, "printed");
    await kernel.run(
      `import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.1), print('done'), open("${file}", "w"))).start()`,
    );
    await until(() => existsSync(file));
    expect((await kernel.run("pass")).stdout.text).toBe("done\n");
  });

  it("that print all the time do not break a run, and their output is complete and in order", async () => {
    const fresh = await lab.kernel("python");
    // Pauses where a run takes over the output that threads print.
    const program = `
import sys, threading, time
def pause(frame, event, what):
    if frame.f_code.co_name == 'empty_capture' and event in ('call', 'c_return'): time.sleep(0.01)
sys.setprofile(pause)
def chat():
    n = 0
    while True:
        print(end=f'tick {n}\\n'); n += 1; time.sleep(0.005)
threading.Thread(target=chat, daemon=True).start()`;
    let printed = (await fresh.run(program)).stdout.text ?? "";
    for (let index = 0; index < 20; index++) {
      const { stdout, error, results } = await fresh.run(`print(end='cell ${index}\\n')\n${index}`);
      expect([error, results[0]?.text]).toEqual([null, String(index)]);
      expect(stdout.text).toContain(`cell ${index}\n`);
      printed += stdout.text;
    }
    const ticks = [...printed.matchAll(/tick (\d+)/g)].map((found) => Number(found[1]));
    expect(ticks).toEqual(ticks.map((_, index) => index));
    expect(ticks.length).toBeGreaterThan(0);
  });

  it("that print too much between two runs have their output cut, with a note", async () => {
    const file = join(directory, "printed-much");
    await kernel.run(`threading.Timer(0.05, lambda: (print('z' * 100000), open("${file}", "w"))).start()`);
    await until(() => existsSync(file));
    const { stdout } = await kernel.run("pass");
    expect(stdout.text).toMatch(
      /^z{16384}\n\[\.\.\. 83617 more bytes printed between two runs were not kept/,
    );
  });
});

describe("tasks of asyncio", () => {
  it("can be awaited by the last expression of their cell", async () => {
    const define = "import asyncio\nasync def w(n):\n    await asyncio.sleep(0.01)\n    return n";
    await kernel.run(define);
    expect(await kernel.value("task = asyncio.create_task(w(1))\nawait task")).toBe("1");
    expect(
      await kernel.value("ts = [asyncio.create_task(w(n)) for n in range(3)]\nawait asyncio.gather(*ts)"),
    ).toBe("[0, 1, 2]");
    const { error } = await kernel.run("await asyncio.sleep(0)\nx = 1\nawait w(1 / 0)");
    expect(error?.traceback.join("\n")).toMatch(/line 3, in <module>\n {4}await w\(1 \/ 0\)/);
    expect(await kernel.value("await asyncio.sleep(0)\nawait w(3);")).toBeUndefined();
    expect(await kernel.value("'__sandbox_mcp_value__' in globals()")).toBe("False");
  });

  it.each([
    "asyncio.ensure_future(w(7))",
    "asyncio.create_task(w(7))",
    "asyncio.get_event_loop().create_task(w(7))",
  ])("created in one cell by %s can be awaited in the next", async (make) => {
    await kernel.run(`t = ${make}`);
    expect(await kernel.value("await t")).toBe("7");
  });

  it("continue after asyncio.run", async () => {
    await kernel.run("t = asyncio.ensure_future(w(8)); await asyncio.sleep(0)");
    expect(await kernel.value("asyncio.run(w(9))")).toBe("9");
    expect(await kernel.value("await t")).toBe("8");
    expect(await kernel.value("asyncio.get_event_loop().run_until_complete(w(10))")).toBe("10");
  });
});

describe("multiprocessing", () => {
  it("starts processes with spawn, which do not have functions of a cell", async () => {
    const pool =
      "import multiprocessing as mp, math\nwith mp.get_context('spawn').Pool(2) as p: r = p.map(math.sqrt, [4, 9])\nr";
    expect(await kernel.value(pool)).toBe("[2.0, 3.0]");
    const own =
      "def mine(): pass\np = mp.get_context('spawn').Process(target=mine); p.start(); p.join(); p.exitcode";
    const { results, stderr } = await kernel.run(own);
    expect(results[0]?.text).toBe("1");
    expect(stderr.text).toContain("Can't get attribute 'mine' on <module '__main__'");
  });
});
