/** A save contains every file that exists all the time, although programs rename it while sandboxd scans and reads. */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { dirname, join } from "node:path";
import { buffer } from "node:stream/consumers";
import { expect, it, vi } from "vitest";
import { decompress } from "../../container/sandboxd/snapshots/codec.ts";
import { Base, listBase } from "../../container/sandboxd/snapshots/base.ts";
import { type ScannedEntry, scanEntry } from "../../container/sandboxd/snapshots/file-status.ts";
import { RECENT_MS } from "../../container/sandboxd/snapshots/file-read.ts";
import { plainBytes, readManifest } from "../../container/sandboxd/snapshots/manifest.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import { Scanner } from "../../container/sandboxd/snapshots/scan.ts";
import { SNAPSHOT_ENTRIES, snapshotRequests } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { type Place, inPlace } from "../setup/sandboxd-place.ts";
import { sleep, until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

// A save with as many entries as SNAPSHOT_ENTRIES is slow.
vi.mock("../../container/sandboxd/snapshots/snapshot-requests.ts", async (original) => ({
  ...(await original<object>()),
  SNAPSHOT_ENTRIES: 100,
}));

/** A command that runs in the workspace before sandboxd's call with a path of the workspace: see move-at.cjs. */
interface Move {
  call: "readdirSync" | "lstatSync" | "openSync";
  at: string;
  command: string;
  times?: number;
}

function bytesOf(place: Place, path: string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath: place.socket, path, agent: false }, (response) => {
      if (response.statusCode === 200) resolve(buffer(response));
      else reject(new Error(`status ${response.statusCode}`));
    });
    call.once("error", reject).end();
  });
}

async function plan(place: Place, id: string, base?: string): Promise<string> {
  const call = JSON.stringify({ id, base, max: 1e9, repack: [], isThorough: true });
  const response = await place.request("POST", "/snapshot", call);
  expect(response).toMatchObject({ status: 200 });
  return response.body;
}

/** Saves as the actor does it. Returns the contents of the saved files by path, and what sandboxd reports at the end. */
async function save(place: Place, id: string, base?: string) {
  await plan(place, id, base);
  const pack = await bytesOf(place, `/snapshot/pack?id=${id}`);
  const { entries } = await readManifest(await bytesOf(place, `/snapshot/manifest?id=${id}`));
  const { body } = await place.request("POST", `/snapshot/done?id=${id}`);
  await place.request("POST", `/snapshot/commit?id=${id}`);
  const contents: Record<string, string> = {};
  for (const entry of entries) {
    if (entry.type !== "file") continue;
    const pieces = entry.blobs.map(async (blob, index) => {
      if (blob === null) return "zeros";
      if (blob.pack !== id) return "earlier";
      const packed = pack.subarray(blob.offset, blob.offset + blob.length);
      return (await decompress(packed, blob.codec, plainBytes(entry.size, index))).toString("latin1");
    });
    contents[entry.path.slice("workspace/".length)] = (await Promise.all(pieces)).join("");
  }
  return { contents, done: snapshotRequests.done.result.parse(JSON.parse(body)) };
}

/** Runs `work` with a sandboxd that has these files, and runs these commands at its calls. */
async function withMoves(
  files: Record<string, string>,
  moves: Move[],
  work: (place: Place) => Promise<unknown>,
): Promise<void> {
  const begin = async (place: Place) => {
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(place.workspace, path)), { recursive: true });
      writeFileSync(join(place.workspace, path), content);
    }
    await work(place);
  };
  const variables = { MOVES: JSON.stringify(moves.map((move) => ({ times: 1, ...move }))) };
  await inPlace(0, begin, { preloaded: "move-at.cjs", variables });
}

/** Names with their own names as content, in order. */
const named = (...names: string[]) => Object.fromEntries(names.map((name) => [name, name]));

