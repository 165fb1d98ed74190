/** ZIP archives that a test cannot make through a sandbox: with very many files, and with unusual names. */
import { execFileSync, spawnSync } from "node:child_process";
import { closeSync, mkdirSync, openSync, symlinkSync, writeFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it, onTestFinished, vi } from "vitest";
import { FileHandlers } from "../../container/sandboxd/file-handlers.ts";
import { serve } from "../setup/serve.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();
const program = fileURLToPath(new URL("../../container/sandboxd/zip.py", import.meta.url));

/** Packs a directory. Python checks all entries of the archive, and evaluates the expression with it. */
function evaluateInPython(root: string, expression: string): unknown {
  const path = join(directory, `${basename(root)}.zip`);
  const file = openSync(path, "w");
  execFileSync("python3", ["-I", "-X", "utf8", program, root], { stdio: ["ignore", file, "inherit"] });
  closeSync(file);
  const reader = `
import json, sys, zipfile
archive = zipfile.ZipFile(sys.argv[1])
assert archive.testzip() is None
items = sorted(archive.infolist(), key=lambda item: item.filename)
print(json.dumps(${expression}))`;
  return JSON.parse(execFileSync("python3", ["-c", reader, path], { encoding: "utf8" }));
}

it("an archive can contain more than 65,535 entries", async () => {
  // Links in memory take a fraction of the time that files on a disk take.
  const root = await mkdtemp("/dev/shm/sandbox-mcp-zip-");
  onTestFinished(() => rm(root, { recursive: true }));
  for (let part = 0; part < 66; part++) {
    mkdirSync(join(root, String(part)));
    for (let n = 0; n < 1000; n++) symlinkSync("target", join(root, String(part), String(n)));
  }
  await writeFile(join(root, "last"), "last");
  expect(evaluateInPython(root, "[len(items), archive.read('last').decode()]")).toEqual([66_067, "last"]);
});

it("an archive contains no name that leaves the directory on systems with backslashes", async () => {
  const root = join(directory, "backslashes");
  await mkdir(join(root, "..\\up"), { recursive: true });
  for (const name of ["..\\..\\evil", "a\\..\\..\\b", "\\share", "C:\\c", "C:d", "..\\up/file", "x\\x2dy"])
    await writeFile(join(root, name), "");
  expect(evaluateInPython(root, "[item.orig_filename for item in items]")).toEqual(
    [".._.._evil", ".._up/", ".._up/file", "C__c", "C_d", "_share", "a_.._.._b", "x\\x2dy"].sort(),
  );
});

it("an archive keeps the bytes of a name that is not UTF-8, and moves old and future times into the range of the format", async () => {
  const root = join(directory, "bytes");
  await mkdir(root);
  writeFileSync(Buffer.from(`${root}/caf\u00e9`, "latin1"), "x");
  execFileSync("touch", ["-d", "1970-01-01T00:00:00Z", join(root, "old")]);
  execFileSync("touch", ["-d", "2200-01-01T00:00:00Z", join(root, "future")]);
  // Python reads a name without the flag for UTF-8 as code page 437.
  const expression = "[[list(item.filename.encode('cp437')), item.date_time[0]] for item in items]";
  const bytes = (text: string) => [...Buffer.from(text, "latin1")];
  const found = evaluateInPython(root, expression) as unknown[];
  expect(found).toHaveLength(3);
  expect(found).toContainEqual([bytes("old"), 1980]);
  expect(found).toContainEqual([bytes("future"), 2107]);
  expect(found).toContainEqual([bytes("caf\u00e9"), expect.any(Number)]);
});

it("an archive is not complete without a directory that cannot be read", async () => {
  const root = join(directory, "unreadable");
  await mkdir(join(root, "locked"), { recursive: true });
  // Root can read every directory, so this program cannot list one.
  const refusing = `
import os, runpy, sys
scandir = os.scandir
def refuse(path):
    if path.endswith("locked/"):
        raise PermissionError(13, "Permission denied")
    return scandir(path)
os.scandir = refuse
runpy.run_path("${program}", run_name="__main__")`;
  const { status, stderr } = spawnSync("python3", ["-I", "-c", refusing, root], {
    encoding: "latin1",
  });
  expect(status).toBe(1);
  expect(stderr).toContain("Permission denied");
});

it("sandboxd says if the program that packs a .zip is missing", async () => {
  vi.stubEnv("PATH", "/nowhere");
  onTestFinished(() => void vi.unstubAllEnvs());
  const files = new FileHandlers();
  const origin = await serve((request, response) => void files.respond(request, response));
  const response = await fetch(`${origin}/archive?path=${directory}&format=zip`);
  expect(await response.json()).toEqual({ problem: "no_program" });
});
