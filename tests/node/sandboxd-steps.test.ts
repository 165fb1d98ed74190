/** sandboxd is killed before each step of a command, a write and a restore, and then restarted. */
import { once } from "node:events";
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join, relative } from "node:path";
import { expect, inject, it } from "vitest";
import { WebSocket } from "ws";
import { FAILED, type OperationName, type operations } from "../../container/sandboxd/operations.ts";
import { type Call, type Event, eventSchema, readPiece } from "../../container/sandboxd/protocol.ts";
import { type Mark, markSchema } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { Base } from "../../container/sandboxd/snapshots/base.ts";
import { Scanner } from "../../container/sandboxd/snapshots/scan.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import { type Place, inPlace, parent } from "../setup/sandboxd-place.ts";
import { sleep, until } from "../setup/until.ts";

/** How many attempts run in parallel: attempts that mostly wait, and attempts that mostly use the processor. */
const AT_ONCE = 24;
const AT_ONCE_WORKING = 6;

/** More steps than any attempt has. */
const MOST_STEPS = 200;

/** One of this number of steps is tried. An odd number, because the command alternates between two forms. */
const TRIED = inject("isLong") ? 1 : 3;

interface Outcome {
  end: Event;
  stdout: string;
  stderr: string;
}

/** Runs a command as the actor does: after a broken connection it connects again and continues where its output ends. */
async function run(place: Place, id: string, command: string, session = "main"): Promise<Outcome> {
  const output = { stdout: "", stderr: "" };
  let isKnown = false;
  for (;;) {
    const end = await new Promise<Event | undefined>((resolve, reject) => {
      const socket = new WebSocket(`ws+unix:${place.socket}:/`);
      socket.binaryType = "arraybuffer";
      const send = (call: Call) => socket.send(JSON.stringify(call));
      socket.once("open", () =>
        send(
          isKnown
            ? { type: "follow", id, stdout: output.stdout.length, stderr: output.stderr.length }
            : { type: "start", id, session, command, timeoutMs: 60_000 },
        ),
      );
      socket.on("message", (data: ArrayBuffer, isBinary) => {
        isKnown = true;
        if (isBinary) {
          const piece = readPiece(data);
          if (piece.offset !== output[piece.stream].length) return reject(new Error("a piece is missing"));
          output[piece.stream] += Buffer.from(piece.bytes).toString("latin1");
          return;
        }
        const event = eventSchema.parse(JSON.parse(Buffer.from(data).toString()));
        if (event.type === "running" || event.type === "listening") return;
        resolve(event);
        socket.close();
      });
      socket.on("error", () => undefined);
      socket.once("close", () => resolve(undefined));
    });
    if (end !== undefined) return { end, ...output };
    await sleep(20);
  }
}

/** Removes the files of runs, and retries after a broken connection. */
async function forget(place: Place, ids: string[]): Promise<void> {
  await until(async () => {
    const socket = new WebSocket(`ws+unix:${place.socket}:/`);
    socket.once("open", () => {
      for (const call of [{ type: "forget", ids }, { type: "ping" }] satisfies Call[])
        socket.send(JSON.stringify(call));
    });
    socket.on("error", () => undefined);
    socket.once("message", () => socket.close());
    await new Promise((resolve) => void socket.once("close", resolve));
    return place.runs.length === 0;
  });
}

/**
 * Calls `attempt` with sandboxds that are killed at different steps, and returns the number of steps of an attempt whose sandboxd is
 * not killed. The number differs a little between attempts. Each run of the test tries every `TRIED`th step, from one that the seed decides, and a
 * failure lists the steps up to the one at which it was killed. With `TESTS=long` it tries all.
 */
