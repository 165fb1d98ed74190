import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;

/** What each part of the Worker may import, beside itself. A request goes through them in this order. */
const ALLOWED: Record<string, readonly string[]> = {
  index: ["server", "tools", "sandbox"],
  server: ["auth", "tools"],
  auth: [],
  tools: ["sandbox", "runs"],
  sandbox: ["runs"],
  runs: [],
};

/** Vocabulary that imports nothing but vocabulary: anyone may use it. */
const LEAVES = [
  "src/server/config.ts",
  "src/server/log.ts",
  "src/auth/principal.ts",
  "src/sandbox/errors.ts",
  "src/sandbox/shell.ts",
  "src/runs/queue.ts",
];

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

function part(file: string): string {
  const [, name = ""] = file.split("/");
  return name.replace(/\.ts$/, "");
}

test("imports follow the arrow of a request", () => {
  const found = imports();
  expect(found.length).toBeGreaterThan(20);
  const against = found.filter(({ from, to }) => {
    if (!to.startsWith("src/") || LEAVES.includes(to)) return false;
    return part(from) !== part(to) && !ALLOWED[part(from)]?.includes(part(to));
  });
  expect(against.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
});

test("leaves import only leaves", () => {
  const against = imports().filter(({ from, to }) => LEAVES.includes(from) && !LEAVES.includes(to));
  expect(against.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
});

test("production code does not know the local platform", () => {
  const strangers = imports().filter(
    ({ to }) => !to.startsWith("src/") && relative("package.json", to) !== "",
  );
  expect(strangers.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
});
