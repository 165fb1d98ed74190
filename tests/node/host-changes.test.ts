/** Files of the host change while the engine runs, as when a package manager updates them. */
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { startTestEngine, TestSandbox, type TestEngine } from "../setup/engine-client.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

let directory: string;
let engine: TestEngine;

beforeEach(async () => {
  directory = temporaryDirectory();
  await mkdir(join(directory, "tree"), { mode: 0o755 });
  await writeFile(join(directory, "file"), "first");
  await writeFile(join(directory, "tree/file"), "first");
  const mountOf = (name: string) => ({ from: join(directory, name), to: `/opt/${name}` });
  engine = await startTestEngine({ readOnly: [mountOf("file"), mountOf("tree")] });
});
afterEach(() => engine.close());

it("the next sandbox sees the new content of a file or directory that the host replaced, and a running one does not", async () => {
  const sandbox = await TestSandbox.start(engine);
  const readBoth = "cat /opt/file /opt/tree/file";
  expect((await sandbox.run(readBoth)).stdout).toBe("firstfirst");
  await writeFile(join(directory, "new"), "second");
  await rename(join(directory, "new"), join(directory, "file"));
  await rm(join(directory, "tree"), { recursive: true });
  await mkdir(join(directory, "tree"), { mode: 0o755 });
  await writeFile(join(directory, "tree/file"), "second");
  const next = await TestSandbox.start(engine);
  expect((await next.run(readBoth)).stdout).toBe("secondsecond");
  expect((await sandbox.run("cat /opt/file")).stdout).toBe("first");
});

it("a sandbox does not start while a mounted file of the host is missing, and the error names it", async () => {
  const file = join(directory, "file");
  await rm(file);
  await expect(TestSandbox.start(engine)).rejects.toThrow(
    `This machine cannot make a sandbox: bwrap: Can't find source path ${file}`,
  );
  await writeFile(file, "back");
  expect((await (await TestSandbox.start(engine)).run("cat /opt/file")).stdout).toBe("back");
});
