/** Cached files of sandboxes that the kernel cannot free, in control groups that are plain directories. */
import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { CachedFiles } from "../../local/engine/cached-files.ts";
import type { EngineSandbox } from "../../local/engine/engine-sandbox.ts";
import { guardOneSandbox } from "../setup/guarded-sandbox.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep } from "../setup/until.ts";

const MiB = 1024 * 1024;
const FULL = 800 * MiB;

/** A sandbox with 200 MiB besides its cached files. */
function fakeSandbox() {
  const group = temporaryDirectory();
  const sandbox = { principal: "one", chargedGroups: [group] } as unknown as EngineSandbox;
  const cache = (mebibytes: number) => {
    writeFileSync(join(group, "memory.current"), String((200 + mebibytes) * MiB));
    writeFileSync(join(group, "memory.stat"), `file ${mebibytes * MiB}\nshmem 0\n`);
  };
  return { sandbox, cache, file: join(group, "memory.reclaim") };
}

it("cached files that the kernel could not free count as memory, but no files that a sandbox reads later", async () => {
  const [files, { sandbox, cache, file }] = [new CachedFiles(), fakeSandbox()];
  const memory = async () => (await files.memoryOf(sandbox, false)) / MiB;
  writeFileSync(file, "");
  cache(700);
  expect(await memory()).toBe(200);
  await files.free([sandbox], FULL);
  expect(await memory()).toBe(900);
  cache(2000);
  expect(await memory()).toBe(900);
  cache(100);
  expect(await memory()).toBe(300);
});

it("cached files that several sandboxes of a principal keep count as memory, also if each keeps few", async () => {
  const [files, all] = [new CachedFiles(), Array.from({ length: 8 }, fakeSandbox)];
  for (const { cache, file } of all) {
    writeFileSync(file, "");
    cache(100);
  }
  await files.free(
    all.map(({ sandbox }) => sandbox),
    FULL,
  );
  const memory = await Promise.all(all.map(({ sandbox }) => files.memoryOf(sandbox, false)));
  expect(memory).toEqual(all.map(() => 300 * MiB));
});

it("cached files do not count as memory if the kernel cannot free them for one group (before Linux 5.19)", async () => {
  const [files, { sandbox, cache }] = [new CachedFiles(), fakeSandbox()];
  cache(700);
  await files.free([sandbox], FULL);
  expect(await files.memoryOf(sandbox, false)).toBe(200 * MiB);
});

it.each([
  ["count as memory if it has freed almost none of them", 690, 890],
  ["do not count as memory if it has freed some of them", 500, 200],
])(
  "cached files that the kernel could not free in ten seconds %s",
  { timeout: 30_000 },
  async (_, left, counted) => {
    const [files, { sandbox, cache, file }] = [new CachedFiles(), fakeSandbox()];
    execFileSync("mkfifo", [file]);
    cache(700);
    const freed = files.free([sandbox], FULL);
    await sleep(1000);
    cache(left);
    await freed;
    expect(await files.memoryOf(sandbox, false)).toBe(counted * MiB);
  },
);

it.each([
  ["in vain", 0, [expect.stringContaining("memory of all sandboxes")]],
  ["and can free some of them", 1 / 64, []],
])(
  "in version 2 of control groups, whether the engine ends a sandbox with little memory if the kernel visits all pages %s",
  async (_, freed, expected) => {
    const group = temporaryDirectory();
    writeFileSync(join(group, "memory.high"), "1000");
    writeFileSync(join(group, "memory.current"), "990");
    const visit = (look: number) => {
      const visited = look * 100_000;
      writeFileSync(join(group, "memory.stat"), `pgscan ${visited}\npgsteal ${visited * freed}\n`);
    };
    const reasons = guardOneSandbox(group, visit);
    await sleep(2000);
    expect(reasons).toEqual(expected);
  },
);
