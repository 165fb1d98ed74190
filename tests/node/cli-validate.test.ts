/** `sandbox-mcp validate` finds each classic mistake by its name, and names the line. */
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { validate } from "../../cli/configuration.ts";
import { repository } from "../setup/server.ts";

let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-validate-"));
  mkdirSync(join(directory, "src"));
  for (const file of ["wrangler.jsonc", "Dockerfile", "package.json", "src/index.ts"])
    cpSync(join(repository, file), join(directory, file));
});
afterEach(() => rmSync(directory, { recursive: true }));

function replace(file: string, what: string | RegExp, by: string): void {
  const before = readFileSync(join(directory, file), "utf8");
  const after = before.replace(what, by);
  expect(after).not.toBe(before);
  writeFileSync(join(directory, file), after);
}

const failed = () => validate(directory).filter(({ verdict }) => verdict === "failed");

it("finds nothing wrong with the repository's own", () => {
  expect(failed()).toEqual([]);
  expect(validate(directory).length).toBeGreaterThanOrEqual(10);
});

it.each([
  ["main", "wrangler.jsonc", "src/index.ts", "src/worker.ts"],
  ["nodejs_compat", "wrangler.jsonc", '"nodejs_compat", ', ""],
  ["compatibility_date", "wrangler.jsonc", "2026-09-01", "2999-01-01"],
  ["binding names", "wrangler.jsonc", '"name": "Sandbox"', '"name": "SANDBOX"'],
  ["migrations", "wrangler.jsonc", "new_sqlite_classes", "new_classes"],
  [
    "container class",
    "wrangler.jsonc",
    '"class_name": "Sandbox",\n      "image"',
    '"class_name": "Box",\n      "image"',
  ],
  ["classes exported", "src/index.ts", /ContainerProxy/g, "Proxy"],
  ["instance type", "wrangler.jsonc", '"standard-1"', '"dev"'],
  ["max_instances", "wrangler.jsonc", '"max_instances": 20,', ""],
  ["base image", "Dockerfile", /sandbox:\d+\.\d+\.\d+/, "sandbox:0.1.0"],
  ["storage", "wrangler.jsonc", '"RESULTS"', '"BUCKET"'],
  ["no secret in vars", "wrangler.jsonc", '"vars": {', '"vars": { "SERVER_AUTH_TOKEN": "in-plain-text",'],
] as const)("%s", (name, file, what, by) => {
  replace(file, what, by);
  expect(failed()).toEqual([
    {
      name,
      verdict: "failed",
      found: expect.stringMatching(/line \d+|lacks/),
      fix: expect.stringMatching(/.{10}/),
    },
  ]);
});

it("names the line to change", () => {
  replace("wrangler.jsonc", '"standard-1"', '"lite"');
  const lines = readFileSync(join(directory, "wrangler.jsonc"), "utf8").split("\n");
  const line = lines.findIndex((each) => each.includes('"lite"')) + 1;
  expect(failed()[0]?.found).toBe(`wrangler.jsonc, line ${line}`);
});

it.each([
  ["a file that is not there", () => rmSync(join(directory, "wrangler.jsonc")), "no "],
  ["a file that is no JSON", () => replace("wrangler.jsonc", "{", "{{"), "no JSON at line"],
  [
    "a value of another type",
    () => replace("wrangler.jsonc", '"containers": [', '"containers": 1, "x": ['),
    "containers: ",
  ],
])("%s is one failure", (_name, spoil, found) => {
  spoil();
  expect(failed()).toEqual([expect.objectContaining({ found: expect.stringContaining(found) })]);
});

it("a weak token in .dev.vars is one", () => {
  writeFileSync(join(directory, ".dev.vars"), "SERVER_AUTH_TOKEN=short\n");
  expect(failed()).toEqual([expect.objectContaining({ name: ".dev.vars" })]);
});
