/** Sandboxes whose programs are stopped while the engine counts their files: they go on afterwards, and can end meanwhile. */
import { randomInt } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { whileFrozen } from "../../local/engine/freeze.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { spawnTestEngine, startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { canFreeze, findProcess, type Process, waitForEnd } from "../setup/processes.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep } from "../setup/until.ts";

/** The group of a process in version 2 of control groups. */
function groupOf({ pid }: Process): string {
  const [, path = ""] = /^0::(.*)$/m.exec(readFileSync(`/proc/${pid}/cgroup`, "utf8")) ?? [];
  const roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
  return (
    roots.map((root) => join(root, path)).find((group) => existsSync(join(group, "cgroup.freeze"))) ?? ""
  );
}

async function startSleeper(sandbox: TestSandbox): Promise<Process> {
  const command = `sleep 86400.${randomInt(1e9)}`;
  await sandbox.run(`setsid ${command} >/dev/null 2>&1 &`);
  await expect.poll(() => findProcess(command)).toBeDefined();
  return findProcess(command) as Process;
}

describe.runIf(canFreeze)("programs of a sandbox", () => {
  it.each([
    ["ends", async () => undefined],
    ["fails", async () => await Promise.reject(new Error("failed"))],
  ])("do not run during a count, and go on when it %s", async (_, end) => {
    const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
    const group = groupOf(await startSleeper(sandbox));
    let output: string | undefined;
    const whileStopped = await new Promise((resolve) => {
      const work = whileFrozen([group], async () => {
        void sandbox.run("echo answered").then(({ stdout }) => (output = stdout));
        await sleep(1000);
        resolve(output);
        await end();
      });
      work.catch(() => undefined);
    });
    expect(whileStopped).toBe(undefined);
    await expect.poll(() => output, { timeout: 10_000 }).toBe("answered");
  });

  it("end when the sandbox is destroyed during a count, and its group is removed", async () => {
    const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
    const sleeper = await startSleeper(sandbox);
    const group = groupOf(sleeper);
    await whileFrozen([group], async () => await sandbox.destroy());
    expect(await waitForEnd([sleeper], 0)).toEqual([]);
    await expect.poll(() => existsSync(group), { timeout: 5000 }).toBe(false);
  });

  it("end when the engine is killed during a count", async () => {
    const runDir = temporaryDirectory();
    const engine = await spawnTestEngine(runDir);
    doLater(() => engine.child.kill("SIGKILL"));
    const sleeper = await startSleeper(await TestSandbox.start(engine));
    const group = groupOf(sleeper);
    await writeFile(join(group, "cgroup.freeze"), "1");
    engine.child.kill("SIGKILL");
    expect(await waitForEnd([sleeper], 5000)).toEqual([]);
    // The next engine removes the group.
    endLater(await startTestEngine({ runDir }));
    expect(existsSync(group)).toBe(false);
  });
});
