import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;

/** The folders of the Worker in the order in which a request goes through them: each imports what stands below it. */
const LAYERS = ["index.ts", "server", "auth", "tools", "actors", "tasks", "runs", "container", "shared"];

interface Import {
  from: string;
  to: string;
}

function imports(): Import[] {
  const files = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" });
  return files
    .filter((file) => file.endsWith(".ts"))
    .flatMap((file) => {
      const from = join("src", file);
      const source = readFileSync(join(root, from), "utf8");
      return Array.from(source.matchAll(/from "(\.[^"]+)"/g), ([, target = ""]) => ({
        from,
        to: normalize(join(dirname(from), target)),
      }));
    });
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

/** What the Worker shares with the program in the sandbox. */
const SHARED = new Set(["package.json", "container/sandboxd/protocol.ts"]);

test("production code does not know the local platform", () => {
  const strangers = imports().filter(({ to }) => !to.startsWith("src/") && !SHARED.has(to));
  expect(strangers.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
});

test("no test that fails is run again: what passes at the second try hides a race", () => {
  expect(readFileSync(join(root, "vitest.config.ts"), "utf8")).not.toContain("retry");
});