it.each<[string, Record<string, string>, Move[], Record<string, string>]>([
  [
    "a file moves from a directory that is not listed yet to one that is",
    named("a/file", "b/other"),
    [{ call: "readdirSync", at: "a", command: "mv a/file b" }],
    { "b/other": "b/other", "b/file": "a/file" },
  ],
  [
    "a directory moves from a directory that is not listed yet to one that is",
    named("a/files/1", "a/files/deep/2", "b/other"),
    [{ call: "readdirSync", at: "a", command: "mv a/files b" }],
    { "b/other": "b/other", "b/files/1": "a/files/1", "b/files/deep/2": "a/files/deep/2" },
  ],
  [
    "a directory is replaced by another one during the scan",
    named("a/new", "b/old", "b/deep/old"),
    [{ call: "readdirSync", at: "a", command: "mv b c; mv a b; mkdir a" }],
    { "b/new": "a/new", "c/old": "b/old", "c/deep/old": "b/deep/old" },
  ],
  [
    "a file is renamed between the scan and its reading",
    named("a", "b", "c", "d"),
    [{ call: "openSync", at: "b", command: "mv c e; mkdir f; mv d f" }],
    { a: "a", b: "b", e: "c", "f/d": "d" },
  ],
  [
    "a large file is renamed between the scan and its reading",
    { a: "a", large: "l".repeat(5_000_000) },
    [{ call: "openSync", at: "a", command: "mv large elsewhere" }],
    { a: "a", elsewhere: "l".repeat(5_000_000) },
  ],
  [
    "a directory is renamed while its files are read",
    named("dir/1", "dir/2", "dir/deep/3", "dir/deep/4"),
    [{ call: "openSync", at: "dir/2", command: "mv dir other" }],
    { "other/1": "dir/1", "other/2": "dir/2", "other/deep/3": "dir/deep/3", "other/deep/4": "dir/deep/4" },
  ],
  [
    "a log is rotated before it is read",
    { log: "newer", "log.1": "older", "log.2": "oldest" },
    [
      {
        call: "openSync",
        at: "log",
        command: "mv log.2 log.3; mv log.1 log.2; mv log log.1; echo -n new >log",
      },
    ],
    { log: "new", "log.1": "newer", "log.2": "older", "log.3": "oldest" },
  ],
  [
    "a log is rotated after it is read",
    { log: "newer", "log.1": "older", "log.2": "oldest" },
    [
      {
        call: "openSync",
        at: "log.1",
        command: "mv log.2 log.3; mv log.1 log.2; mv log log.1; echo -n new >log",
      },
    ],
    { log: "new", "log.1": "newer", "log.2": "older", "log.3": "oldest" },
  ],
  [
    "a file is replaced, and another one deleted, before they are read",
    named("a", "b", "c", "d"),
    [{ call: "openSync", at: "a", command: "rm b; echo -n new >e; mv e c" }],
    { a: "a", c: "new", d: "d" },
  ],
  [
    "a file is renamed again during the second scan",
    named("a/file", "b/other"),
    [
      { call: "openSync", at: "b/other", command: "mv a/file b/file" },
      { call: "openSync", at: "b/file", command: "mv b/file a/again" },
    ],
    { "b/other": "b/other", "a/again": "a/file" },
  ],
])("a save has all files if %s", async (_what, files, moves, expected) => {
  await withMoves(files, moves, async (place) => {
    const { contents } = await save(place, "a");
    expect(contents).toEqual(expected);
    // Nothing moves any more, and the next save has the same files.
    expect(Object.keys((await save(place, "b", "a")).contents).sort()).toEqual(Object.keys(expected).sort());
  });
});

/** Moves a file before each listing of a directory, so that no listing has it. Begins when the file `go` exists. */
const EVADING: Move[] = ["a", "b"].map((at, index) => ({
  call: "readdirSync",
  at,
  command: `if [ -e go ]; then mv ${at}/file ${["b", "a"][index]}; fi`,
  times: 1000,
}));

/** Moves a file that the first listing of a save has before it is read. Call `hideNext` before the second save. */
const HIDING: Move = {
  call: "openSync",
  at: "a/file",
  command: "if [ -e ../next ]; then echo -n >go; mv a/file b; fi",
  times: 2,
};

