/** sandboxd's file operations while files change, clients disconnect, or names are not UTF-8. */
import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { unfinishedName } from "../../container/sandboxd/directories.ts";
import { listDirectory, openFile, readLines } from "../../container/sandboxd/reading.ts";
import { Writes } from "../../container/sandboxd/writing.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

it("a client that disconnects during a read does not change a file's number of lines for later reads", async () => {
  const path = join(temporaryDirectory(), "file");
  const lines = 500_000;
  writeFileSync(path, "line\n".repeat(lines));
  const read = async (isWanted: () => boolean) => {
    const opened = await openFile(path);
    try {
      return await readLines(opened, { path, offset: 1, limit: 1, max: 100 }, isWanted);
    } finally {
      await opened.handle.close();
    }
  };
  let parts = 0;
  await read(() => ++parts < 3);
  expect((await read(() => true)).lines).toBe(lines);
});

it("a page of a large directory leads to the next one although files vanish meanwhile", async () => {
  const directory = temporaryDirectory("/dev/shm");
  const names = Array.from({ length: 21_000 }, (_, n) => `file${String(n).padStart(5, "0")}`);
  for (const name of names) writeFileSync(join(directory, name), "");
  let hasListed = false;
  const removeOne = () => {
    // Directories are listed before this function is called for the first entry.
    if (hasListed) rmSync(join(directory, "file00005"), { force: true });
    hasListed = true;
    return true;
  };
  const listed: string[] = [];
  let after: string | undefined = "";
  while (after !== undefined && listed.length < 1000) {
    const call = { path: directory, depth: 1, limit: 500, after };
    const { entries, next }: Awaited<ReturnType<typeof listDirectory>> = await listDirectory(call, removeOne);
    listed.push(...entries.map(({ path }) => path));
    after = next;
  }
  expect(listed).toEqual(names.filter((name) => name !== "file00005").slice(0, listed.length));
  expect(listed.length).toBeGreaterThanOrEqual(1000);
});

it.each(["file", "directory"])(
  "a change through a link to a %s whose name is not UTF-8 is refused, and affects no other file",
  async (kind) => {
    const directory = temporaryDirectory();
    const target = Buffer.concat([Buffer.from(`${directory}/caf`), Buffer.from([0xe9])]);
    // Its name is what the name of the target becomes as a string.
    const other = join(directory, "caf\ufffd");
    for (const path of [target, other])
      if (kind === "file") writeFileSync(path, "old");
      else mkdirSync(path);
    if (kind === "directory") writeFileSync(join(other, "file"), "old");
    symlinkSync(target, join(directory, "link"));
    const path = join(directory, kind === "file" ? "link" : "link/file");
    const body = (async function* () {
      yield Buffer.from("new");
    })();
    const write = () => new Writes().write({ id: "a", path, length: 3 }, body);
    const remove = () => new Writes().remove({ id: "b", path });
    // The link to the file itself can be removed.
    for (const change of kind === "file" ? [write] : [write, remove])
      await expect(change()).rejects.toMatchObject({ failure: { code: "EILSEQ" } });
    expect(readFileSync(kind === "file" ? other : join(other, "file"), "utf8")).toBe("old");
  },
);

it("a repeated edit does not add to the content that a killed sandboxd has left", async () => {
  const directory = temporaryDirectory();
  const path = join(directory, "file");
  const id = "a".repeat(32);
  writeFileSync(path, "one two");
  writeFileSync(join(directory, unfinishedName(id)), "one 2");
  await new Writes().edit({ id, path }, [{ old_text: "two", new_text: "2", all: false }]);
  expect(readFileSync(path, "utf8")).toBe("one 2");
});
