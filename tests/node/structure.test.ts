import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { expect, test } from "vitest";

const root = new URL("../../", import.meta.url).pathname;

/** What each part of the Worker may import, beside itself. A request goes through them in this order. */
const ALLOWED: Record<string, readonly string[]> = {
  index: ["server", "auth", "tools", "actor"],
  server: ["auth", "tools"],
  auth: [],
  tools: ["actor", "runs", "sandbox"],
  actor: ["runs", "container", "sandbox"],
  runs: ["container", "sandbox"],
  container: ["sandbox"],
  sandbox: [],
};

/** The Durable Objects, what is theirs alone, and the way to them; what else is in src/sandbox are parts for runs too. */
const ACTORS = new Set([
  "src/sandbox/sandbox.ts",
  "src/sandbox/parts.ts",
  "src/sandbox/resume.ts",
  "src/sandbox/stakes.ts",
  "src/sandbox/housekeeping.ts",
  "src/sandbox/membership.ts",
  "src/sandbox/account.ts",
  "src/sandbox/handle.ts",
  "src/sandbox/egress.ts",
  "src/sandbox/storage.ts",
]);

/** Vocabulary that imports nothing but vocabulary: anyone may use it. */
const LEAVES = new Set([
  "src/server/answers.ts",
  "src/server/config.ts",
  "src/server/door-config.ts",
  "src/server/limiter.ts",
  "src/server/log.ts",
  "src/server/mounts.ts",
  "src/server/origin.ts",
  "src/server/values.ts",
  "src/server/variables.ts",
  "src/server/visit.ts",
  "src/auth/principal.ts",
  "src/sandbox/bounded-json.ts",
  "src/sandbox/errors.ts",
  "src/sandbox/text.ts",
  "src/sandbox/naming.ts",
  "src/runs/queue.ts",
]);

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
  if (ACTORS.has(file)) return "actor";
  const [, name = ""] = file.split("/");
  return name.replace(/\.ts$/, "");
}

test("imports follow the arrow of a request", () => {
  const found = imports();
  expect(found.length).toBeGreaterThan(20);
  const against = found.filter(({ from, to }) => {
    if (!to.startsWith("src/") || LEAVES.has(to)) return false;
    return part(from) !== part(to) && !ALLOWED[part(from)]?.includes(part(to));
  });
  expect(against.map(({ from, to }) => `${from} -> ${to}`)).toEqual([]);
});

test("leaves import only leaves", () => {
  const against = imports().filter(({ from, to }) => LEAVES.has(from) && !LEAVES.has(to));
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
