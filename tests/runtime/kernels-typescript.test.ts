/** TypeScript in a kernel beyond types: lines of errors, enums of earlier cells, and features that Node lacks. */
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { Lab } from "./kernel-harness.ts";

const kernel = await endLater(await Lab.open()).kernel("typescript");

async function traceback(code: string): Promise<string> {
  const { error } = await kernel.run(code);
  return error?.traceback.join("\n").replaceAll(/cell-\d+/g, "cell") ?? "";
}

describe("errors of TypeScript", () => {
  it("in the syntax show the line and its source", async () => {
    expect(await traceback("let a = 1\n\nlet y = (1 +* 2)")).toBe(
      "cell.ts:3\nlet y = (1 +* 2)\n            ^\nSyntaxError: Expression expected",
    );
    expect(await traceback("const a = 1\nenum Q { A\n B }")).toMatch(/^cell.ts:3\nenum Q \{ A\n B \}\n/);
  });

  it.each([
    ["enum Lines { A,\n  B }\n"],
    ["namespace Space { export const y = 1 }\n\n"],
    ["class Point {\n  constructor(private x: number) {} }\n"],
  ])("name the right line after %j", async (before) => {
    const found = await traceback(`${before}const n: any = null\nn.x`);
    expect(found).toMatch(/^cell.ts:4\n {4}n\.x\nTypeError.*\n {4}at cell.ts:4:3$/);
    await kernel.run(`${before}function later() {\n  throw new Error('late') }`);
    expect(await traceback("later()")).toMatch(/at later \(cell.ts:4:9\)\n {4}at cell.ts:1:1$/);
    expect(await traceback(`${before}let ok\nlet = ;`)).toMatch(/^cell.ts:4\n[^]*let = ;\n/);
  });

  it.each(["not-there-at-all", "./not-there.js"])(
    "of a static import of %s show the import's line",
    async (name) => {
      const found = await traceback(`const before = 1;\nimport x from "${name}";`);
      expect(found).toMatch(/^cell.ts:2\n {4}import x from .*\nError: Cannot find (package|module) '.*'/);
      expect(found).not.toContain("node:internal");
    },
  );
});

describe("enums", () => {
  it("are replaced by a later cell's declaration, and merge within one cell", async () => {
    await kernel.run("enum Color { Red, Green }");
    expect(await kernel.value("enum Color { Blue = 5 }\nColor")).toBe("{ '5': 'Blue', Blue: 5 }");
    expect(await kernel.value("enum Sum { A }\nenum Sum { B = 1 }\nSum.B + Sum.A")).toBe("1");
  });
});

describe("import.meta", () => {
  it("has the path of a module in the current directory", async () => {
    const code =
      "[import.meta.dirname === process.cwd(), 'import.meta', import.meta.resolve('node:fs'), import.meta.url]";
    expect(await kernel.value(code)).toMatch(
      /^\[\s*true,\s*'import.meta',\s*'node:fs',\s*'file:\/\/\/.*\/cell.js'\s*\]$/,
    );
  });
});

describe("a feature that Node lacks", () => {
  it.each([
    ["function d(c: any, o: any) {}\n@d class C {}", /^cell.ts:2\n@d class C[^]*Decorators do not work here/],
    ["enum E { A }\n@d class C {}", /^cell.ts:2\n@d class C[^]*Decorators do not work here/],
    ["class A { accessor v = 3 }", /`accessor` does not work here/],
    ["const ok = 1\nconst el = <div>hi</div>", /^cell.ts:2\n[^]*JSX does not work here/],
    ["const el = <App n={1} />", /JSX does not work here/],
  ])("has a readable error: %s", async (code, words) => {
    expect(await traceback(code)).toMatch(words);
  });
});
