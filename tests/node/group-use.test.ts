/** What the engine reads of control groups, here plain directories. */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { expect, it } from "vitest";
import {
  activityOf,
  groupsWith,
  kernelMemoryOf,
  memoryLack,
  memoryOf,
} from "../../local/engine/group-use.ts";
import { readShared } from "../../local/engine/host-files.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep } from "../setup/until.ts";

const MiB = 1024 * 1024;

it("the engine looks for a group's file again until it has found it", () => {
  const [group, other] = [temporaryDirectory(), temporaryDirectory()];
  const groups = [group, other];
  expect(groupsWith("pids.current", groups)).toEqual([]);
  writeFileSync(join(group, "pids.current"), "1");
  expect(groupsWith("pids.current", groups)).toEqual([group]);
  rmSync(join(group, "pids.current"));
  expect(groupsWith("pids.current", groups)).toEqual([group]);
});

it("all of the kernel's memory for a group of version 2 counts, and before Linux 5.18 its slabs that it cannot free", async () => {
  const group = temporaryDirectory();
  const slabs = `slab_reclaimable ${5 * MiB}\nslab_unreclaimable ${20 * MiB}\nslab ${25 * MiB}\n`;
  writeFileSync(join(group, "memory.current"), String(100 * MiB));
  writeFileSync(join(group, "memory.stat"), `file 0\n${slabs}`);
  expect(await kernelMemoryOf(group)).toBe(20 * MiB);
  expect(await memoryOf(group)).toBe(106 * MiB);
  writeFileSync(join(group, "memory.stat"), `file 0\nkernel ${50 * MiB}\nkernel_stack ${MiB}\n${slabs}`);
  expect(await kernelMemoryOf(group)).toBe(50 * MiB);
  expect(await memoryOf(group)).toBe(115 * MiB);
});

it("in version 2, programs no longer wait for memory when the kernel has stopped to visit pages in vain", async () => {
  const group = temporaryDirectory();
  const isLacking = memoryLack([group]);
  writeFileSync(join(group, "memory.high"), "1000");
  writeFileSync(join(group, "memory.current"), "990");
  const visit = (pages: number) => writeFileSync(join(group, "memory.stat"), `pgscan ${pages}\npgsteal 0\n`);
  visit(0);
  expect(isLacking()).toBe(false);
  visit(100_000);
  expect(isLacking()).toBe(true);
  visit(110_000);
  expect(isLacking()).toBe(true);
  await sleep(3100);
  expect(isLacking()).toBe(false);
  visit(120_000);
  expect(isLacking()).toBe(true);
});

it("checks that begin together read a file once, and later checks read it again", async () => {
  const file = join(temporaryDirectory(), "file");
  writeFileSync(file, "first");
  expect(readShared(file)).toBe("first");
  writeFileSync(file, "second");
  expect(readShared(file)).toBe("first");
  await setImmediate();
  expect(readShared(file)).toBe("second");
});

it.each([
  ["cpuacct.usage", "1000000000", "1000100000"],
  ["cpu.stat", "usage_usec 1000\nuser_usec 0\n", "usage_usec 1001\nuser_usec 0\n"],
])(
  "programs have run if the processor time of their group in %s has changed",
  async (file, first, second) => {
    const group = temporaryDirectory();
    const haveRun = activityOf([group]);
    writeFileSync(join(group, file), first);
    expect(haveRun()).toBe(true);
    await setImmediate();
    expect(haveRun()).toBe(false);
    writeFileSync(join(group, file), second);
    await setImmediate();
    expect([haveRun(), haveRun()]).toEqual([true, false]);
  },
);

it("programs may always have run if no group counts their processor time", () => {
  const haveRun = activityOf([temporaryDirectory()]);
  expect([haveRun(), haveRun()]).toEqual([true, true]);
});
