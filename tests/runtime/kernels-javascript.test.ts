import { writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { until } from "../setup/until.ts";
import { endLater } from "../setup/end-later.ts";
import { Lab } from "./kernel-harness.ts";

const lab = endLater(await Lab.open());
const kernel = await lab.kernel("javascript");

const MB = 1024 * 1024;

describe("a JavaScript kernel", () => {
  it("keeps declarations, and accepts a second declaration of the same name", async () => {
    await kernel.run("const x = 1; let y = 2; class A { n = 3 } function f() { return x + y }");
    expect(await kernel.value("f() + new A().n")).toBe("6");
    expect(await kernel.value("const x = 10; let y = 20; f()")).toBe("30");
    expect(await kernel.value("const later = 1")).toBeUndefined();
  });

  it("shows warnings in the output of their cell", async () => {
    const { stderr } = await kernel.run(
      "process.emitWarning('old', { type: 'DeprecationWarning', code: 'D1' })",
    );
    expect(stderr.text).toMatch(/^\(node:\d+\) \[D1\] DeprecationWarning: old\n$/);
  });

  it.each([
    "Object.prototype.toJSON = () => 'mine'",
    "Array.prototype.map = Array.prototype.findIndex = null",
    "String.prototype.replace = String.prototype.split = RegExp.prototype.exec = () => { throw 1 }",
    "Object.prototype.get = Promise.prototype.then = Promise.prototype.finally = Map.prototype.get = 1",
    "delete Array.prototype.at; delete Object.entries; delete JSON.stringify",
  ])("continues after a cell that does this: %s", async (change) => {
    const other = await lab.kernel("javascript");
    await other.run(change);
    expect(await other.value("`${[1, 2].length}`")).toBe("'2'");
    expect((await other.run("(() => missing)()")).error?.message).toBe("missing is not defined");
    expect((await other.run("console.log('shown')")).stdout.text).toBe("shown\n");
  });

  it("shows any value", async () => {
    expect(await kernel.value("{a: 1}")).toBe("{ a: 1 }");
    expect(await kernel.value("new Map([[1, new Set([2])]])")).toBe("Map(1) { 1 => Set(1) { 2 } }");
    expect(await kernel.value("const c = {}; c.c = c; c")).toContain("[Circular");
    expect(await kernel.value("12n")).toBe("12n");
    expect(await kernel.value("-0")).toBe("-0");
    expect(await kernel.value("null")).toBe("null");
    expect(await kernel.value("'\\ud800 €'")).toBe("'\\ud800 €'");
    expect(await kernel.value("new Error('as a value')")).toMatch(
      /^Error: as a value\n {4}at cell-\d+\.js:1:1$/,
    );
    expect(await kernel.value("'y'.repeat(10 ** 7)")).toMatch(
      /^'y{16319}\n\[\.\.\. 9967360 of 10000000 characters omitted: print it, or write it to a file \.\.\.\]\ny{16319}'$/,
    );
    const keys = "Object.fromEntries(Array.from({ length: 50000 }, (_, i) => ['key' + i, i]))";
    expect((await kernel.value(keys))?.length).toBeLessThanOrEqual(32 * 1024);
    expect((await kernel.run("display({png: 1}); display(2); 3")).results).toHaveLength(3);
  });

  it("cuts no character in half", async () => {
    // One of two neighbouring paddings puts each cut inside an emoji.
    const shownForms = ["x", "xx"].flatMap((pad) => [
      `Array(900).fill("${pad}" + "😀".repeat(50))`,
      `({ [Symbol.for("Jupyter.display")]: () => ({ "text/plain": "${pad}" + "😀".repeat(20_000) + "y" }) })`,
      `({ [Symbol.for("Jupyter.display")]: () => ({ "text/plain": "${pad}" + "😀".repeat(20_000) }) })`,
    ]);
    for (const code of shownForms) {
      const shown = await kernel.value(code);
      expect(shown).toContain("characters omitted");
      expect(shown?.isWellFormed()).toBe(true);
    }
    for (const pad of ["x", "xx"]) {
      const { error } = await kernel.run(
        `const e = new Error("${pad}" + "😀".repeat(40_000)); e.name = "${pad}" + "😀".repeat(200); throw e`,
      );
      expect(error?.message).toContain("characters omitted");
      expect(
        [error?.name, error?.message, ...(error?.traceback ?? [])].every((text) => text?.isWellFormed()),
      ).toBe(true);
    }
  });

  it("has Node's globals, all of one realm", async () => {
    expect(
      await kernel.value("[typeof fetch, typeof URL, require('fs').readdirSync('/') instanceof Array]"),
    ).toBe("[ 'function', 'function', true ]");
    expect(await kernel.value("require.main === module")).toBe("true");
  });

  it("rewrites imports and exports in code, and not in strings or comments", async () => {
    const code = [
      "// import nothing from 'nowhere'",
      "import fs, { existsSync as exists } from 'node:fs'",
      'import * as os from "os"',
      "import {\n  sep as slash,\n} from 'node:path'",
      "export const text = 'import(\"x\")';",
      "[exists('/'), typeof fs.readFileSync, typeof os.cpus, slash, text, typeof (await import('node:url')).URL]",
    ].join("\n");
    expect(await kernel.value(code)).toBe(
      "[ true, 'function', 'function', '/', 'import(\"x\")', 'function' ]",
    );
    const { error } = await kernel.run("import {\n  sep,\n} from 'node:path'\nthrow new Error('line 4')");
    expect(error?.traceback.join("\n")).toMatch(/cell-\d+\.js:4/);
  });
});

describe("a TypeScript kernel", () => {
  it("runs types, enums and parameter properties", async () => {
    const typescript = await lab.kernel("typescript");
    expect(await typescript.value("interface P { n: number }\nconst p: P = { n: 1 }\np.n")).toBe("1");
    expect(await typescript.value("enum E { A = 1, B }\nE.B")).toBe("2");
    expect(await typescript.value("E.A")).toBe("1");
    expect(await typescript.value("class Q { constructor(public n: number) {} }\nnew Q(3).n")).toBe("3");
    expect(
      await typescript.value("import type { Stats } from 'node:fs'\nimport { sep } from 'node:path'\nsep"),
    ).toBe("'/'");
    expect((await typescript.run("let x: = 3")).error?.name).toBe("SyntaxError");
    expect(
      (await typescript.run("const a: number = 1\nthrow new TypeError(`${a}`)")).error?.traceback[0],
    ).toMatch(/\.ts:2$/);
  });
});

describe("errors of JavaScript", () => {
  it("are structured, and have only the user's frames", async () => {
    const { error, stderr } = await kernel.run("function g() {\n  null.x\n}\ng()");
    expect(error?.name).toBe("TypeError");
    expect(error?.message).toContain("null");
    expect(error?.traceback.slice(0, 2)).toEqual([expect.stringMatching(/^cell-\d+\.js:2$/), "    null.x"]);
    expect(error?.traceback.join("\n")).toMatch(/at g \(cell-\d+\.js:2:\d+\)\n {4}at cell-\d+\.js:4:1$/);
    expect(stderr.text).toBe("");
  });

  it("show where a syntax error is", async () => {
    const { error } = await kernel.run("let ok = 1\nlet = ;");
    expect(error?.traceback.join("\n")).toMatch(/^cell-\d+\.js:2\nlet = ;\n {6}\^\nSyntaxError/);
    expect((await kernel.run("JSON.parse('{')")).error?.traceback.join("\n")).toMatch(/at cell-\d+\.js:1:6/);
  });

  it("of any kind do not end the kernel", async () => {
    expect((await kernel.run("throw { code: 7 }")).error?.message).toBe("{ code: 7 }");
    expect(await kernel.run("process.exit(3)")).toMatchObject({ error: { name: "SystemExit" }, exit: 3 });
    expect(await kernel.run("process.exit()")).toMatchObject({ error: null, exit: 0 });
    const timerError = await kernel.run(
      "setTimeout(() => { throw new Error('timer') }, 1); await new Promise((r) => setTimeout(r, 20))",
    );
    expect(timerError.stderr.text).toContain("Error: timer");
    expect(
      (await kernel.run("Promise.reject(new Error('unheard')); await new Promise((r) => setTimeout(r, 5))"))
        .stderr.text,
    ).toContain("Error: unheard");
    expect((await kernel.run("const r = () => r(); r()")).error?.name).toBe("RangeError");
    expect(await kernel.value("f()")).toBe("30");
  });
});

describe("a JavaScript kernel's output", () => {
  it("includes the console, file descriptors and child processes", async () => {
    const spoken = await kernel.run(
      "console.log('log €'); console.error('err'); require('fs').writeSync(1, 'fd\\n')",
    );
    expect(spoken.stdout.text).toBe("log €\nfd\n");
    expect(spoken.stderr.text).toBe("err\n");
    const spawned = await kernel.run(
      "const cp = require('child_process'); await new Promise((r) => cp.spawn('echo', ['child'], { stdio: 'inherit' }).on('close', r))",
    );
    expect(spawned.stdout.text).toBe("child\n");
    const waited = await kernel.run("cp.execSync('echo sync; echo no >&2', { stdio: 'inherit' })");
    expect([waited.stdout.text, waited.stderr.text]).toEqual(["sync\n", "no\n"]);
    expect(await kernel.value("cp.execSync('echo piped').toString()")).toBe("'piped\\n'");
    expect(await kernel.value("require('fs').readFileSync(0, 'utf8')")).toBe("''");
  });

  it("goes to the function with which code replaces process.stdout.write", async () => {
    const code =
      "const w = process.stdout.write; let got = ''; process.stdout.write = (c) => (got += c, true); console.log('in'); process.stdout.write = w; got";
    const { results, stdout } = await kernel.run(code);
    expect([results[0]?.text, stdout.text]).toEqual(["'in\\n'", ""]);
  });

  it.each([
    ["console.log = () => {}", "typeof console.log(1)", "'undefined'"],
    ["let mine; console.log = (line) => (mine = line)", "console.log('line'); mine", "'line'"],
    ["console = { log: () => 'mine' }", "console.log(1)", "'mine'"],
    ["const console = { log: () => 'mine' }", "console.log(1)", "'mine'"],
    ["delete console.log", "typeof console.log", "'undefined'"],
    ["console.group()", "7", "7"],
    ["JSON.stringify = () => 'mine'", "JSON.stringify(1)", "'mine'"],
    ["globalThis.JSON = { parse: () => 1, stringify: () => 'mine' }", "JSON.stringify(1)", "'mine'"],
    ["let JSON = { stringify: () => 'mine' }", "JSON.stringify(1)", "'mine'"],
    ["function process() { return 'mine' }", "process()", "'mine'"],
    ["const process = { stdout: 'mine' }", "process.stdout", "'mine'"],
    [
      "class Array {}; class Error {}; class Map {}; class Set {}; class Promise {}; const Buffer = 'mine'",
      "Buffer",
      "'mine'",
    ],
    [
      "function Object() { return 'mine' }; let String, Number, Boolean, Reflect, Symbol",
      "Object()",
      "'mine'",
    ],
  ])(
    "and values arrive after code ran %s",
    async (replace, use, value) => {
      const fresh = await lab.kernel("javascript");
      await fresh.run(`const kept = 'kept', { writeSync } = require('fs'); ${replace}`);
      for (let index = 0; index < 2; index++) {
        const { stdout, results } = await fresh.run(`writeSync(1, 'out'); display(kept); ${use}`);
        expect(stdout.text).toBe("out");
        expect(results.map(({ text }) => text)).toEqual(["'kept'", value]);
      }
    },
    30_000,
  );

  it("of code that goes on after its cell does not take the place of the cell's values", async () => {
    const fresh = await lab.kernel("javascript");
    const print =
      "(async () => { for (let n = 0; n < 300; n++) { await null; if (n > 2) console.log(n) } })()";
    expect((await fresh.run(`${print}; 'value'`)).results[0]?.text).toBe("'value'");
    const { results, stdout } = await fresh.run("'next'");
    expect(results[0]?.text).toBe("'next'");
    expect(stdout.text).toMatch(/^(\d+\n)*$/);
  });

  it("of a timer after its run belongs to the next run", async () => {
    await kernel.run("setTimeout(() => console.log('late'), 20)");
    expect((await kernel.run("await new Promise((r) => setTimeout(r, 60))")).stdout.text).toBe("late\n");
  });

  it("can be read while the code runs, even in a loop that never yields", async () => {
    const flag = `${lab.runs}/js-flag`;
    let run = "";
    const waiting = kernel.run(
      `const fs = require('fs'); console.log('early'); while (!fs.existsSync(${JSON.stringify(flag)})) process.stdout.write('.')`,
      { onStart: (id) => (run = id) },
    );
    await until(() => kernel.file(run, "out").length > 40_000);
    expect(kernel.file(run, "out")).toMatch(/^early\n\./);
    writeFileSync(flag, "");
    const { spilled, stdout } = await waiting;
    expect(spilled).toBe(true);
    expect(kernel.file(run, "out")).toHaveLength(stdout.bytes);
  });

  it("is cut at its limit in bounded memory if code prints 200 MB", async () => {
    const fresh = await lab.kernel("javascript");
    let run = "";
    const { stdout } = await fresh.run(
      "for (let i = 0; i < 200; i++) console.log('x'.repeat(1 << 20)); console.log('end')",
      {
        cap: 3 * MB,
        onStart: (id) => (run = id),
      },
    );
    expect(stdout.bytes).toBe(200 * (MB + 1) + 4);
    expect(
      Buffer.from(stdout.last ?? [])
        .toString()
        .slice(-8),
    ).toBe("xxx\nend\n");
    expect(fresh.file(run, "out")).toHaveLength(3 * MB);
    const child = await fresh.run(
      "require('child_process').execSync('head -c 50000000 /dev/zero', { stdio: 'inherit' })",
      { cap: MB },
    );
    expect(child.stdout).toMatchObject({ bytes: 50_000_000 });
    expect(fresh.peakBytes).toBeLessThan(300 * MB);
  });

  it("is cut at its limit in bounded memory if code prints 300 MB as bytes", async () => {
    const fresh = await lab.kernel("javascript");
    const { stdout } = await fresh.run(
      `const bytes = Buffer.alloc(${MB}, 'x'); for (let i = 0; i < 300; i++) require('fs').writeSync(1, bytes)`,
      { cap: MB },
    );
    expect(stdout).toMatchObject({ bytes: 300 * MB });
    expect(fresh.peakBytes).toBeLessThan(300 * MB);
  });
});
