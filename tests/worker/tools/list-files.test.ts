import { describe, expect, it } from "vitest";
import { owner, sh } from "../support.ts";

const sandbox = "list";

interface Listing extends Record<string, unknown> {
  path: string;
  entries: { path: string; type: string; size: number; modified: string }[];
  more: boolean;
}

const list = (args: Record<string, unknown> = {}) => owner.call("list_files", { sandbox, ...args });
const names = async (args: Record<string, unknown>) =>
  ((await list(args)).structured as Listing).entries.map(({ path }) => path);

describe("list_files", () => {
  it("returns type, size, time and name in the order of names, hidden files included", async () => {
    await sh(
      sandbox,
      "mkdir -p one/b; printf 12345 >one/a; ln -s a one/l; : >one/.hidden; mkfifo one/p; touch -d 2024-02-03T04:05:06Z one/a",
    );
    const result = await list({ path: "one" });
    expect(result.structured).toMatchObject({
      path: "/workspace/one",
      more: false,
      entries: [
        { path: ".hidden", type: "file", size: 0 },
        { path: "a", type: "file", size: 5, modified: "2024-02-03T04:05:06.000Z" },
        { path: "b", type: "directory" },
        { path: "l", type: "symlink" },
        { path: "p", type: "other" },
      ],
    });
    expect(result.text).toContain("file               5 2024-02-03T04:05:06Z a");
  });

  it("lists and reads a sparse file of any size, and the files beside it", async () => {
    // Such a file cannot be saved, and a notice says so in any later result of its sandbox.
    const own = "list-sparse";
    await sh(
      own,
      "mkdir -p huge; cd huge; truncate -s 9223372036854775807 sparse; echo beside > beside; cd ..",
    );
    expect((await list({ sandbox: own, path: "huge" })).structured).toMatchObject({
      entries: [{ path: "beside" }, { path: "sparse", type: "file", size: 2 ** 50 }],
    });
    const read = await owner.call("read_file", {
      sandbox: own,
      path: "huge/sparse",
      encoding: "base64",
      limit: 4,
    });
    expect(read).toMatchObject({ isError: false });
  });

  it("lists recursively on request, without following links", async () => {
    await sh(sandbox, "mkdir -p two/d/e; touch two/d/e/f two/d/g; ln -s d two/l");
    expect(await names({ path: "two" })).toEqual(["d", "l"]);
    expect(await names({ path: "two", recursive: true })).toEqual(["d", "d/e", "d/e/f", "d/g", "l"]);
    expect(await names({ path: "two/l" })).toEqual(["e", "g"]);
  });

  it("stops at its limit, and names the cursor for the next entries", async () => {
    await sh(sandbox, "mkdir -p many; cd many; seq -f %04g 0 6000 | xargs touch; cd ..");
    const some = await list({ path: "many", limit: 3 });
    expect(some.structured).toMatchObject({
      more: true,
      entries: [{ path: "0000" }, { path: "0001" }, { path: "0002" }],
    });
    expect(some.text).toContain("go on with cursor 0002, raise limit (at most 5000)");
    expect((await names({ path: "many" })).length).toBe(200);
    expect((await names({ path: "many", limit: 5000 })).length).toBe(5000);
    expect((await list({ path: "many", limit: 5001 })).isError).toBe(true);
    await sh(sandbox, "mkdir -p three; touch three/{a,b,c}");
    expect((await list({ path: "three", limit: 3 })).structured).toMatchObject({ more: false });
  });

  it("continues at a cursor to the last entry, with names of any bytes", async () => {
    const all: string[] = [];
    let cursor: string | undefined;
    do {
      const { structured } = await list({ path: "many", limit: 5000, cursor });
      const part = structured as { entries: { path: string }[]; next_cursor?: string };
      all.push(...part.entries.map(({ path }) => path));
      cursor = part.next_cursor;
    } while (cursor !== undefined);
    expect(all).toEqual(Array.from({ length: 6001 }, (_, index) => String(index).padStart(4, "0")));

    await sh(
      sandbox,
      "mkdir -p odd-bytes/d/e; cd odd-bytes; touch a d/x d/e/$'\\xe9' d/e/$'\\xff' 'd/e/z%41' d.y e; cd ..",
    );
    const unpaged = await names({ path: "odd-bytes", recursive: true });
    const single: string[] = [];
    do {
      const { structured } = await list({ path: "odd-bytes", recursive: true, limit: 1, cursor });
      const part = structured as { entries: { path: string }[]; next_cursor?: string };
      single.push(...part.entries.map(({ path }) => path));
      cursor = part.next_cursor;
    } while (cursor !== undefined);
    expect(single).toEqual(unpaged);
    expect(unpaged).toHaveLength(9);
    expect(await list({ path: "many", cursor: "%zz" })).toMatchObject({
      isError: true,
      text: expect.stringContaining("The cursor is not from"),
    });
    expect((await list({ path: "many", cursor: "9999" })).text).toBe("There are no more entries.");
  });

  it("says in listings and errors how to reach a name that is not UTF-8", async () => {
    await sh(sandbox, "mkdir -p latin; touch latin/$'caf\\xe9.txt'");
    expect((await list({ path: "latin" })).text).toMatch(/caf\uFFFD\.txt"\n.*not UTF-8.*run_command/);
    const { text } = await owner.call("read_file", { sandbox, path: "latin/caf\uFFFD.txt" });
    expect(text).toMatch(/There is no .*not UTF-8.*run_command/);
  });

  it("lists each name on a line of its own", async () => {
    const oddNames = [
      "-dash",
      " lead",
      "trail ",
      "two\nlines",
      "tab\there",
      "ž🐎",
      "quote'\"",
      "*",
      "$(x)",
      "\\n",
    ];
    for (const path of oddNames)
      await owner.call("write_file", { sandbox, path: `odd/${path}`, content: "x" });
    expect((await names({ path: "odd" })).toSorted()).toEqual(oddNames.toSorted());
    const { text } = await list({ path: "odd" });
    expect(text.split("\n")).toHaveLength(oddNames.length);
    expect(text).toContain('"two\\nlines"');
    await sh(sandbox, "mkdir -p './-odd dir\n'; touch './-odd dir\n/x'");
    expect(await names({ path: "-odd dir\n" })).toEqual(["x"]);
    await sh(sandbox, "mkdir -p bytes; touch $'bytes/\\xff\\xfe'");
    expect((await names({ path: "bytes" })).length).toBe(1);
  });

  it("lists /workspace by default, and says when a directory is empty", async () => {
    expect((await list()).structured).toMatchObject({ path: "/workspace" });
    await sh(sandbox, "mkdir -p none");
    expect((await list({ path: "none" })).text).toBe("/workspace/none is empty.");
  });

  it.each([
    ["missing", "There is no /workspace/missing. Use list_files."],
    ["file", "/workspace/file is a file, not a directory. Use read_file."],
  ])("refuses %s with a readable error", async (path, words) => {
    await sh(sandbox, "touch file");
    expect(await list({ path })).toMatchObject({ isError: true, text: words });
  });
});
