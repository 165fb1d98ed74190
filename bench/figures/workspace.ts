import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runFile } from "../../local/engine/host-programs.ts";
import type { Figure } from "../figure.ts";
import { type Row, row } from "../measure.ts";
import { IN_MEMORY } from "./transfer.ts";

/** A program that makes COUNT files of 50 KB in a hundred directories. One half of each file is text, the other is random. */
const TREE = `
const { mkdirSync, writeFileSync } = require("node:fs");
const { randomBytes } = require("node:crypto");
const words = randomBytes(4096).toString("base64").match(/.{1,6}/g);
for (let n = 0; n < Number(process.env.COUNT); n++) {
  let text = "";
  while (text.length < 25_000) text += words[Math.floor(Math.random() * words.length)] + " ";
  mkdirSync("d" + (n % 100), { recursive: true });
  writeFileSync("d" + (n % 100) + "/" + n, Buffer.concat([Buffer.from(text), randomBytes(25_000)]));
}`;

const SANDBOX = "bench-workspace";

/** Saves, forks and restores a workspace, against tar and restic with files of the same kind. */
export const workspace: Figure = {
  name: "workspace",
  baseline:
    "tar with gzip, or restic, in memory. A save is a call of checkpoint_sandbox. A restore is the first call in a fork, with the start of its container",
  async measure({ ours, directory }, { count }) {
    const files = count(10_000);
    const call = (name: string, args: Record<string, unknown>) => ours.tool(name, args);
    const save = async () =>
      /Checkpoint (\S+)/.exec(await call("checkpoint_sandbox", { sandbox: SANDBOX }))?.[1];
    const change = () => call("run_command", { sandbox: SANDBOX, command: "echo changed > d5/5" });
    const start = (sandbox: string) => call("run_command", { sandbox, command: "test -s d99/99" });
    const state = join(directory, "ours");

    await call("run_command", {
      sandbox: SANDBOX,
      command: "node -",
      stdin: TREE,
      env: { COUNT: `${files}` },
    });
    const all = await secondsOf(save);
    const nothing = await secondsOf(save);
    await change();
    const before = await bytesIn(state);
    const seconds = await secondsOf(save);
    const moved = (await bytesIn(state)) - before;
    const checkpoint = await save();
    const fork = await secondsOf(() => call("restore_sandbox", { checkpoint, sandbox: `${SANDBOX}-fork` }));
    const restore = await secondsOf(() => start(`${SANDBOX}-fork`));

    const rows: Row[] = [];
    for (const [tool, its] of [
      ["tar", await tar(files)],
      ["restic", await restic(files)],
    ] as const) {
      rows.push(
        row(`save of everything, against ${tool}`, "s", all, its.all),
        row(`save of nothing new, against ${tool}`, "s", nothing, its.one),
        row(`save of one file of ${files}, against ${tool}`, "s", seconds, its.one),
        row(`bytes of the save of one file, against ${tool}`, "MB", moved / 1e6, its.moved / 1e6),
        row(`fork, against ${tool}`, "s", fork, its.restore),
        row(`restore, against ${tool}`, "s", restore, its.restore),
      );
    }
    return rows;
  },
};

/**
 * A tool's times in seconds: for a save of everything, a save after one file was changed, and a restore. `moved` is the bytes
 * that the second save wrote.
 */
interface Tool {
  all: number;
  one: number;
  moved: number;
  restore: number;
}

/** Packs all files each time, so `one` is the same as `all`. */
async function tar(files: number): Promise<Tool> {
  return await withTree(files, async (tree, directory) => {
    const archive = join(directory, "archive.tar.gz");
    const pack = () => shell(`tar -c -C "$0" . | gzip >"$1"`, [tree, archive]);
    const all = await secondsOf(pack);
    const restore = await secondsOf(() =>
      shell(`mkdir "$0" && tar -xzf "$1" -C "$0"`, [`${tree}-back`, archive]),
    );
    return { all, one: all, moved: await bytesIn(archive), restore };
  });
}

async function restic(files: number): Promise<Tool> {
  return await withTree(files, async (tree, directory) => {
    const repository = join(directory, "repository");
    const call = (...args: string[]) =>
      runFile("restic", ["--quiet", "--no-cache", "--repo", repository, ...args], {
        env: { ...process.env, RESTIC_PASSWORD: "bench" },
      });
    await call("init").catch((error: unknown) => {
      throw new Error("restic cannot be run: apt-get install restic", { cause: error });
    });
    const all = await secondsOf(() => call("backup", tree));
    writeFileSync(join(tree, "d5/5"), "changed\n");
    const before = await bytesIn(repository);
    const one = await secondsOf(() => call("backup", tree));
    const moved = (await bytesIn(repository)) - before;
    const restore = await secondsOf(() => call("restore", "latest", "--target", `${tree}-back`));
    return { all, one, moved, restore };
  });
}

async function withTree<T>(files: number, work: (tree: string, directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(IN_MEMORY, "sandbox-mcp-bench-"));
  const tree = join(directory, "tree");
  mkdirSync(tree);
  try {
    await runFile(process.execPath, ["-e", TREE], { cwd: tree, env: { ...process.env, COUNT: `${files}` } });
    return await work(tree, directory);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

async function shell(command: string, args: readonly string[]): Promise<void> {
  await runFile("/bin/bash", ["-o", "pipefail", "-c", command, ...args]);
}

async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}

/** Bytes that a file, or all files below a directory, take. */
async function bytesIn(path: string): Promise<number> {
  const { stdout } = await runFile("du", ["-sb", path]);
  return Number.parseInt(stdout, 10);
}
