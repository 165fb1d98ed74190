/** An idle sandbox costs nothing: sandboxd does not scan it for changes. */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { expect, it } from "vitest";
import type { Plan, PlanCall } from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { until } from "../setup/until.ts";
import { endLater } from "../setup/end-later.ts";
import { TestSandbox, startTestEngine } from "../setup/engine-client.ts";

/** The path of a sandbox's directory on this machine. Waits for the sandbox's process `sleep <marker>`. */
async function outsideOf(marker: string, path: string): Promise<string> {
  const isOf = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1") === `sleep\0${marker}\0`;
    } catch {
      return false;
    }
  };
  const pid = await until(() => readdirSync("/proc").find((name) => /^\d+$/.test(name) && isOf(name)));
  return `/proc/${pid}/root${path}`;
}

it("sandboxd scans for changes only after a process has used the processor", async () => {
  const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
  const marker = `1${randomBytes(4).readUInt32BE()}`;
  await sandbox.run(`mkdir -p /workspace/seen; sleep ${marker} >/dev/null 2>&1 &`);
  const directory = await outsideOf(marker, "/workspace/seen");
  const steps = async (id: string, base?: string, isAtRest = true): Promise<Plan["state"]> => {
    const call: PlanCall = { id, base, max: 1e9, repack: [], isAtRest };
    const plan: Plan = JSON.parse(await sandbox.ask("POST", "/snapshot", JSON.stringify(call)));
    if (plan.state === "changed") {
      await sandbox.ask("GET", `/snapshot/pack?id=${id}`);
      await sandbox.ask("GET", `/snapshot/manifest?id=${id}`);
      await sandbox.ask("POST", `/snapshot/done?id=${id}`);
      await sandbox.ask("POST", `/snapshot/commit?id=${id}`);
    }
    return plan.state;
  };
  // When a directory is read, the kernel updates its access time if that time is older than the directory's last change.
  const isScanned = async (work: () => Promise<unknown>) => {
    execFileSync("touch", ["-a", "-d", "2001-01-01", directory]);
    const before = statSync(directory).atimeMs;
    await work();
    return statSync(directory).atimeMs !== before;
  };
  expect(await isScanned(() => steps("a"))).toBe(true);
  expect(await steps("b", "a")).toBe("unchanged");
  // The sandbox's own programs may still be starting.
  await until(async () => !(await isScanned(() => steps("c", "a"))));
  expect(await isScanned(() => steps("d", "a", false))).toBe(true);
  await sandbox.run("echo more > /workspace/seen/file");
  expect(await steps("e", "a")).toBe("changed");
});