/** Changes only the status of the file, so that the next save reads it again. */
async function hideNext({ directory, workspace }: Place): Promise<void> {
  await sleep(2 * RECENT_MS);
  renameSync(join(workspace, "a/file"), join(workspace, "a/renamed"));
  renameSync(join(workspace, "a/renamed"), join(workspace, "a/file"));
  writeFileSync(join(directory, "next"), "");
  await sleep(2 * RECENT_MS);
}

it("a save ends and is reported as incomplete if a program always hides a saved file, and the file is saved when it rests", async () => {
  await withMoves(named("a/file", "b/other"), [HIDING, ...EVADING], async (place) => {
    const before = await save(place, "a");
    expect(before.contents).toEqual(named("a/file", "b/other"));
    expect(before.done.isIncomplete).toBe(false);
    await hideNext(place);
    const during = await save(place, "b", "a");
    expect(during.contents).toEqual({ go: "", "b/other": "earlier" });
    expect(during.done.isIncomplete).toBe(true);
    // The last save has no such file any more, but it is still there.
    expect((await save(place, "c", "b")).done.isIncomplete).toBe(true);
    expect(await plan(place, "e", "c")).toContain('"changed"');
    rmSync(join(place.workspace, "go"));
    const after = await save(place, "d", "c");
    expect(Object.values(after.contents).sort()).toEqual(["a/file", "earlier"]);
    expect(after.done.isIncomplete).toBe(false);
  });
});

/** Changes a directory before each listing while `churn` exists beside the workspace, so that no scan is settled. */
const CHURN: Move = {
  call: "readdirSync",
  at: "c",
  command: "if [ -e ../churn ]; then touch c/x; rm c/x; fi",
  times: 1000,
};

it("a save is complete although directories change, if a scan after an incomplete save found nothing new", async () => {
  const hiding = [HIDING, ...EVADING].map(({ command, call, at, times }): Move => {
    const beside = command.replace("go", "../go");
    return { command: beside, call, at, times };
  });
  await withMoves(named("a/file", "b/other", "c/third"), [...hiding, CHURN], async (place) => {
    await save(place, "a");
    await hideNext(place);
    expect((await save(place, "b", "a")).done.isIncomplete).toBe(true);
    rmSync(join(place.directory, "go"));
    for (const at of ["a", "b"]) rmSync(join(place.workspace, at, "file"), { force: true });
    await sleep(2 * RECENT_MS);
    expect(await plan(place, "c", "b")).toContain('"unchanged"');
    writeFileSync(join(place.directory, "churn"), "");
    writeFileSync(join(place.workspace, "new"), "");
    expect((await save(place, "d", "b")).done.isIncomplete).toBe(false);
  });
});

it("a save is complete although directories change, if files were deleted before it", async () => {
  await withMoves(named("a/deleted", "a/kept", "b/other", "c/third"), [CHURN], async (place) => {
    await save(place, "a");
    writeFileSync(join(place.directory, "churn"), "");
    for (const path of ["a/deleted", "c/third"]) rmSync(join(place.workspace, path));
    await sleep(2 * RECENT_MS);
    const { contents, done } = await save(place, "b", "a");
    expect(Object.keys(contents).sort()).toEqual(["a/kept", "b/other"]);
    expect(done.isIncomplete).toBe(false);
  });
});

it("a save is incomplete if a program hides a file that it found, and that came from a directory which does not change", async () => {
  const hide: Move = { call: "openSync", at: "a/file", command: "echo -n >go; mv a/file b" };
  await withMoves(named("a/other", "b/other", "d/file"), [hide, ...EVADING], async (place) => {
    await save(place, "a");
    renameSync(join(place.workspace, "d/file"), join(place.workspace, "a/file"));
    await sleep(2 * RECENT_MS);
    const { contents, done } = await save(place, "b", "a");
    expect(Object.keys(contents).sort()).toEqual(["a/other", "b/other", "go"]);
    expect(done.isIncomplete).toBe(true);
  });
});

