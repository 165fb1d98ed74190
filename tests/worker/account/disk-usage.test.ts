/** What a list of sandboxes says of their sizes. */
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { DiskUsage } from "../../../src/actors/disk-usage.ts";
import { inActor, owner, sh } from "../support.ts";

interface Listed {
  name: string;
  state: string;
  size_bytes?: number;
}

async function listed(sandbox: string): Promise<[one: Listed | undefined, line: string | undefined]> {
  const { structured, text } = await owner.call("list_sandboxes");
  const { sandboxes } = structured as { sandboxes: Listed[] };
  const line = text.split("\n").find((one) => one.startsWith(`${sandbox}:`));
  return [sandboxes.find(({ name }) => name === sandbox), line];
}

const size = async (sandbox: string) => (await listed(sandbox))[0]?.size_bytes;

test("the size of a sandbox is none that was not measured, and right soon after its use", async () => {
  await owner.call("write_file", { sandbox: "sized", path: "a", content: "x".repeat(100_000) });
  const [one, line] = await listed("sized");
  expect(one).toMatchObject({ name: "sized", state: "running" });
  expect(one).not.toHaveProperty("size_bytes");
  expect(line).not.toContain("bytes");
  await expect.poll(() => size("sized"), { timeout: 15_000 }).toBeGreaterThanOrEqual(100_000);
  expect((await listed("sized"))[1]).toMatch(/^sized: running, 10\d{4} bytes, created/);
});

test("of a stopped sandbox it is 0, and of the next container it is not that of the one before", async () => {
  await sh("restarted", "head -c 100000 /dev/zero >a");
  await expect.poll(() => size("restarted"), { timeout: 15_000 }).toBeGreaterThanOrEqual(100_000);
  await inActor("restarted", (actor) => actor.stop());
  await expect.poll(() => size("restarted"), { timeout: 15_000 }).toBe(0);
  await sh("restarted", "rm -f a");
  expect(await size("restarted")).toBeUndefined();
  await expect.poll(() => size("restarted"), { timeout: 15_000 }).toBeLessThan(100_000);
});

describe("with a clock of its own", () => {
  beforeEach(() => {
    vi.useFakeTimers({ now: Date.UTC(2026, 0, 15, 12) });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  function counting() {
    const seen = { count: 0, running: true };
    const diskUsage = new DiskUsage({
      running: () => seen.running,
      measure: async () => void seen.count++,
      background: () => undefined,
    });
    return { seen, diskUsage };
  }

  test("a sandbox that nobody uses any more is measured once", async () => {
    const { seen, diskUsage } = counting();
    for (let call = 0; call < 10; call++) {
      diskUsage.used();
      await vi.advanceTimersByTimeAsync(100);
    }
    await vi.advanceTimersByTimeAsync(5000);
    expect(seen.count).toBe(1);
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(seen.count).toBe(1);
  });

  test.each([200, 7000])("one that is used every %i ms is measured about once a minute", async (every) => {
    const { seen, diskUsage } = counting();
    for (let at = 0; at < 600_000; at += every) {
      diskUsage.used();
      await vi.advanceTimersByTimeAsync(every);
    }
    expect(seen.count).toBeGreaterThanOrEqual(4);
    expect(seen.count).toBeLessThanOrEqual(10);
    const before = seen.count;
    diskUsage.used();
    await vi.advanceTimersByTimeAsync(70_000);
    expect(seen.count).toBe(before + 1);
  });

  test("one that has stopped is not started for it", async () => {
    const { seen, diskUsage } = counting();
    diskUsage.used();
    seen.running = false;
    await vi.advanceTimersByTimeAsync(3_600_000);
    expect(seen.count).toBe(0);
  });
});