async function atSteps(
  attempt: (place: Place, step: number) => Promise<unknown>,
  atOnce = AT_ONCE,
): Promise<number> {
  const callsWhenKilledAt = (step: number) => inPlace(step, (place) => attempt(place, step));
  const last = await callsWhenKilledAt(MOST_STEPS);
  let next = 1 + (inject("seed") % TRIED);
  const worker = async () => {
    for (let step = next; step <= last + 1; step = next) {
      next += TRIED;
      await callsWhenKilledAt(step);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
  expect(last).toBeLessThan(MOST_STEPS);
  return last;
}

/** The output of `seq`. */
function numbersTo(last: number): string {
  return Array.from({ length: last }, (_, n) => `${n + 1}\n`).join("");
}

/** Runs a command, and checks that it ran once, with its output, its end and its session. */
async function checkRun(place: Place, pause: string, what: string): Promise<void> {
  const log = join(place.directory, "ran");
  const command = `echo ran >>${log}; seq 1000; ${pause}echo end; echo error >&2; cd /usr; export KEPT=1; (exit 7)`;
  const fullOutput = `${numbersTo(1000)}end\n`;
  const { end, stdout, stderr } = await run(place, "r1", command);
  expect(readFileSync(log, "utf8"), what).toBe("ran\n");
  expect(end, what).toMatchObject({ type: "ended", status: 7 });
  const isCut = end.type === "ended" && end.cut === true;
  expect(isCut ? fullOutput.startsWith(stdout) : stdout === fullOutput && stderr === "error\n", what).toBe(
    true,
  );
  for (const id of ["r2", "r3"]) {
    const after = await run(place, id, 'echo "$PWD $KEPT"');
    // sandboxd may have been killed during this command.
    if (after.end.type === "ended" && after.end.cut) continue;
    expect(after, what).toMatchObject({ end: { type: "ended", status: 0 }, stdout: "/usr 1\n" });
    break;
  }
  await forget(place, ["r1", "r2", "r3"]);
}

// If a copier took output and did not store it, the next sandboxd waits ten seconds for it before it reports the gap.
it("a command runs once, with its output, its end and its session", async () => {
  const steps = await atSteps((place, step) => {
    place.arm();
    // A short and a longer command take the same steps, so they alternate.
    return checkRun(place, step % 2 === 0 ? "" : "sleep 0.1; ", `killed at step ${step}`);
  });
  expect(steps).toBeGreaterThan(8);
  // The test starts a hundred sandboxds, and some runs wait ten seconds.
}, 300_000);

it.each([1, 2, 5])(
  "a command keeps its output if %d starts of the program that copies it fail",
  async (failing) => {
    await inPlace(
      0,
      async (place) => {
        const outcome = await run(place, "r1", "sleep 0.1; echo output; echo error >&2");
        expect(outcome).toMatchObject({ end: { status: 0 }, stdout: "output\n", stderr: "error\n" });
      },
      { preloaded: "no-copier.cjs", variables: { FAILING: String(failing) } },
    );
  },
);

it("a command keeps its output when the programs that copy it are killed", async () => {
  await inPlace(0, async (place) => {
    const numbers = numbersTo(1000);
    const file = join(place.directory, "root/runs/r1/stdout");
    // A killed copier loses output that it has read but not written. So the command kills each copier only when
    // all output is in the file, and prints nothing until the copier has ended.
    const kill = (bytes: number) =>
      `until [ "$(stat -c %s ${file})" = ${bytes} ]; do sleep 0.01; done
      copiers=$(pgrep -x sbx-copy); kill -KILL $copiers
      for copier in $copiers; do while [ -e /proc/$copier ]; do sleep 0.01; done; done`;
    const command = [1, 2, 3].map((time) => `seq 1000\n${kill(time * numbers.length)}`).join("\n");
    const outcome = await run(place, "r1", `${command}\necho end`);
    expect(outcome.end).toMatchObject({ status: 0 });
    expect(outcome.stdout).toBe(`${numbers.repeat(3)}end\n`);
  });
});

it.each([
  ["pkill tee", undefined, /^first\nlast\n$/],
  // The stopped copier may have read output that it has not written.
  ["pkill -STOP -x sbx-copy; echo held; pkill -KILL -x sbx-copy", true, /^(first\n)?(held\n)?last\n$/],
])(
  "a command loses no output, or its end says that some may be missing, after %s",
  async (kill, cut, printed) => {
    await inPlace(0, async (place) => {
      const { end, stdout } = await run(place, "r1", `sleep 0.3; echo first; ${kill}; sleep 0.3; echo last`);
      expect({ cut: undefined, ...end }).toMatchObject({ status: 0, cut });
      expect(stdout).toMatch(printed);
    });
  },
);

it.each([
  ["a short command", ""],
  ["a longer command", "sleep 0.3; "],
])("%s that fills the disk ends with the beginning of its output and the reason", async (_what, pause) => {
  await inPlace(
    0,
    async (place) => {
      const fill = `${pause}echo first; head -c 10000000 /dev/zero >${place.root}/fill 2>/dev/null`;
      const { end, stdout } = await run(place, "r1", `${fill}; seq 100000; ${pause}rm ${place.root}/fill`);
      expect(end).toMatchObject({ status: 0, cut: true, noSpace: true });
      expect(`first\n${numbersTo(100_000)}`.startsWith(stdout)).toBe(true);
      expect(await run(place, "r2", "echo next")).toMatchObject({ end: { status: 0 }, stdout: "next\n" });
    },
    { ownDisk: 4 * 1024 * 1024 },
  );
});

it("commands that are refused because the disk is full leave no open file and no directory", async () => {
  const count = async (place: Place, id: string) => {
    const command = `ls -l /proc/*/fd 2>/dev/null | grep -c ${place.root}/slots/; ls ${place.root}/slots | wc -l`;
    return (await run(place, id, command)).stdout.trim().split("\n").map(Number) as [number, number];
  };
  await inPlace(
    0,
    async (place) => {
      const [files, slots] = await count(place, "before");
      const [full, free] = ["full", "free"].map((name) => join(place.workspace, name)) as [string, string];
      const more = `head -c 10000000 /dev/zero >>${place.root}/fill; touch ${full}`;
      const fill = `until [ -e ${free} ]; do ${more}; sleep 0.01; done; rm ${place.root}/fill; rm ${full}`;
      await run(place, "fill", `(${fill}) >/dev/null 2>&1 &`);
      await until(() => existsSync(full));
      // A command can start in the space of one that has just been forgotten.
      let refused = 0;
      for (let n = 0; n < 60 && refused < 20; n++)
        if ((await run(place, `r${n}`, "echo", `s${n}`)).end.type === "refused") refused++;
      expect(refused).toBe(20);
      writeFileSync(free, "");
      await until(() => !existsSync(full));
      const [filesAfter, slotsAfter] = await count(place, "after");
      // The shells and slots that are kept ready vary.
      expect(filesAfter - files).toBeLessThan(40);
      expect(slotsAfter - slots).toBeLessThan(10);
    },
    { ownDisk: 4 * 1024 * 1024 },
  );
});

it("texts are typed in the order of their calls, even if the first call resizes the terminal", async () => {
  await inPlace(0, async (place) => {
    const got = join(place.workspace, "got");
    const socket = new WebSocket(`ws+unix:${place.socket}:/`);
    await once(socket, "open");
    const send = (call: Call) => socket.send(JSON.stringify(call));
    const command = `head -n 2 >${got}`;
    send({ type: "start", id: "r1", session: "main", command, interactive: true, timeoutMs: 60_000 });
    await until(() => existsSync(got));
    send({ type: "input", id: "r1", key: "1", text: "first\n", size: { rows: 40, columns: 100 } });
    send({ type: "input", id: "r1", key: "2", text: "second\n" });
    expect(await until(() => readFileSync(got, "utf8"))).toBe("first\nsecond\n");
    socket.close();
  });
});

it("a command that removes sandboxd's own files runs once, and this command and later commands keep their output", async () => {
  await inPlace(0, async (place) => {
    const log = join(place.workspace, "ran");
    const remove = (pause: string) =>
      `echo ran >>${log}; ${pause}rm -rf ${place.root}/*; seq 100000; ${pause}echo end`;
    const numbers = numbersTo(100_000);
    for (const [id, pause] of [
      ["r1", ""],
      ["r2", "sleep 0.1; "],
    ] as const) {
      const { end, stdout } = await run(place, id, remove(pause));
      expect(end).toMatchObject({ status: 0 });
      expect(stdout === `${numbers}end\n`).toBe(true);
      expect(readFileSync(log, "utf8")).toBe("ran\n");
      rmSync(log);
      const next = await run(place, `${id}next`, "echo next; cd /usr");
      expect(next).toMatchObject({ end: { status: 0 }, stdout: "next\n" });
      expect((await run(place, `${id}last`, "pwd")).stdout).toBe("/usr\n");
    }
  });
});

it("a file that is replaced has its old or its new content, and no temporary file is left", async () => {
  const steps = await atSteps(async (place) => {
    const files = join(place.directory, "files");
    const path = join(files, "file");
    mkdirSync(files);
    writeFileSync(path, "old\n");
    const contents: string[] = [];
    place.arm();
    const call = `/files?path=${encodeURIComponent(path)}&id=${"a".repeat(32)}`;
    // Repeats the request with the same id, as the actor does.
    const response = await until(async () => {
      const one = await place.request("PUT", call, "new\n").catch(() => undefined);
      contents.push(readFileSync(path, "utf8"));
      return one;
    });
    expect(response).toMatchObject({ status: 200, body: JSON.stringify({ size: "new\n".length }) });
    await place.waitUntilReady();
    expect(contents.filter((content) => content !== "old\n" && content !== "new\n")).toEqual([]);
    expect([readFileSync(path, "utf8"), readdirSync(files)]).toEqual(["new\n", ["file"]]);
  });
  expect(steps).toBeGreaterThan(4);
});

type Changing = {
  [Name in OperationName]: (typeof operations)[Name] & { changesState: true };
}[OperationName];

/**
 * A call of each route that changes something: its parameters, its body, and the files that exist after it if `directory/file`
 * contained "old" before. The compiler requires an entry for each route.
 */
const CHANGES: Record<
  Changing["route"],
  { parameters(files: string): Record<string, string>; body?: string; left: Record<string, string> }
> = {
  "PUT /files": {
    parameters: (files) => ({ path: join(files, "directory/file"), append: "1" }),
    body: " new",
    left: { "directory/file": "old new" },
  },
  "POST /edit": {
    parameters: (files) => ({ path: join(files, "directory/file") }),
    body: JSON.stringify([{ old_text: "old", new_text: "old old", all: false }]),
    left: { "directory/file": "old old" },
  },
  "DELETE /files": {
    parameters: (files) => ({ path: join(files, "directory"), recursive: "1" }),
    left: {},
  },
};

it.each(Object.entries(CHANGES))(
  "%s takes effect once if it is repeated with its id",
  async (route, { parameters, body, left }) => {
    const [method = "", path = ""] = route.split(" ");
    const steps = await atSteps(async (place) => {
      const files = join(place.directory, "files");
      mkdirSync(join(files, "directory"), { recursive: true });
      writeFileSync(join(files, "directory/file"), "old");
      place.arm();
      const query = new URLSearchParams({ ...parameters(files), id: "a".repeat(32) });
      /** Repeats the request after a broken connection. */
      const change = () =>
        until(() => place.request(method, `${path}?${query}`, body).catch(() => undefined));
      // The second request simulates that the first response was lost.
      for (const response of [await change(), await change()])
        expect(response).toMatchObject({ status: 200 });
      await place.waitUntilReady();
      const found = readdirSync(files, { recursive: true, withFileTypes: true }).filter((entry) =>
        entry.isFile(),
      );
      const contents = found.map(({ parentPath, name }) => [
        relative(files, join(parentPath, name)),
        readFileSync(join(parentPath, name), "utf8"),
      ]);
      expect(Object.fromEntries(contents)).toEqual(left);
    });
    expect(steps).toBeGreaterThan(2);
  },
);

it("a second removal fails if it has another id", async () => {
  await inPlace(0, async (place) => {
    const file = join(place.directory, "removed");
    writeFileSync(file, "old");
    const remove = (id: string) => place.request("DELETE", `/files?path=${encodeURIComponent(file)}${id}`);
    expect(await remove(`&id=${"a".repeat(32)}`)).toMatchObject({ status: 200 });
    const missing = { status: FAILED, body: expect.stringContaining('"missing"') };
    expect(await remove(`&id=${"b".repeat(32)}`)).toMatchObject(missing);
  });
});

/** A saved workspace with a file of each size that is stored differently. */
async function savedWorkspace(): Promise<{ manifest: Buffer; pack: Buffer; tree: unknown }> {
  const top = mkdtempSync(join(parent, "saved-"));
  const root = join(top, "workspace");
  mkdirSync(join(root, "directory"), { recursive: true });
  writeFileSync(join(root, "directory/small"), "small");
  writeFileSync(join(root, "large"), randomBytes(70_000));
  linkSync(join(root, "large"), join(root, "link"));
  symlinkSync("directory/small", join(root, "symlink"));
  chmodSync(join(root, "directory"), 0o555);
  const { signal } = new AbortController();
  const changes = await new Scanner(top, () => new Base(""), "workspace").changes(signal);
  const save = new Save("a", top, new Map(), { max: 1e9, repack: [] }, changes);
  const parts: Buffer[] = [];
  for await (const part of save.pack(signal)) parts.push(part);
  return { manifest: await save.manifest(), pack: Buffer.concat(parts), tree: treeOf(root) };
}

/** The entries of a directory with their attributes and contents. */
function treeOf(root: string): unknown {
  return readdirSync(root, { recursive: true, encoding: "utf8" })
    .sort()
    .map((path) => {
      const at = join(root, path);
      const stats = lstatSync(at);
      const content = stats.isFile()
        ? readFileSync(at, "latin1")
        : stats.isSymbolicLink() && readlinkSync(at);
      return { path, mode: stats.mode, links: stats.nlink, mtime: Math.floor(stats.mtimeMs), content };
    });
}

async function markOf(place: Place): Promise<Mark> {
  return markSchema.parse(JSON.parse((await place.request("GET", "/snapshot")).body));
}

it("a workspace during a restore is unchanged, reported as being restored, or complete", async () => {
  const { manifest, pack, tree } = await savedWorkspace();
  const steps = await atSteps(async (place) => {
    mkdirSync(join(place.workspace, "old"));
    writeFileSync(join(place.workspace, "large"), "old");
    const before = treeOf(place.workspace);
    place.arm();
    // Like the actor, the test reads the current state, and restores again if that state is incomplete.
    await until(async () => {
      try {
        const { snapshot, isRestoring } = await markOf(place);
        const found = treeOf(place.workspace);
        // During a restore the files are not checked.
        expect(found).toEqual(isRestoring ? found : snapshot === "a" ? tree : before);
        if (snapshot === "a" && !isRestoring) return true;
        await place.request("PUT", "/snapshot/restore?id=a&attempt=1", manifest);
        await place.request("PUT", "/snapshot/data?id=a&attempt=1", pack);
      } catch (error) {
        // sandboxd was killed.
        if (!(error instanceof Error && "code" in error)) throw error;
      }
      return false;
    });
  }, AT_ONCE_WORKING);
  expect(steps).toBeGreaterThan(20);
}, 120_000);

it("a workspace without disk space or with an invalid manifest is not reported as complete", async () => {
  const { manifest, pack } = await savedWorkspace();
  await inPlace(
    0,
    async (place) => {
      const refused = await place.request("PUT", "/snapshot/restore?id=a&attempt=1", "no manifest");
      expect([refused.status, await markOf(place)]).toEqual([FAILED, { isRestoring: false }]);
      const started = await place.request("PUT", "/snapshot/restore?id=a&attempt=1", manifest);
      expect(started).toMatchObject({ status: 200 });
      const full = await place.request("PUT", "/snapshot/data?id=a&attempt=1", pack);
      expect([full.status, JSON.parse(full.body)]).toEqual([FAILED, { problem: "system", code: "ENOSPC" }]);
      expect(await markOf(place)).toEqual({ isRestoring: true });
    },
    { disk: 64 * 1024 },
  );
});

it("a complete workspace stays unchanged when a restore of an earlier actor arrives late", async () => {
  const { manifest, pack } = await savedWorkspace();
  await inPlace(0, async (place) => {
    await place.request("PUT", "/snapshot/restore?id=a&attempt=1", manifest);
    await place.request("PUT", "/snapshot/data?id=a&attempt=1", pack);
    writeFileSync(join(place.workspace, "new"), "of a run");
    const tree = treeOf(place.workspace);
    // A restore of the current state succeeds and changes nothing.
    expect(await place.request("PUT", "/snapshot/restore?id=a&attempt=1", manifest)).toMatchObject({
      status: 200,
      body: '{"reads":[]}',
    });
    expect(await place.request("PUT", "/snapshot/data?id=a&attempt=1", "")).toMatchObject({ status: 200 });
    const refused = await place.request("PUT", "/snapshot/restore?id=b&attempt=1", manifest);
    expect([refused.status, JSON.parse(refused.body)]).toEqual([FAILED, { problem: "missing" }]);
    expect(treeOf(place.workspace)).toEqual(tree);
    expect(await markOf(place)).toEqual({ snapshot: "a", isRestoring: false });
  });
});

it.each([
  ["restore", "/snapshot/restore?id=a&attempt=1"],
  ["content", "/snapshot/data?id=a&attempt=1"],
])("a restore goes on if the %s of a request that was given up arrives meanwhile", async (_what, late) => {
  const { manifest, pack, tree } = await savedWorkspace();
  await inPlace(0, async (place) => {
    await place.request("PUT", "/snapshot/restore?id=a&attempt=2", manifest);
    await place.giveUp(late);
    expect(await place.request("PUT", "/snapshot/data?id=a&attempt=2", pack)).toMatchObject({ status: 200 });
    expect(treeOf(place.workspace)).toEqual(tree);
    expect(await markOf(place)).toEqual({ snapshot: "a", isRestoring: false });
  });
});

it("the next connection gets a command's current ports, which changed while nothing was connected", async () => {
  await inPlace(0, async (place) => {
    const [gone, ended] = ["gone", "ended"].map((name) => join(place.directory, name)) as [string, string];
    const command = `'${process.execPath}' -e 'require("node:net").createServer().listen(0)' & until [ -e ${gone} ]; do sleep 0.05; done; kill $!; wait; touch ${ended}; sleep 60`;
    /** Makes this call on a new connection. Returns the first ports that sandboxd reports. */
    const portsAfter = async (call: Call) => {
      const socket = new WebSocket(`ws+unix:${place.socket}:/`);
      socket.once("open", () => socket.send(JSON.stringify(call)));
      const ports = await new Promise<readonly number[]>((resolve) => {
        socket.on("message", (data: Buffer, isBinary) => {
          const event = isBinary ? undefined : eventSchema.parse(JSON.parse(data.toString()));
          if (event?.type === "listening") resolve(event.ports);
        });
      });
      socket.close();
      await once(socket, "close");
      return ports;
    };
    const start: Call = { type: "start", id: "r1", session: "main", command, timeoutMs: 60_000 };
    expect(await portsAfter(start)).toHaveLength(1);
    writeFileSync(gone, "");
    await until(() => existsSync(ended));
    // Longer than the interval in which sandboxd looks for ports.
    await sleep(2000);
    const portsLater = () => portsAfter({ type: "follow", id: "r1", stdout: 0, stderr: 0 });
    await expect.poll(portsLater).toEqual([]);
  });
});