it("a save after an installation is complete although directories change", async () => {
  const install = `if [ -e ../held ] && ! [ -e ../locked ]; then
    flock ../var/lib/dpkg/lock sh -c 'touch ../locked; while [ -e ../held ]; do sleep 0.01; done; rm ../locked' <&- >/dev/null 2>&1 &
    until [ -e ../locked ]; do sleep 0.01; done
  fi`;
  const installing: Move = { call: "readdirSync", at: "a", command: install, times: 1000 };
  await withMoves(named("a/file", "c/third"), [installing, CHURN], async (place) => {
    mkdirSync(join(place.directory, "var/lib/dpkg"), { recursive: true });
    writeFileSync(join(place.directory, "held"), "");
    expect((await save(place, "a")).done.isIncomplete).toBe(true);
    rmSync(join(place.directory, "held"));
    await until(() => !existsSync(join(place.directory, "locked")));
    writeFileSync(join(place.directory, "churn"), "");
    writeFileSync(join(place.workspace, "new"), "");
    expect((await save(place, "b", "a")).done.isIncomplete).toBe(false);
  });
});

it("a save has the files that it read in a directory which a program then hides from each listing", async () => {
  const hide = ["b", "c"].map((at, index): Move => {
    const command = `if [ -e go ]; then mv dir/${at} dir/${["c", "b"][index]}; fi`;
    return { call: "readdirSync", at: `dir/${at}`, command, times: 1000 };
  });
  const begin: Move = { call: "openSync", at: "dir/a/2", command: "echo -n >go; mv dir/a dir/b" };
  await withMoves(named("dir/a/1", "dir/a/2"), [begin, ...hide], async (place) => {
    expect((await save(place, "a")).contents).toMatchObject(named("dir/a/1"));
    rmSync(join(place.workspace, "go"));
    const { contents } = await save(place, "b", "a");
    expect(Object.values(contents).sort()).toEqual(["dir/a/2", "earlier"]);
  });
});

/** Moves a file before each try to open it. Begins when the file `go` exists. */
const FLEEING = EVADING.map(({ at, command, times }): Move => ({
  call: "openSync",
  at: `${at}/file`,
  command,
  times,
}));

it("a save has the content that the last save has of a file that a program renames before each try to read it", async () => {
  await withMoves(named("a/file", "b/other"), FLEEING, async (place) => {
    // The save of a file that has just been written does not know whether it has all of its content.
    await sleep(2 * RECENT_MS);
    await save(place, "a");
    renameSync(join(place.workspace, "a/file"), join(place.workspace, "b/file"));
    writeFileSync(join(place.workspace, "go"), "");
    const { contents, done } = await save(place, "b", "a");
    expect(Object.values(contents).sort()).toEqual(["", "earlier", "earlier"]);
    expect(done.isIncomplete).toBe(false);
    // Content of the same length, in the same file.
    rmSync(join(place.workspace, "go"));
    const path = ["a/file", "b/file"].map((file) => join(place.workspace, file)).find(existsSync) ?? "";
    writeFileSync(path, "A/FILE");
    const changed = await save(place, "c", "b");
    expect(Object.values(changed.contents).sort()).toEqual(["A/FILE", "earlier"]);
  });
});

it("a save reads a file again whose content changed without a new time while its directory was renamed before each try", async () => {
  const moves = ["a", "b"].map((at, index): Move => {
    const command = `if [ -e go ]; then mv ${at} ${["b", "a"][index]}; fi`;
    return { call: "openSync", at: `${at}/file`, command, times: 1000 };
  });
  await withMoves(named("a/file", "c/other"), moves, async (place) => {
    const write = (content: string) => {
      writeFileSync(join(place.workspace, "a/file"), content);
      utimesSync(join(place.workspace, "a/file"), 1e9, 1e9);
    };
    write("before");
    await sleep(2 * RECENT_MS);
    await save(place, "a");
    write("behind");
    await sleep(2 * RECENT_MS);
    writeFileSync(join(place.workspace, "go"), "");
    const { contents } = await save(place, "b", "a");
    rmSync(join(place.workspace, "go"));
    // The path at which the second save has the file.
    const saved = ["a", "b"].find((directory) => `${directory}/file` in contents) ?? "";
    const current = readdirSync(place.workspace).find((name) => name !== "c") ?? "";
    renameSync(join(place.workspace, current), join(place.workspace, saved));
    expect((await save(place, "c", "b")).contents).toMatchObject({ [`${saved}/file`]: "behind" });
  });
});

