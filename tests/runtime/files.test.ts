import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { failureOf, REMOTE_URL, startRuntime, type Runtime } from "./runtime.ts";

let runtime: Runtime;
let api: Runtime["api"];
let root: string;
const session = `files-${process.pid}`;

beforeAll(async () => {
  runtime = await startRuntime();
  api = runtime.api;
  root = `${runtime.workspace}/${session}`;
  await api.commands.execute(`mkdir -p ${root} && cd ${root}`, session);
});
afterAll(async () => {
  await api.commands.execute(`rm -rf ${root}`, session);
  await runtime.stop();
});

const shell = async (command: string): Promise<string> =>
  (await api.commands.execute(command, session)).stdout;

describe("reading and writing", () => {
  it("round-trips text, with parents made and odd names", async () => {
    const path = `${root}/deep/er/it's a "name" ü.txt`;
    const written = await api.files.writeFile(path, "héllo\n", session);
    expect(written).toMatchObject({ success: true, path, bytesWritten: 7 });
    const read = await api.files.readFile(path, session);
    expect(read).toMatchObject({ content: "héllo\n", encoding: "utf-8", isBinary: false, size: 7 });
  });

  it("round-trips bytes as base64 and refuses what is not base64", async () => {
    const bytes = randomBytes(100_000);
    const path = `${root}/bytes.bin`;
    await api.files.writeFile(path, bytes.toString("base64"), session, { encoding: "base64" });
    const read = await api.files.readFile(path, session);
    expect(read).toMatchObject({ encoding: "base64", isBinary: true, size: bytes.length });
    expect(Buffer.from(String(read.content), "base64").equals(bytes)).toBe(true);
    const refused = await failureOf(
      api.files.writeFile(path, "not base64!", session, { encoding: "base64" }),
    );
    expect(refused).toMatchObject({ code: "VALIDATION_FAILED" });
    expect(refused.details?.validationErrors).toMatchObject([{ field: "content" }]);
  });

  it("tells text from binary by content, and leaves out a byte order mark", async () => {
    await shell(
      "printf 'abc\\0\\377' > data; : > empty; echo plain > README; printf '\\357\\273\\277mark' > marked",
    );
    const kinds: Record<string, unknown> = {};
    for (const name of ["data", "empty", "README", "marked"]) {
      const { encoding, content, size } = await api.files.readFile(`${root}/${name}`, session);
      kinds[name] = [encoding, content, size];
    }
    expect(kinds).toEqual({
      data: ["base64", "YWJjAP8=", 5],
      empty: ["utf-8", "", 0],
      README: ["utf-8", "plain\n", 6],
      marked: ["utf-8", "mark", 7],
    });
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

  it("deletes files, no directories, and no links to what is none", async () => {
    await shell("echo a > a; mkdir dir; ln -s dir link; ln -s nowhere dangling");
    await api.files.deleteFile(`${root}/a`, session);
    expect((await api.files.exists(`${root}/a`, session)).exists).toBe(false);
    const codes: unknown[] = [];
    for (const name of ["a", "dangling", "dir", "link"])
      codes.push((await failureOf(api.files.deleteFile(`${root}/${name}`, session))).code);
    expect(codes).toEqual(["FILE_NOT_FOUND", "FILE_NOT_FOUND", "IS_DIRECTORY", "IS_DIRECTORY"]);
  });

  it("finds a pipe too large to read, and no file in a device", async () => {
    await shell("mkfifo unread");
    expect(await failureOf(api.files.readFile(`${root}/unread`, session))).toMatchObject({
      code: "FILE_TOO_LARGE",
      details: { actualSize: Infinity, path: `${root}/unread` },
    });
    expect((await failureOf(api.files.readFile("/dev/null", session))).code).toBe("FILE_NOT_FOUND");
  });

  it("refuses with the container's codes", async () => {
    await shell("mkdir -p d; mkfifo pipe");
    const codes = await Promise.all(
      [
        api.files.readFile(`${root}/none`, session),
        api.files.readFile(`${root}/d`, session),
        api.files.writeFile(`${root}/d`, "x", session),
        api.files.writeFile(`${root}/pipe`, "x", session),
        api.files.writeFile(`${root}/a\0b`, "x", session),
        api.files.readFile("", session),
      ].map(async (call) => (await failureOf(call)).code),
    );
    expect(codes).toEqual([
      "FILE_NOT_FOUND",
      "FILE_NOT_FOUND",
      "FILESYSTEM_ERROR",
      "FILESYSTEM_ERROR",
      "VALIDATION_FAILED",
      "VALIDATION_FAILED",
    ]);
  });

  it.skipIf(REMOTE_URL)("refuses an option that only the container has", async () => {
    const refused = await failureOf(api.files.readFile(`${root}/README`, session, { encoding: "none" }));
    expect(refused).toMatchObject({
      code: "VALIDATION_FAILED",
      message: expect.stringContaining("'encoding'"),
    });
  });
});
