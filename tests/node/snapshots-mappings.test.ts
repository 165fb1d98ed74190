/** Saves contain what programs write through memory mappings, although such writes may leave no new time. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { lstatSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { join } from "node:path";
import { beforeEach, expect, it } from "vitest";
import { pids } from "../../container/sandboxd/run-processes.ts";
import { Base } from "../../container/sandboxd/snapshots/base.ts";
import { Mappings } from "../../container/sandboxd/snapshots/mappings.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import { Scanner } from "../../container/sandboxd/snapshots/scan.ts";
import type { Index } from "../../container/sandboxd/snapshots/state.ts";
import { repository } from "../../local/engine/own-files.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

let root: string;
/** The machine's other processes. If the mappings of one could not be read, all files of its user would count as mapped. */
let others: Set<number>;
beforeEach(() => {
  root = temporaryDirectory();
  others = new Set(pids());
});
const { signal } = new AbortController();

/** Saves as sandboxd does it, and returns what the save would send. */
async function save(
  index: Index,
  isThorough: boolean,
): Promise<{ sent: string; index: Index; state: string }> {
  const mappings = await Mappings.read(others);
  const changes = await new Scanner(root, () => new Base("")).changes(signal);
  if (isThorough) await mappings.forgetChanged(root, changes, index, signal);
  const saving = new Save("a", root, index, { max: 1e9, repack: [] }, changes, {}, mappings);
  const { state } = saving.summary;
  const sent = Buffer.concat(await Array.fromAsync(saving.pack(signal))).toString("latin1");
  return { sent, index: saving.index, state };
}

/** Maps a file, and writes each line of its input to the start of the file, until the input ends. */
const MAPS = `import mmap, sys, time
file = open(sys.argv[1], "w+b"); file.truncate(8192)
mapping = mmap.mmap(file.fileno(), 8192)
for line in sys.stdin:
  mapping[0:len(line)] = line.encode(); time.sleep(0.3); print("written", flush=True)`;

async function write(program: ChildProcess, text: string): Promise<void> {
  program.stdin?.write(text);
  await once(program.stdout!, "data");
}

it.each([false, true])(
  "what a program writes to a mapped file after a save is in the next thorough save (another save between: %s)",
  async (isSavedBetween) => {
    const program = spawn("python3", ["-c", MAPS, join(root, "file")], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    await write(program, "first\n");
    const first = await save(new Map(), false);
    expect(first.sent).toContain("first");
    await write(program, "second\n");
    const between = isSavedBetween ? await save(first.index, false) : { index: first.index, sent: "" };
    program.stdin?.end();
    await once(program, "exit");
    const last = await save(between.index, true);
    expect(between.sent + last.sent).toContain("second");
  },
);

it("files that programs only read or keep mapped are saved once", async () => {
  writeFileSync(join(root, "read"), "content");
  const program = spawn("python3", ["-c", MAPS, join(root, "file")], { stdio: ["pipe", "pipe", "inherit"] });
  await write(program, "first\n");
  const { index } = await save(new Map(), true);
  execFileSync("cat", [join(root, "read")]);
  await sleep(150);
  expect(await save(index, true)).toMatchObject({ state: "unchanged", sent: "" });
  program.stdin?.end();
  await once(program, "exit");
  expect(await save(index, true)).toMatchObject({ state: "unchanged", sent: "" });
});

/** Maps a file to read it, leaves a child that has ended a zombie, and then waits for the end of its input. */
const READS = `import mmap, subprocess, sys, time
file = open(sys.argv[1], "rb"); mapping = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
child = subprocess.Popen(["true"]); time.sleep(0.5); print("mapped", flush=True); sys.stdin.read()`;

it("a file that is mapped only to be read counts as mapped, and a zombie does not make others count", async () => {
  for (const name of ["mapped", "other"]) writeFileSync(join(root, name), "content");
  const program = spawn("python3", ["-c", READS, join(root, "mapped")], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await once(program.stdout, "data");
  const mappings = await Mappings.read(others);
  program.stdin.end();
  await once(program, "exit");
  const accessed = ["mapped", "other"].map((name) =>
    mappings.lastAccess(lstatSync(join(root, name), { bigint: true })),
  );
  expect(accessed).toEqual([undefined, expect.any(String)]);
});

it("a program that reads a file of a tmpfs, and then writes to it through a mapping, is noticed", () => {
  const modules = join(repository, "container/sandboxd/snapshots");
  const program = `import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Base } from ${JSON.stringify(join(modules, "base.ts"))};
import { Mappings } from ${JSON.stringify(join(modules, "mappings.ts"))};
import { Save } from ${JSON.stringify(join(modules, "save.ts"))};
import { Scanner } from ${JSON.stringify(join(modules, "scan.ts"))};
const root = process.env.DISK, { signal } = new AbortController();
async function save(index) {
  const mappings = await Mappings.read(new Set());
  const changes = await new Scanner(root, () => new Base("")).changes(signal);
  await mappings.forgetChanged(root, changes, index, signal);
  const saving = new Save("a", root, index, { max: 1e9, repack: [] }, changes, {}, mappings);
  const pack = Buffer.concat(await Array.fromAsync(saving.pack(signal)));
  return { index: saving.index, sent: pack.toString("latin1") };
}
writeFileSync(root + "/file", "first".padEnd(8192, "-"));
await sleep(300);
const before = await save(new Map());
execFileSync("python3", ["-c", \`import mmap
file = open("\${root}/file", "r+b"); mapping = mmap.mmap(file.fileno(), 8192)
assert mapping[0:5] == b"first"
mapping[0:6] = b"second"\`]);
const after = await save(before.index);
console.log(JSON.stringify([before, after].map(({ sent }) => /first|second/.exec(sent)?.[0])));`;
  const disk = join(root, "disk");
  const mount = 'mkdir "$DISK" && mount -t tmpfs -o strictatime tmpfs "$DISK" && exec "$0" "$@"';
  const words = [
    "--user",
    "--map-root-user",
    "--mount",
    "--pid",
    "--fork",
    "--mount-proc",
    "sh",
    "-c",
    mount,
  ];
  const output = execFileSync(
    "unshare",
    [...words, process.execPath, "--input-type=module", "--eval", program],
    {
      env: { ...process.env, DISK: disk },
      encoding: "utf8",
    },
  );
  expect(JSON.parse(output)).toEqual(["first", "second"]);
});
