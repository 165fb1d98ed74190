import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parse } from "jsonc-parser";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { validate } from "../../cli/configuration.ts";
import { DAY_MS } from "../../src/shared/days.ts";
import { runHere } from "../setup/cli.ts";
import { DeploymentCopy } from "../setup/deployment.ts";
import { repository } from "../setup/server.ts";

let copy: DeploymentCopy;
let directory: string;

beforeEach(() => {
  copy = new DeploymentCopy();
  ({ directory } = copy);
});
afterEach(() => copy.remove());

const findFailures = () => validate(directory).filter(({ verdict }) => verdict === "failed");

it("every Durable Object except Account and Attempts has a container", () => {
  const { durable_objects, containers } = parse(copy.read("wrangler.jsonc"));
  const classesOf = (rows: { class_name: string }[]) => rows.map(({ class_name }) => class_name).toSorted();
  expect(classesOf([...containers, { class_name: "Account" }, { class_name: "Attempts" }])).toEqual(
    classesOf(durable_objects.bindings),
  );
});

it.each(
  "compatibility_date compatibility_flags durable_objects migrations r2_buckets kv_namespaces".split(" "),
)("wrangler.local.jsonc and wrangler.jsonc have the same %s", (key) => {
  const local = parse(readFileSync(join(repository, "wrangler.local.jsonc"), "utf8"));
  expect(local[key]).toEqual(parse(copy.read("wrangler.jsonc"))[key]);
});

it("validate finds no mistake in the repository's configuration", () => {
  expect(findFailures()).toEqual([]);
  expect(validate(directory).length).toBeGreaterThanOrEqual(10);
});

it.each([
  ["main", "wrangler.jsonc", "src/index.ts", "src/worker.ts"],
  ["compatibility_date", "wrangler.jsonc", "2026-09-01", "2999-01-01"],
  ["binding Sandbox", "wrangler.jsonc", '"name": "Sandbox"', '"name": "SANDBOX"'],
  ["migrations", "wrangler.jsonc", "new_sqlite_classes", "new_classes"],
  [
    "container class",
    "wrangler.jsonc",
    '"class_name": "Sandbox",\n      "image"',
    '"class_name": "Box",\n      "image"',
  ],
  [
    "container class",
    "wrangler.jsonc",
    '"class_name": "Sandbox",\n      "image"',
    '"class_name": "Account",\n      "image"',
  ],
  ["instance type", "wrangler.jsonc", '"standard-1"', '"dev"'],
  ["max_instances", "wrangler.jsonc", '"max_instances": 20,', ""],
  ["base image", "Dockerfile", /sandbox:\d+\.\d+\.\d+/, "sandbox:0.1.0"],
  ["base image", "Dockerfile", /sandbox:\S+/, "sandbox:latest"],
  ["base image", "Dockerfile", /sandbox:\S+/, "sandbox"],
  ["base image", "Dockerfile", /-python/, ""],
  ["base image", "Dockerfile", /$/, "\nFROM docker.io/cloudflare/sandbox:latest\n"],
  ["no secret in vars", "wrangler.jsonc", '"vars": {', '"vars": { "SERVER_AUTH_TOKEN": "in-plain-text",'],
] as const)("validate fails the check %s if in %s, %s becomes %s", (name, file, before, after) => {
  copy.replace(file, before, after);
  expect(findFailures()).toEqual([
    {
      name,
      verdict: "failed",
      found: expect.stringMatching(/line \d+/),
      fix: expect.stringMatching(/.{10}/),
    },
  ]);
});

interface Configuration {
  compatibility_date: string;
  compatibility_flags: string[];
  durable_objects: { bindings: { name: string }[] };
  r2_buckets: { binding: string }[];
  kv_namespaces: { binding: string }[];
}

const own: Configuration = parse(readFileSync(join(repository, "wrangler.jsonc"), "utf8"));
const dayBefore = new Date(Date.parse(own.compatibility_date) - DAY_MS).toISOString().slice(0, 10);

