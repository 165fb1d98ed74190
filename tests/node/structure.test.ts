import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;

/** The folders of the Worker in the order in which a request goes through them: each imports what stands below it. */
const LAYERS = [
  "index.ts",
  "server",
  "auth",
  "resources",
  "tools",
  "actors",
  "tasks",
  "runs",
  "container",
  "shared",
];

interface Import {
  from: string;
  to: string;
}

/** The TypeScript below a folder, by its path. */
function sources(folder: string): [path: string, text: string][] {
  const files = readdirSync(join(root, folder), { recursive: true, encoding: "utf8" });
  return files
    .filter((file) => file.endsWith(".ts"))
    .map((file) => [join(folder, file), readFileSync(join(root, folder, file), "utf8")]);
}

function imports(): Import[] {
  return sources("src").flatMap(([from, text]) =>
    Array.from(text.matchAll(/from "(\.[^"]+)"/g), ([, target = ""]) => ({
      from,
      to: normalize(join(dirname(from), target)),
    })),
  );
}

/** How far down a file stands; -1 for one outside of the layers. */
function layer(file: string): number {
  return LAYERS.indexOf(file.split("/")[1] ?? "");
}

test("a folder imports what stands below it", () => {
  const found = imports().filter(({ to }) => to.startsWith("src/"));
  expect(found.length).toBeGreaterThan(20);
  const against = found.filter(({ from, to }) => layer(from) < 0 || layer(to) < layer(from));
  expect(against.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
});

/** What the Worker shares with the program in the sandbox, and the panel that it serves. */
const SHARED = new Set(["package.json", "container/sandboxd/protocol.ts", "panel/built.js"]);

test("production code does not know the local platform", () => {
  const strangers = imports().filter(({ to }) => !to.startsWith("src/") && !SHARED.has(to));
  expect(strangers.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
});

test("no test that fails is run again: what passes at the second try hides a race", () => {
  expect(readFileSync(join(root, "vitest.config.ts"), "utf8")).not.toContain("retry");
});

test.each([
  ["waits", /^(?!.*").*setTimeout\(resolve\b/m, "tests/setup/until.ts"],
  [
    "names the headers of an MCP request",
    /^ *accept: "application\/json, text\/event-stream",$/m,
    "tests/setup/mcp-client.ts",
  ],
  ["reads the id of a run out of a text", /\[0-9a-z\]\{26\}t\?\\b/, "tests/setup/mcp-client.ts"],
])("only one file of the tests %s", (_what, pattern, file) => {
  const found = sources("tests").filter(([, text]) => pattern.test(text));
  expect(found.map(([path]) => path)).toEqual([file]);
});

test.each([
  ["isRecord", /function isRecord\b/, "src/shared/is-record.ts"],
  ["within", /function within\b/, "src/shared/within.ts"],
  ["DAY_MS", /(?<!\d)86_?400_?000\b|24 \* 60 \* 60/, "src/shared/days.ts"],
  ["DAY_SECONDS", /const DAY_SECONDS\b/, "src/shared/days.ts"],
  ["baseURL", /function baseURL\b/, "src/shared/env-fields.ts"],
])("there is one %s", (_name, pattern, file) => {
  const found = ["src", "cli", "local", "bench", "scripts"].flatMap(sources);
  expect(found.filter(([, text]) => pattern.test(text)).map(([path]) => path)).toEqual([file]);
});
