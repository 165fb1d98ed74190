/** Directories that change while they are listed. Linux can then return a name twice. */
import * as fs from "node:fs";
import { join } from "node:path";
import { expect, it, vi } from "vitest";
import { namesIn } from "../../container/sandboxd/snapshots/file-status.ts";
import { requireReadable } from "../../container/sandboxd/snapshots/manifest.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

vi.mock("node:fs", async (importActual) => {
  const actual = await importActual<typeof fs>();
  const readdirSync = (...call: Parameters<typeof fs.readdirSync>) => {
    const names = actual.readdirSync(...call);
    return [...names, ...names];
  };
  return { ...actual, readdirSync };
});

it("a name that a directory lists twice is saved once", () => {
  const root = temporaryDirectory();
  fs.writeFileSync(join(root, "a"), "");
  fs.writeFileSync(join(root, "b"), "");
  expect(namesIn(root, "")).toEqual(["a", "b"]);
});

it("entries that no restore could read make the save fail", async () => {
  const directory = (path: string) => ({
    path,
    type: "directory" as const,
    mode: 0o755,
    mtime: 1,
    uid: 0,
    gid: 0,
  });
  const valid = [directory("workspace"), directory("workspace/a")];
  await requireReadable(valid);
  await expect(requireReadable([...valid, directory("workspace/a")])).rejects.toThrow("twice");
  await expect(requireReadable([directory("workspace/a/b")])).rejects.toThrow("missing");
});