/**
 * A row for each setting that the Worker needs: the check that fails without the setting, the setting's name, and the changed part
 * of the configuration.
 */
const NEEDED: [check: string, what: string, changed: Partial<Configuration>][] = [
  ["compatibility_date", own.compatibility_date, { compatibility_date: dayBefore }],
  ...own.compatibility_flags.map((flag): (typeof NEEDED)[number] => [
    flag,
    flag,
    { compatibility_flags: own.compatibility_flags.filter((each) => each !== flag) },
  ]),
  ...own.durable_objects.bindings.map(({ name }): (typeof NEEDED)[number] => [
    `binding ${name}`,
    name,
    { durable_objects: { bindings: own.durable_objects.bindings.filter((each) => each.name !== name) } },
  ]),
  ...(["r2_buckets", "kv_namespaces"] as const).flatMap((kind) =>
    own[kind].map(({ binding }): (typeof NEEDED)[number] => [
      "storage",
      binding,
      { [kind]: own[kind].filter((each) => each.binding !== binding) },
    ]),
  ),
];

it.each(NEEDED)("validate fails only the check %s if the configuration lacks %s", (check, _what, changed) => {
  writeFileSync(join(directory, "wrangler.jsonc"), JSON.stringify({ ...own, ...changed }));
  expect(findFailures().map(({ name }) => name)).toEqual([check]);
});

it.each(['"huge"', '"standard-5"', "[]", '{ "vcpu": 2, "memory": 4096 }'])(
  "validate refuses the instance type %s",
  (value) => {
    copy.replace("wrangler.jsonc", '"standard-1"', value);
    expect(findFailures().map(({ name }) => name)).toEqual(["instance type"]);
  },
);

it.each(['"standard-4"', '{ "vcpu": 2, "memory_mib": 4096, "disk_mb": 8000 }'])(
  "validate accepts the instance type %s",
  (value) => {
    copy.replace("wrangler.jsonc", '"standard-1"', value);
    expect(findFailures()).toEqual([]);
  },
);

describe("without the package.json files", () => {
  beforeEach(() => {
    for (const file of ["package.json", "src/package.json"]) rmSync(join(directory, file));
  });

  it("validate accepts a FROM line that names an earlier stage", () => {
    copy.replace("Dockerfile", /(FROM \S+)/, "$1 AS base\nFROM base");
    expect(findFailures()).toEqual([]);
  });

  it("validate refuses the image tag latest", () => {
    copy.replace("Dockerfile", /sandbox:\S+/, "sandbox:latest");
    expect(findFailures()).toEqual([
      expect.objectContaining({
        name: "base image",
        found: "./Dockerfile, line 2: FROM docker.io/cloudflare/sandbox:latest",
      }),
    ]);
  });
});

it.each([
  ['"name": "Sandbox"', '"name": "SANDBOX"', "Sandbox"],
  ['"Account", "class_name": "Account"', '"Account", "class_name": "Box"', "Account"],
  ['{ "name": "Attempts", "class_name": "Attempts" },', "", "Attempts"],
])("validate names the line and the correction if a binding %s becomes %s", (before, after, name) => {
  copy.replace("wrangler.jsonc", before, after);
  const found = findFailures().find((each) => each.name === `binding ${name}`);
  expect(found?.fix).toContain(`{ "name": "${name}", "class_name": "${name}" }`);
  const line = Number(/line (\d+)/.exec(found?.found ?? "")?.[1]);
  expect(copy.read("wrangler.jsonc").split("\n")[line - 1]).toContain(after || '"bindings": [');
});

