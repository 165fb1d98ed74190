/** The lint rule `layers/texts`, which keeps the sentences of an area in its `texts.ts`. */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { beforeAll, expect, it } from "vitest";
import { temporaryDirectory } from "../setup/temporary.ts";

const REPORTED: Record<string, string> = {
  "a sentence in a string": 'show("The file is too large.");',
  "a sentence with a value": "show(`The file has ${size} bytes.`);",
  "a sentence with markup in it": "show(sentence`The file is saved as ${path}.`);",
  "a sentence in markup": "show(markup`<p>The file is too large.</p>`);",
  "a sentence in markup, with a value": "show(markup`<p>Saved as <code>${path}</code>. Send it.</p>`);",
  "a heading in markup": "show(markup`<h1>Upload a file</h1>\n<p>${about}</p>`);",
  "a label in markup": "show(markup`<button ${button}>Upload</button>`);",
  "a name for screen readers in markup": 'show(markup`<progress aria-label="Uploaded so far"></progress>`);',
  "words in markup without an element": "show(markup`Published by ${domain}`);",
  "a text of the client library's errors": 'throw new SandboxError("closed", "The connection was closed.");',
  "a sentence in JSX": "show(<p>No sandbox has this name.</p>);",
  "a sentence in JSX after an element": "show(<p><code>{command}</code> prints the token.</p>);",
};

const ALLOWED: Record<string, string> = {
  "markup that has only values": 'show(markup`<h1>${title}</h1>\n<p class="soft">${about} ${link}</p>`);',
  "attributes in markup":
    'show(markup`<p${isWide && markup` class="wide"`}${isDone && markup` hidden`}>${a}</p>`);',
  "code in markup": "show(markup`<code>curl -T FILE ${url}</code>&lt;${name}&gt;`);",
  "templates of other languages": "run(sql`SELECT name FROM sandboxes WHERE used IS NULL.`);",
  "labels in JSX": "show(<button>Delete sandbox</button>);",
  "messages of internal errors": 'throw new TypeError("The value is not a number.");',
};

const root = join(import.meta.dirname, "../..");
const directory = temporaryDirectory();
const fileOf = (what: string) => join(directory, `${what.replaceAll(/\W+/g, "-")}.tsx`);
let reported: Set<string>;
let checkedFiles: number;

beforeAll(() => {
  for (const [what, code] of Object.entries({ ...REPORTED, ...ALLOWED })) writeFileSync(fileOf(what), code);
  const config = join(directory, "oxlintrc.json");
  const jsPlugins = [join(root, "scripts/lint-layers.ts")];
  const settings = { jsPlugins, categories: { correctness: "off" }, rules: { "layers/texts": "error" } };
  writeFileSync(config, JSON.stringify(settings));
  const oxlint = join(root, "node_modules/oxlint/bin/oxlint");
  const args = [oxlint, "--config", config, "--format", "json", directory];
  const { stdout } = spawnSync(process.execPath, args, { cwd: directory });
  const result = JSON.parse(String(stdout)) as {
    diagnostics: { code: string; filename: string }[];
    number_of_files: number;
  };
  checkedFiles = result.number_of_files;
  const found = result.diagnostics.filter(({ code }) => code === "layers(texts)");
  reported = new Set(found.map(({ filename }) => basename(filename)));
});

it("checks every example", () => {
  expect(checkedFiles).toBe(Object.keys(REPORTED).length + Object.keys(ALLOWED).length);
});

it.each(Object.keys(REPORTED))("reports %s", (what) => {
  expect(reported).toContain(basename(fileOf(what)));
});

it.each(Object.keys(ALLOWED))("allows %s", (what) => {
  expect(reported).not.toContain(basename(fileOf(what)));
});