it("a save has a file with two names that a program renames before each try to read it", async () => {
  const moves = ["a/file", "a/link", "b/file", "b/link"].map((at): Move => {
    const command = `if [ -e go ]; then mv ${at.startsWith("a") ? "a/* b" : "b/* a"}; fi`;
    return { call: "openSync", at, command, times: 1000 };
  });
  await withMoves(named("a/file"), moves, async (place) => {
    mkdirSync(join(place.workspace, "b"));
    linkSync(join(place.workspace, "a/file"), join(place.workspace, "a/link"));
    await sleep(2 * RECENT_MS);
    await save(place, "a");
    for (const name of ["file", "link"])
      renameSync(join(place.workspace, "a", name), join(place.workspace, "b", name));
    writeFileSync(join(place.workspace, "go"), "");
    const { contents, done } = await save(place, "b", "a");
    expect(Object.values(contents).sort()).toEqual(["", "earlier"]);
    expect(done.isIncomplete).toBe(false);
  });
});

it("a save of a directory in which a program creates and deletes files all the time has the other files", async () => {
  const churn = {
    at: "a",
    command: "rm -f a/temporary-*; echo >a/temporary-$$; mv a/one a/two || mv a/two a/one",
  };
  const moves: Move[] = [
    { ...churn, call: "readdirSync", times: 1000 },
    { ...churn, call: "openSync", at: "b/other", times: 1000 },
  ];
  await withMoves(named("a/one", "a/still", "b/other"), moves, async (place) => {
    const { contents } = await save(place, "a");
    expect(
      Object.values(contents)
        .filter((content) => content !== "\n")
        .sort(),
    ).toEqual(["a/one", "a/still", "b/other"]);
  });
});

it("a save has the earlier content of a file that is changed and renamed after it was read, and renamed again", async () => {
  const moves: Move[] = [
    { call: "openSync", at: "m", command: "mv m n; echo -n more >>a; mv a b" },
    { call: "openSync", at: "n", command: "mv b c" },
  ];
  await withMoves(named("a", "m"), moves, async (place) => {
    const { contents } = await save(place, "a");
    expect(
      Object.values(contents)
        .map((content) => content.slice(0, 1))
        .sort(),
    ).toEqual(["a", "m"]);
    expect(Object.keys((await save(place, "b", "a")).contents).sort()).toEqual(["c", "n"]);
  });
});

it("a save reads a file that a program replaces all the time at most twice", async () => {
  const replace = "dd if=/dev/urandom of=new bs=60000 count=1 status=none; mv new large";
  const moves: Move[] = [
    { call: "openSync", at: "large", command: replace, times: 1000 },
    { call: "readdirSync", at: "", command: replace, times: 1000 },
  ];
  await withMoves({ ...named("a"), large: "x".repeat(60_000) }, moves, async (place) => {
    const { contents, done } = await save(place, "a");
    expect(contents).toMatchObject({ a: "a" });
    const bytes = done.packs.reduce((sum, { length }) => sum + length, 0);
    expect(bytes).toBeGreaterThan(50_000);
    expect(bytes).toBeLessThan(150_000);
  });
});

const { signal } = new AbortController();

