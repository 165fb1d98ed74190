/** The user's modules that JavaScript and TypeScript cells import. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { Lab, type TestKernel, sharedDirectory } from "./kernel-harness.ts";

const files = {
  "data.json": '{"n": 7}',
  "good.mjs": "export const good = 1;\n",
  "bad.mjs": "export const a = 1;\n\nexport const = 2;\n",
  "through.mjs": "import './bad.mjs';\n",
  "bad.cjs": "\nlet = ;\n",
  "bad.ts": "export const a: number = 1;\nexport const = 2;\n",
  "missing.mjs": "import { zip } from './good.mjs';\n",
  "m.ts": "export enum E { A = 1, B }\nexport class Q { constructor(public n: number) {} }\n",
  "types.ts": "export type T = number;\nexport const t: T = 5;\n",
  "old.cts": "enum E { A = 3 }\nmodule.exports = { a: E.A };\n",
};

const directory = sharedDirectory();
for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
const lab = endLater(await Lab.open());

describe.each(["javascript", "typescript"] as const)("modules in %s", (language) => {
  let kernel: TestKernel;
  beforeAll(async () => {
    kernel = await lab.kernel(language);
    await kernel.run(`process.chdir(${JSON.stringify(directory)})`);
  });

  it("work after the current directory was removed", async () => {
    const fresh = await lab.kernel(language);
    await fresh.run(
      "const fs = require('fs'); const gone = fs.mkdtempSync('/tmp/gone-'); process.chdir(gone); fs.rmdirSync(gone)",
    );
    expect(await fresh.value("[typeof require('os').cpus, typeof (await import('os')).cpus]")).toBe(
      "[ 'function', 'function' ]",
    );
    await fresh.run(`process.chdir(${JSON.stringify(directory)})`);
    expect(await fresh.value("require('./data.json').n")).toBe("7");
  });

  it("are imported with their attributes", async () => {
    const code = "import data from './data.json' with { type: 'json' }\ndata.n";
    expect(await kernel.value(code)).toBe("7");
    expect(await kernel.value("(await import('./data.json', { with: { type: 'json' } })).default.n")).toBe(
      "7",
    );
    const { error } = await kernel.run(
      "import again from './data.json' with {\n  type: 'json',\n}\nthrow new Error('line 4')",
    );
    expect(error?.traceback.join("\n")).toMatch(/cell-\d+\.[jt]s:4/);
  });

  it("may be TypeScript with syntax that generates code, such as enums", async () => {
    expect(await kernel.value("import { E, Q } from './m.ts'\n[E.B, new Q(4).n]")).toBe("[ 2, 4 ]");
    expect(await kernel.value("import { t } from './types.ts'\nt")).toBe("5");
    expect(await kernel.value("require('./old.cts').a")).toBe("3");
  });

  it.each([
    ["import './bad.mjs'", "bad.mjs:3\nexport const = 2;\n             ^\nSyntaxError: Unexpected token '='"],
    ["import './through.mjs'", "bad.mjs:3\nexport const = 2;"],
    ["1\nrequire('./bad.cjs')", "bad.cjs:2\nlet = ;"],
    ["import './bad.ts'", "bad.ts:2\n"],
    ["import './missing.mjs'", "missing.mjs:1\nimport { zip } from './good.mjs';"],
  ])("have syntax errors with file and line: %s", async (code, place) => {
    const { error } = await kernel.run(code);
    expect(error?.name).toBe("SyntaxError");
    expect(error?.traceback.join("\n")).toContain(place);
  });
});
