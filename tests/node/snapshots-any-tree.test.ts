/** Random workspaces are restored unchanged in another place, after random changes between saves. */
import {
  chmodSync,
  linkSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "../setup/chance.ts";
import { expect, it } from "vitest";
import { Base } from "../../container/sandboxd/snapshots/base.ts";
import { Scanner } from "../../container/sandboxd/snapshots/scan.ts";
import { bytesOf } from "../../container/sandboxd/snapshots/manifest.ts";
import { Restore } from "../../container/sandboxd/snapshots/restore.ts";
import { Save } from "../../container/sandboxd/snapshots/save.ts";
import type { Index } from "../../container/sandboxd/snapshots/state.ts";

const { signal } = new AbortController();

/** Only a few names, so that entries replace each other. One is not UTF-8, and one contains a newline. */
const name = fc.constantFrom("a", "b", "new\nline", "\xff\xfe", "node_modules");
const path = fc.array(name, { minLength: 1, maxLength: 3 }).map((parts) => parts.join("/"));
const mode = fc.constantFrom(0o644, 0o600, 0o755, 0, 0o4755, 0o444);
/** Seconds since 1970: also negative ones, one in the year 9999, and one that is too large for a `Date`. */
const mtime = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: -1_000_000, max: 2_000_000_000 }) },
  fc.constantFrom(253_402_214_400, 2_840_000_000_000_000_000),
);
const step = fc.oneof(
  fc.record({
    kind: fc.constant("file" as const),
    path,
    mode,
    mtime,
    text: fc.constantFrom("", "x", "\0".repeat(5000), "words ".repeat(2000)),
  }),
  fc.record({ kind: fc.constant("directory" as const), path, mtime }),
  fc.record({
    kind: fc.constant("symlink" as const),
    path,
    mtime,
    target: fc.constantFrom("a", "../..", "/etc/passwd", "dangling\xff"),
  }),
  fc.record({ kind: fc.constant("link" as const), path, to: path }),
  fc.record({ kind: fc.constant("remove" as const), path }),
);

/** Executes a step if it is possible; for example, the parent may be a file. */
function take(root: string, action: typeof step extends fc.Arbitrary<infer T> ? T : never): void {
  const pathBytes = bytesOf(root, action.path);
  const parent = action.path.split("/").slice(0, -1).join("/");
  try {
    if (action.kind === "remove") return rmSync(pathBytes, { recursive: true, force: true });
    if (parent !== "" && !lstatSync(bytesOf(root, parent)).isDirectory()) return;
    if (action.kind === "link") return linkSync(bytesOf(root, action.to), pathBytes);
    if (action.kind === "directory") mkdirSync(pathBytes);
    else rmSync(pathBytes, { recursive: true, force: true });
    if (action.kind === "symlink") symlinkSync(Buffer.from(action.target, "latin1"), pathBytes);
    if (action.kind === "file") {
      writeFileSync(pathBytes, action.text);
      chmodSync(pathBytes, action.mode);
    }
    // As text, because Node replaces a negative number with the current time.
    lutimesSync(pathBytes, String(action.mtime), String(action.mtime));
  } catch {
    // The step is impossible here.
  }
}

/** Rounds down, also before 1970. */
const microseconds = (ns: bigint) => Number((ns - (((ns % 1000n) + 1000n) % 1000n)) / 1000n);

/** The attributes of all entries. Hard links have the first path of their file. */
function stateOf(root: string): Record<string, unknown> {
  const state: Record<string, unknown> = {};
  const first = new Map<bigint, string>();
  const walk = (directory: string): void => {
    for (const entry of readdirSync(bytesOf(root, directory), { encoding: "latin1" }).sort()) {
      const where = directory === "" ? entry : `${directory}/${entry}`;
      const at = bytesOf(root, where);
      const stats = lstatSync(at, { bigint: true });
      const common = { mode: Number(stats.mode), mtime: microseconds(stats.mtimeNs) };
      if (stats.isSymbolicLink()) state[where] = { ...common, to: readlinkSync(at, { encoding: "latin1" }) };
      else if (stats.isDirectory()) state[where] = common;
      else {
        if (!first.has(stats.ino)) first.set(stats.ino, where);
        state[where] = { ...common, text: readFileSync(at, "latin1"), same: first.get(stats.ino) };
      }
      if (stats.isDirectory()) walk(where);
    }
  };
  walk("");
  return state;
}

it("any workspace is restored elsewhere unchanged, after any change between two saves", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 20 }),
      fc.array(step, { maxLength: 20 }),
      async (before, after) => {
        const base = mkdtempSync(join(tmpdir(), "snapshots-"));
        try {
          const [root, elsewhere] = [join(base, "root"), join(base, "elsewhere")];
          for (const one of [root, elsewhere]) mkdirSync(join(one, "workspace"), { recursive: true });
          const packs = new Map<string, Buffer>();
          let index: Index = new Map();
          let manifest = Buffer.alloc(0);
          for (const [id, steps] of [
            ["a", before],
            ["b", after],
          ] as const) {
            for (const one of steps) take(join(root, "workspace"), one);
            const changes = await new Scanner(root, () => new Base("")).changes(signal);
            const save = new Save(id, root, index, { max: 1e9, repack: [] }, changes);
            const parts: Buffer[] = [];
            for await (const part of save.pack(signal)) parts.push(part);
            packs.set(id, Buffer.concat(parts));
            manifest = Buffer.from(await save.manifest());
            index = save.index;
          }
          for (const one of before) take(join(elsewhere, "workspace"), one);
          const restore = await Restore.begin("b", { root: elsewhere, base: new Base("") }, manifest);
          await restore.receive(
            (async function* () {
              for (const { pack, from, to } of restore.reads)
                yield packs.get(pack)?.subarray(from, to) ?? Buffer.alloc(0);
            })(),
          );
          await restore.finish();
          expect(stateOf(join(elsewhere, "workspace"))).toEqual(stateOf(join(root, "workspace")));
        } finally {
          rmSync(base, { recursive: true, force: true });
        }
      },
    ),
    { numRuns: 100 },
  );
});
