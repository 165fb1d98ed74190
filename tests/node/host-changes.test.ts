/** The host changes what sandboxes are shown while the engine runs, as a package manager does. */
import { mkdir, mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startTestEngine, TestSandbox, type TestEngine } from "../setup/engine-client.ts";

let directory: string;
let engine: TestEngine;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "shown-"));
  await mkdir(join(directory, "tree"), { mode: 0o755 });
  await writeFile(join(directory, "file"), "first");
  await writeFile(join(directory, "tree/file"), "first");
  const shown = (name: string) => ({ from: join(directory, name), to: `/opt/${name}` });
  engine = await startTestEngine({ readOnly: [shown("file"), shown("tree")] });
});
afterEach(async () => {
  await engine.close();
  await rm(directory, { recursive: true });
});

/** What a new sandbox sees. */
async function seen(path: string): Promise<string> {
  const sandbox = await TestSandbox.start(engine);
  const { stdout } = await sandbox.run(`cat ${path}`);
  await sandbox.destroy();
  return stdout;
}

describe("a file or directory that the host replaces", () => {
  it("has its new content in the next sandbox: a file", async () => {
    expect(await seen("/opt/file")).toBe("first");
    await writeFile(join(directory, "new"), "second");
    await rename(join(directory, "new"), join(directory, "file"));
    expect(await seen("/opt/file")).toBe("second");
  });

  it("has its new content in the next sandbox: a directory", async () => {
    expect(await seen("/opt/tree/file")).toBe("first");
    await rm(join(directory, "tree"), { recursive: true });
    await mkdir(join(directory, "tree"), { mode: 0o755 });
    await writeFile(join(directory, "tree/file"), "second");
    expect(await seen("/opt/tree/file")).toBe("second");
  });

  it("does not change a running sandbox, which continues", async () => {
    const sandbox = await TestSandbox.start(engine);
    await writeFile(join(directory, "new"), "second");
    await rename(join(directory, "new"), join(directory, "file"));
    expect(await seen("/opt/file")).toBe("second");
    expect((await sandbox.run("cat /opt/file")).stdout).toBe("first");
    await sandbox.destroy();
  });
});

it("a sandbox that cannot start names the missing directory of the host, until it is back", async () => {
  const file = join(directory, "file");
  await rm(file);
  await expect(TestSandbox.start(engine)).rejects.toThrow(
    `This machine cannot make a sandbox: bwrap: Can't find source path ${file}`,
  );
  await writeFile(file, "back");
  expect(await seen("/opt/file")).toBe("back");
});