it.each([
  ["and a directory is created elsewhere", ["src/new"]],
  ["and a directory is created in it", ["node_modules/a/new"]],
  ["and no directory is created", []],
])(
  "a repeated scan leaves out a regenerable directory that has too many entries now, %s",
  async (_what, created) => {
    const root = temporaryDirectory();
    const workspace = join(root, "workspace");
    for (const path of ["node_modules/a", "src"]) mkdirSync(join(workspace, path), { recursive: true });
    writeFileSync(join(workspace, "src/main.js"), "");
    writeFileSync(join(workspace, "node_modules/a/before"), "");
    const scan = await new Scanner(root, () => new Base(""), "workspace").scan(signal, { maxEntries: 50 });
    for (let n = 0; n < 100; n++) writeFileSync(join(workspace, "node_modules/a", String(n)), "");
    for (const path of created) mkdirSync(join(workspace, path));
    // The first call lists the directory again.
    for (let calls = 0; calls < 2; calls++) {
      const entries = (await scan?.again(signal)) ?? [];
      const pathsOf = (isCrowded: boolean) =>
        entries.filter(({ type }) => (type === "crowded") === isCrowded).map(({ path }) => path);
      expect(pathsOf(true)).toEqual(["workspace/node_modules"]);
      const outside = created.filter((path) => path.startsWith("src")).map((path) => `workspace/${path}`);
      const kept = ["workspace", "workspace/node_modules", "workspace/src", "workspace/src/main.js"];
      expect(pathsOf(false).sort()).toEqual([...kept, ...outside].sort());
      // A file that is left out is not gone.
      expect([...(scan?.gone ?? [])]).toEqual([]);
    }
  },
);

it("a scan has at most as many entries as allowed if it leaves out a directory that the last save had", async () => {
  const root = temporaryDirectory();
  const workspace = join(root, "workspace");
  const file = join(workspace, "a/b/app/node_modules/x/file");
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, "");
  const base = new Base(listBase(root));
  writeFileSync(file, "changed");
  for (let n = 0; n < 10; n++) writeFileSync(join(workspace, String(n)), "");
  const scan = await new Scanner(root, () => base, "workspace").scan(signal, { maxEntries: 12 });
  const paths = (await scan?.again(signal))?.map(({ type, path }) => `${type} ${path}`);
  expect(paths).toHaveLength(12);
  expect(paths).toContain("crowded workspace/a/b/app/node_modules");
});

it("a save with as many entries as a restore accepts leaves out a file that was renamed again", async () => {
  const root = temporaryDirectory();
  const workspace = join(root, "workspace");
  mkdirSync(workspace);
  writeFileSync(join(workspace, "file"), "");
  const devices = { dev: statSync(root, { bigint: true }).dev, hasOneDevice: true };
  const entryOf = (path: string) => scanEntry(root, path, devices) ?? [];
  const removed = {
    type: "removed",
    mode: 0,
    mtime: 0,
    changedAt: 0n,
    uid: 0,
    gid: 0,
    size: 0,
    status: "",
  } as const;
  const found: ScannedEntry[] = [entryOf("workspace")].flat();
  for (let n = 1; n < SNAPSHOT_ENTRIES; n++) found.push({ ...removed, path: `workspace/${n}` });
  const scan = { isSettled: false, again: async () => found };
  const first = [entryOf("workspace"), entryOf("workspace/file")].flat();
  const saving = new Save("a", root, new Map(), { max: 1e9, repack: [] }, first, {}, undefined, scan);
  await Array.fromAsync(saving.pack(signal));
  expect((await readManifest(await saving.manifest())).entries).toHaveLength(SNAPSHOT_ENTRIES);
});

it("a save has a file that has a new name whenever a listing comes to it", async () => {
  const command = "if [ -e ../go ]; then mv a/file* a/file.$(date +%N); fi";
  const move: Move = { call: "lstatSync", at: "a/earlier", command, times: 1000 };
  await withMoves(named("a/earlier", "a/file"), [move], async (place) => {
    await save(place, "a");
    writeFileSync(join(place.directory, "go"), "");
    const { contents, done } = await save(place, "b", "a");
    expect(Object.keys(contents)).toEqual(["a/earlier", expect.stringMatching(/^a\/file\./)]);
    expect(done.isIncomplete).toBe(false);
  });
});
