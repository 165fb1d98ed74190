/** Archives that are too large to make in a sandbox, read by Python's zipfile. */
import { execFileSync } from "node:child_process";
import { createWriteStream, mkdirSync, readdirSync, readlinkSync, symlinkSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { randomBytes } from "node:crypto";
import { expect, it, onTestFinished } from "vitest";
import { zipped } from "../../container/sandboxd/zip.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();

/** The open files of this process. */
function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((number) => {
    try {
      return readlinkSync(`/proc/self/fd/${number}`);
    } catch {
      return [];
    }
  });
}

/** Packs a directory, and evaluates an expression with the archive in Python, which has checked all entries. */
async function seen(root: string, expression: string, largeBytes?: number): Promise<unknown> {
  const path = join(directory, `${basename(root)}.zip`);
  await pipeline(zipped(root, new AbortController().signal, largeBytes), createWriteStream(path));
  const program = `
import json, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
items = sorted(archive.infolist(), key=lambda item: item.filename)
print(json.dumps(${expression}))`;
  return JSON.parse(execFileSync("python3", ["-c", program, path], { encoding: "utf8" }));
}

it("an archive can contain more than 65,535 entries", async () => {
  // Creating links in memory is much faster than creating files on a disk.
  const root = await mkdtemp("/dev/shm/sandbox-mcp-zip-");
  onTestFinished(() => rm(root, { recursive: true }));
  for (let part = 0; part < 66; part++) {
    mkdirSync(join(root, String(part)));
    for (let n = 0; n < 1000; n++) symlinkSync("target", join(root, String(part), String(n)));
  }
  await writeFile(join(root, "last"), "last");
  expect(await seen(root, "[len(items), archive.read('last').decode()]")).toEqual([66_067, "last"]);
});

it("an archive writes sizes from four gigabytes on in eight bytes", async () => {
  const root = join(directory, "large");
  await mkdir(root);
  await writeFile(join(root, "noise"), randomBytes(700_000));
  await writeFile(join(root, "small"), "small");
  await writeFile(join(root, "zeros"), Buffer.alloc(3_000_000));
  const expression =
    "[[item.filename, item.file_size, item.extract_version, item.compress_type] for item in items]";
  expect(await seen(root, expression, 600_000)).toEqual([
    ["noise", 700_000, 45, 0],
    ["small", 5, 20, 0],
    ["zeros", 3_000_000, 45, 8],
  ]);
});

it("an archive contains no name that leaves the directory on systems with backslashes", async () => {
  const root = join(directory, "backslashes");
  await mkdir(join(root, "..\\up"), { recursive: true });
  for (const name of ["..\\..\\evil", "a\\..\\..\\b", "\\share", "C:\\c", "C:d", "..\\up/file", "x\\x2dy"])
    await writeFile(join(root, name), "");
  expect(await seen(root, "[item.orig_filename for item in items]")).toEqual(
    [".._.._evil", ".._up/", ".._up/file", "C__c", "C_d", "_share", "a_.._.._b", "x\\x2dy"].sort(),
  );
});

it("an archive that nobody reads ends, and closes its files", async () => {
  const root = join(directory, "broken");
  await mkdir(root);
  for (const name of ["a", "b", "c"]) await writeFile(join(root, name), randomBytes(700_000));
  // Files of an earlier test may still be closing, and the timers belong to the test runner.
  const others = new Set(["CloseReq", "Timeout"]);
  const atWork = () => process.getActiveResourcesInfo().filter((kind) => !others.has(kind));
  const before = atWork();
  for await (const bytes of zipped(root, new AbortController().signal)) if (bytes.length > 1000) break;
  expect(atWork()).toEqual(before);
  // Node closes a file that was opened ahead only some time after its reader.
  await until(() => !openFiles().some((path) => path.startsWith(root)));
});
