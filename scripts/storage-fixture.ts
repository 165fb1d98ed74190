/**
 * `node scripts/storage-fixture.ts <commit>` writes tests/fixtures/storage/<commit>: the data that the server of a commit stores.
 * The upgrade test reads every folder there. Before you change a table, run this script for the last commit with the old tables,
 * unless a folder already has data in these tables. The script makes a worktree of that commit and removes it.
 */
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";

interface Stored {
  at: number;
  actors: Record<string, { sql: string; keys: Record<string, unknown> }[]>;
  objects: Record<string, string>;
  answers: unknown;
}

const [commit] = process.argv.slice(2);
if (!commit) throw new Error("Usage: node scripts/storage-fixture.ts <commit>");
const root = join(import.meta.dirname, "..");
const folder = join(root, "tests/fixtures/storage");
const short = execFileSync("git", ["rev-parse", "--short=7", commit], { cwd: root, encoding: "utf8" }).trim();
const test = "tests/worker/account/storage-fixture.test.ts";
const worktree = join(mkdtempSync(join(tmpdir(), "storage-fixture-")), short);

const into = join(folder, short);

/** The name of an actor's sandbox, principal or counter. */
function nameOf({ owner, principal, ...keys }: Record<string, unknown>): string {
  if (typeof principal === "string") return principal;
  if (owner) return (owner as { sandbox: string }).sandbox;
  return "strangers:clear-at" in keys ? "owner" : "clients";
}

function write({ at, actors, objects, answers }: Stored): void {
  rmSync(into, { recursive: true, force: true });
  mkdirSync(into, { recursive: true });
  const keys: Record<string, unknown> = {};
  for (const [kind, all] of Object.entries(actors))
    for (const actor of all) {
      const name = `${kind}.${nameOf(actor.keys)}`;
      writeFileSync(join(into, `${name}.sql`), actor.sql);
      keys[name] = actor.keys;
    }
  writeFileSync(join(into, "stored.json"), `${JSON.stringify({ at, keys, objects, answers }, null, 2)}\n`);
}

const server = createServer(async (request, response) => {
  const stored: Stored | { oauth: unknown } = JSON.parse(await text(request));
  if ("oauth" in stored)
    writeFileSync(join(into, "oauth.json"), `${JSON.stringify(stored.oauth, null, 2)}\n`);
  else write(stored);
  response.end();
}).listen(0, "127.0.0.1");
await once(server, "listening");
const { port } = server.address() as AddressInfo;
const run = async (command: string, ...args: string[]) => {
  const [code] = await once(spawn(command, args, { cwd: worktree, stdio: "inherit" }), "exit");
  if (code !== 0) throw new Error(`${command} exited with ${code}`);
};

execFileSync("git", ["worktree", "add", "--detach", worktree, commit], { cwd: root });
try {
  await run("npm", "ci", "--no-audit", "--no-fund");
  const scenario = readFileSync(join(folder, "scenario.ts"), "utf8");
  writeFileSync(join(worktree, test), scenario.replace("http://SINK", `http://127.0.0.1:${port}`));
  await run("npx", "vitest", "run", test);
} finally {
  server.close();
  rmSync(join(worktree, test), { force: true });
  execFileSync("git", ["worktree", "remove", "--force", worktree], { cwd: root });
}
