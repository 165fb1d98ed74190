import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventsOf, failureOf, startRuntime, type Runtime } from "./runtime.ts";

let runtime: Runtime;
let api: Runtime["api"];
let root: string;
const session = `files-${process.pid}`;

beforeAll(async () => {
  runtime = await startRuntime();
  api = runtime.api;
  root = `${runtime.workspace}/${session}`;
  await api.files.mkdir(root, session);
});
afterAll(async () => {
  await api.commands.execute(`rm -rf ${root}`, session);
  await runtime.stop();
});

const shell = async (command: string): Promise<string> =>
  (await api.commands.execute(command, session, { cwd: root })).stdout;

describe("reading and writing", () => {
  it("round-trips text, with parents made and odd names", async () => {
    const path = `${root}/deep/er/it's a "name" ü.txt`;
    const written = await api.files.writeFile(path, "héllo\n", session);
    expect(written).toMatchObject({ success: true, path, bytesWritten: 7 });
    const read = await api.files.readFile(path, session);
    const expected = {
      content: "héllo\n",
      encoding: "utf-8",
      isBinary: false,
      size: 7,
      mimeType: "text/plain",
    };
    expect(read).toMatchObject(expected);
  });

  it("round-trips bytes as base64 and refuses what is not base64", async () => {
    const bytes = randomBytes(100_000);
    const path = `${root}/bytes.bin`;
    await api.files.writeFile(path, bytes.toString("base64"), session, { encoding: "base64" });
    const read = await api.files.readFile(path, session, { encoding: "base64" });
    expect(Buffer.from(String(read.content), "base64").equals(bytes)).toBe(true);
    const refused = await failureOf(
      api.files.writeFile(path, "not base64!", session, { encoding: "base64" }),
    );
    expect(refused).toMatchObject({ code: "VALIDATION_FAILED" });
    expect(refused.details?.validationErrors).toMatchObject([{ field: "content" }]);
  });

  it("tells text from binary by name and by content", async () => {
    await shell(
      "printf '\\x89PNG\\r\\n\\x1a\\n\\0' > noname; printf 'abc\\0\\377' > data; : > empty; echo '{}' > a.json",
    );
    await shell("printf '\\377\\376' > text.txt; echo plain > README");
    const kinds: Record<string, unknown> = {};
    for (const name of ["noname", "data", "empty", "a.json", "text.txt", "README"]) {
      const read = await api.files.readFile(`${root}/${name}`, session);
      kinds[name] = ["encoding" in read && read.encoding, read.mimeType];
    }
    expect(kinds).toEqual({
      noname: ["base64", "image/png"],
      data: ["base64", "application/octet-stream"],
      empty: ["utf-8", "inode/x-empty"],
      "a.json": ["utf-8", "application/json"],
      "text.txt": ["utf-8", "text/plain"],
      README: ["utf-8", "text/plain"],
    });
  });

  it("streams a file's bytes with encoding none", async () => {
    const bytes = randomBytes(1_000_000);
    await api.files.writeFile(`${root}/big.bin`, bytes.toString("base64"), session, { encoding: "base64" });
    const read = await api.files.readFile(`${root}/big.bin`, session, { encoding: "none" });
    expect(read.size).toBe(bytes.length);
    const got = await new Response(read.content).bytes();
    expect(Buffer.from(got).equals(bytes)).toBe(true);
  });

  it("streams a file as events, text and binary", async () => {
    const text = "ünï\n".repeat(50_000);
    await api.files.writeFile(`${root}/long.txt`, text, session);
    const events = await eventsOf(await api.files.readFileStream(`${root}/long.txt`, session));
    expect(events[0]).toEqual({
      type: "metadata",
      mimeType: "text/plain",
      size: Buffer.byteLength(text),
      isBinary: false,
      encoding: "utf-8",
    });
    expect(events.at(-1)).toEqual({ type: "complete", bytesRead: Buffer.byteLength(text) });
    const chunks = events.filter(({ type }) => type === "chunk");
    expect(chunks.length).toBeGreaterThan(1);
    expect(chunks.map(({ data }) => data).join("")).toBe(text);

    const binary = await eventsOf(await api.files.readFileStream(`${root}/big.bin`, session));
    const pieces = binary
      .filter(({ type }) => type === "chunk")
      .map(({ data }) => Buffer.from(String(data), "base64"));
    expect(Buffer.concat(pieces).length).toBe(1_000_000);
    expect(await eventsOf(await api.files.readFileStream(`${root}/none`, session))).toMatchObject([
      { type: "error", error: `File not found: ${root}/none` },
    ]);
  });

  it("writes a stream in one piece and keeps the mode", async () => {
    const path = `${root}/new/script.sh`;
    await api.files.writeFile(path, "old", session);
    await shell("chmod 755 new/script.sh");
    const stream = new Blob(["echo ", "one\n", "echo two\n"]).stream();
    expect(await api.files.writeFileStream(path, stream, session)).toMatchObject({ bytesWritten: 18 });
    expect(await shell("./new/script.sh; ls new")).toBe("one\ntwo\nscript.sh");
  });

  it("takes relative paths from the session's directory", async () => {
    const id = `${session}-relative`;
    await api.commands.execute(`cd ${root} && mkdir -p sub && cd sub`, id);
    await api.files.writeFile("here.txt", "x", id);
    expect((await api.files.exists("../sub/here.txt", id)).exists).toBe(true);
    expect(await shell("cat sub/here.txt")).toBe("x");
  });

  it("limits an encoded read to 32 MiB", async () => {
    await shell("truncate -s 33554433 huge");
    expect(await failureOf(api.files.readFile(`${root}/huge`, session))).toMatchObject({
      code: "FILE_TOO_LARGE",
      details: { actualSize: 33_554_433, maxSize: 33_554_432, operation: "file.read", path: `${root}/huge` },
    });
    await shell("rm huge");
  });
});

