/** Sandboxes that make the kernel start modprobe. The kernel of this machine may have no modules, so the test shows where threads wait. */
import { expect, it, vi } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";

vi.mock(import("../../local/engine/host-files.ts"), async (original) => {
  const files = await original();
  return {
    ...files,
    readText: (file) => {
      if (file === "/proc/sys/kernel/modprobe") return "/sbin/modprobe\n";
      const [, process] = /^\/proc\/(\d+)\/wchan$/.exec(file) ?? [];
      const isWaiting = process !== undefined && files.readText(`/proc/${process}/comm`) === "waits\n";
      return isWaiting ? "call_usermodehelper_exec" : files.readText(file);
    },
  };
});

it("the engine ends a sandbox with several threads that wait for modprobe, and none with one", async () => {
  const engine = endLater(await startTestEngine());
  const [modest, busy] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
  const wait = "cp /bin/sleep /tmp/waits; /tmp/waits 600 >/dev/null 2>&1 & ";
  await modest.run(wait);
  await busy.run(wait.repeat(4)).catch(() => undefined);
  expect((await busy.waitForEnd()).reason).toContain("modprobe");
  expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
});