it("validate checks every container of the class Sandbox, and no other", () => {
  const [container] = parse(copy.read("wrangler.jsonc")).containers;
  const wrong = { class_name: "Sandbox", image: "missing/Dockerfile", instance_type: "lite" };
  const names = ["instance type", "max_instances", "image"];
  const failuresWith = (...containers: object[]) => {
    writeFileSync(join(directory, "wrangler.jsonc"), JSON.stringify({ ...own, containers }));
    return findFailures().map(({ name, found, fix }) => [
      name,
      /containers\[\d\]|\.\/Other/.exec(found + fix)?.[0],
    ]);
  };
  expect(failuresWith(wrong, container)).toEqual(names.map((name) => [name, "containers[0]"]));
  expect(failuresWith(container, wrong)).toEqual(names.map((name) => [name, "containers[1]"]));
  const other = { ...wrong, class_name: "Other" };
  expect(failuresWith(container, other)).toEqual([]);
  const all = ["container class", ...names].map((name) => [name, "containers[0]"]);
  expect(failuresWith(other)).toEqual(all);
  expect(failuresWith()).toEqual(all);
  writeFileSync(join(directory, "Other"), "FROM docker.io/cloudflare/sandbox:latest\n");
  expect(failuresWith(container, { ...container, image: "./Other" })).toEqual([["base image", "./Other"]]);
});

it("validate names the line of a wrong value", () => {
  copy.replace("wrangler.jsonc", '"standard-1"', '"lite"');
  const lines = copy.read("wrangler.jsonc").split("\n");
  const line = lines.findIndex((each) => each.includes('"lite"')) + 1;
  expect(findFailures()[0]?.found).toBe(`wrangler.jsonc, line ${line}`);
});

it.each([
  ["a missing file", () => rmSync(join(directory, "wrangler.jsonc")), "no "],
  ["a file that is not JSON", () => copy.replace("wrangler.jsonc", "{", "{{"), "not valid JSON at line"],
  [
    "a value of another type",
    () => copy.replace("wrangler.jsonc", '"containers": [', '"containers": 1, "x": ['),
    "containers: ",
  ],
])("validate reports %s as one failure", (_name, spoil, found) => {
  spoil();
  expect(findFailures()).toEqual([expect.objectContaining({ found: expect.stringContaining(found) })]);
});

it("validate reports a weak token in .dev.vars as one failure", () => {
  writeFileSync(join(directory, ".dev.vars"), "SERVER_AUTH_TOKEN=short\n");
  expect(findFailures()).toEqual([expect.objectContaining({ name: ".dev.vars" })]);
});

describe("sandbox-mcp validate", () => {
  const FAILURE = "failed\tinstance type\twrangler.jsonc, line ";

  it("prints a line for each check, and exits with 1 if one failed", async () => {
    expect(await runHere(["validate", directory])).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^ok\tmain\tline \d+\n[^]*\nAll is well\. Not tried: \.dev\.vars\n$/),
      stderr: "",
    });
    copy.replace("wrangler.jsonc", '"standard-1"', '"lite"');
    const spoilt = await runHere(["validate"], { cwd: directory });
    expect(spoilt).toMatchObject({ code: 1, stderr: expect.stringContaining("instance type: ") });
    expect(spoilt.stdout).toContain(FAILURE);
    expect(spoilt.stdout).toMatch(/\nFailed: instance type; Not tried: \.dev\.vars\n$/);
  });

  it("prints data with --json", async () => {
    copy.replace("wrangler.jsonc", '"standard-1"', '"lite"');
    const { code, stdout } = await runHere(["validate", directory, "--json"]);
    expect([code, JSON.parse(stdout)]).toEqual([
      1,
      {
        success: false,
        checks: expect.arrayContaining([
          expect.objectContaining({ name: "instance type", verdict: "failed" }),
        ]),
      },
    ]);
  });

  it("reports a missing directory like a directory without a configuration", async () => {
    const { code, stdout } = await runHere(["validate", join(directory, "none")]);
    expect([code, stdout]).toEqual([
      1,
      expect.stringContaining(`no ${join(directory, "none/wrangler.jsonc")}`),
    ]);
  });
});