describe("moving, deleting, making", () => {
  it("renames, moves into directories and deletes", async () => {
    await shell("echo a > a; mkdir dir");
    expect(await api.files.renameFile(`${root}/a`, `${root}/b`, session)).toMatchObject({
      path: `${root}/a`,
      newPath: `${root}/b`,
    });
    await api.files.moveFile(`${root}/b`, `${root}/dir`, session);
    expect(await shell("cat dir/b")).toBe("a");
    await api.files.deleteFile(`${root}/dir/b`, session);
    expect((await api.files.exists(`${root}/dir/b`, session)).exists).toBe(false);
    expect((await api.files.exists(`${root}/dir`, session)).exists).toBe(true);
  });

  it("makes directories, with parents when asked", async () => {
    const path = `${root}/p/q/r`;
    expect((await failureOf(api.files.mkdir(path, session))).code).toBe("FILESYSTEM_ERROR");
    expect(await api.files.mkdir(path, session, { recursive: true })).toMatchObject({
      path,
      recursive: true,
    });
    expect((await failureOf(api.files.mkdir(path, session))).code).toBe("FILESYSTEM_ERROR");
    const impossible = api.files.mkdir("/proc/none/at/all", session, { recursive: true });
    expect((await failureOf(impossible)).code).toBe("FILESYSTEM_ERROR");
  });

  it("refuses with the container's codes", async () => {
    await shell("mkdir -p d; echo > f; mkfifo pipe");
    const codes = await Promise.all(
      [
        api.files.readFile(`${root}/none`, session),
        api.files.readFile(`${root}/d`, session),
        api.files.readFile(`${root}/none`, session, { encoding: "none" }),
        api.files.deleteFile(`${root}/none`, session),
        api.files.deleteFile(`${root}/d`, session),
        api.files.renameFile(`${root}/none`, `${root}/x`, session),
        api.files.moveFile(`${root}/f`, `${root}/none/x`, session),
        api.files.writeFile(`${root}/d`, "x", session),
        api.files.writeFile(`${root}/pipe`, "x", session),
        api.files.readFile(`${root}/pipe`, session),
        api.files.writeFile(`${root}/a\0b`, "x", session),
        api.files.readFile("", session),
        api.files.listFiles(`${root}/none`, session),
        api.files.listFiles(`${root}/f`, session),
      ].map(async (call) => (await failureOf(call)).code),
    );
    expect(codes).toEqual([
      "FILE_NOT_FOUND",
      "FILE_NOT_FOUND",
      "FILE_NOT_FOUND",
      "FILE_NOT_FOUND",
      "IS_DIRECTORY",
      "FILE_NOT_FOUND",
      "FILESYSTEM_ERROR",
      "FILESYSTEM_ERROR",
      "FILESYSTEM_ERROR",
      "FILESYSTEM_ERROR",
      "VALIDATION_FAILED",
      "VALIDATION_FAILED",
      "FILE_NOT_FOUND",
      "NOT_DIRECTORY",
    ]);
  });
});

/** What a listing of `l/` names, in order. */
const names = async (options: object): Promise<string[]> =>
  (await api.files.listFiles(`${root}/l/`, session, options)).files
    .map(({ relativePath }) => relativePath)
    .toSorted();

describe("listing", () => {
  it("describes each entry as find does", async () => {
    await shell(
      "mkdir -p l/sub/.git l/.hid; echo 12 > l/f; chmod 640 l/f; ln -s f l/s; mkfifo l/p; touch -d '2020-01-02 03:04:05.5' l/f",
    );
    await shell("touch l/sub/inner l/sub/.git/config l/.hid/x l/.dot");
    const { files, count } = await api.files.listFiles(`${root}/l`, session);
    expect(count).toBe(4);
    const byName = new Map(files.map((file) => [file.name, file]));
    expect(byName.get("f")).toMatchObject({
      absolutePath: `${root}/l/f`,
      relativePath: "f",
      type: "file",
      size: 3,
      mode: "rw-r-----",
      permissions: { readable: true, writable: true, executable: false },
    });
    expect(byName.get("f")?.modifiedAt).toBe(await shell("find l/f -printf %TY-%Tm-%TdT%TH:%TM:%TS"));
    expect(["s", "p", "sub"].map((name) => byName.get(name)?.type)).toEqual([
      "symlink",
      "other",
      "directory",
    ]);
  });

  it("goes deeper and shows hidden names when asked", async () => {
    // As `find` with a test on the name alone: what is inside a hidden directory is listed.
    expect(await names({ recursive: true })).toEqual([
      ".hid/x",
      "f",
      "p",
      "s",
      "sub",
      "sub/.git/config",
      "sub/inner",
    ]);
    expect(await names({ includeHidden: true })).toEqual([".dot", ".hid", "f", "p", "s", "sub"]);
  });
});
