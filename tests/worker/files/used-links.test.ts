import * as fc from "../../setup/chance.ts";
import { expect, it, vi } from "vitest";
import { FileLinks } from "../../../src/actors/file-links.ts";
import type { SandboxKV } from "../../../src/storage/sandbox-schema.ts";
import { runInActor } from "../support.ts";

const unused = () => Promise.reject(new Error("this test calls no sandbox"));

it("a used-up link takes no further space, and stays used up after a restart of the actor", async () => {
  await runInActor("used-up", async (_sandbox, { storage: { kv } }) => {
    const expires = Date.now() + 60_000;
    const link = { direction: "upload" as const, path: "/workspace/a", epoch: "epoch", expires };
    const make = () => new FileLinks(kv as SandboxKV, { call: unused });
    const id = await make().keep(link);
    const stored = [...kv.list({ prefix: "file-links:" })].length;
    const links = make();
    expect(links.claim({ id, expires })).toBe("claimed");
    expect(links.claim({ id, expires })).toBe("busy");
    links.releaseClaim({ id, expires }, true);
    expect(make().claim({ id, expires })).toBe("used");
    expect([...kv.list({ prefix: "file-links:" })]).toHaveLength(stored);
  });
});

it("a claim that was never released ends with its link", async () => {
  await runInActor("claimed", async (_sandbox, { storage: { kv } }) => {
    const links = new FileLinks(kv as SandboxKV, { call: unused });
    vi.useFakeTimers({ toFake: ["Date"] });
    const link = { id: "claimed", expires: Date.now() + 60_000 };
    expect(links.claim(link)).toBe("claimed");
    expect(links.claim(link)).toBe("busy");
    vi.setSystemTime(Date.now() + 61_000);
    expect(links.claim(link)).toBe("claimed");
  });
});

it("a link after a restart of the actor reads few of the stored links", async () => {
  await runInActor("counted-links", async (_sandbox, { storage: { kv } }) => {
    const link = (name: string) => ({
      direction: "download" as const,
      path: `/workspace/${name}`,
      epoch: "epoch",
      expires: Date.now() + 3_600_000,
    });
    for (let n = 0; n < 9999; n++) kv.put(`file-links:kept:zzzzzzzz${n + 10_000}`, link("a"));
    kv.put("file-links:count", 9999);
    let read = 0;
    const counting = {
      get: (key: string) => kv.get(key),
      put: (key: string, value: unknown) => kv.put(key, value),
      delete: (key: string) => kv.delete(key),
      *list(options: SyncKvListOptions) {
        for (const entry of kv.list(options)) {
          read++;
          yield entry;
        }
      },
    };
    const make = () => new FileLinks(counting as unknown as SandboxKV, { call: unused });
    for (const name of ["a", "b"]) await make().keep(link(name));
    expect(read).toBeLessThan(100);
    expect([...kv.list({ prefix: "file-links:kept:" })].length).toBeLessThanOrEqual(10_000);
  });
});

it("the server keeps the newest 10,000 links of a sandbox, so that links cannot fill the disk", async () => {
  await runInActor("many-links", async (_sandbox, { storage: { kv } }) => {
    const link = (n: number, minutes: number) => ({
      direction: "download" as const,
      path: `/workspace/${n}`,
      epoch: "epoch",
      expires: Date.now() + minutes * 60_000,
    });
    const make = () => new FileLinks(kv as SandboxKV, { call: unused });
    const first = await make().keep(link(0, 10));
    const links = make();
    for (let n = 1; n < 10_000; n++) await links.keep(link(n, 120));
    expect(links.find(first)).toBeDefined();
    const last = await links.keep(link(10_000, 120));
    expect(links.find(first)).toBeUndefined();
    expect(links.find(last)).toBeDefined();
    for (let n = 0; n < 100; n++) await links.keep(link(10_000, 120));
    expect([...kv.list({ prefix: "file-links:kept:" })].length).toBeLessThanOrEqual(10_000);
    expect([...kv.list({ prefix: "file-links:kept:" })].length).toBeGreaterThan(9900);
  });
});

it("the stored number of links is right after any operations, restarts of the actor, and ends of containers", async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant("keep"), name: fc.nat(6), minutes: fc.integer({ min: 1, max: 60 }) }),
    fc.record({
      do: fc.constant("keep"),
      name: fc.nat(6),
      minutes: fc.constant(20),
      isUpload: fc.constant(true),
    }),
    fc.record({ do: fc.constant("use"), pick: fc.nat() }),
    fc.record({ do: fc.constant("wait"), minutes: fc.integer({ min: 1, max: 60 }) }),
    fc.record({ do: fc.constantFrom("restart", "end") }),
  ) as fc.Arbitrary<{ do: string; name?: number; minutes?: number; isUpload?: boolean; pick?: number }>;
  const counted = "file-links:count";
  await runInActor("any-links", async (_sandbox, { storage: { kv } }) => {
    /** @param before the number of links that are stored first */
    const check = async (
      steps: (typeof step extends fc.Arbitrary<infer T> ? T : never)[],
      before: number,
    ) => {
      for (const [key] of kv.list({ prefix: "file-links:" })) kv.delete(key);
      vi.useFakeTimers({ toFake: ["Date"] });
      const old = { run: "run", stream: "stdout", expires: Date.now() };
      for (let n = 0; n < before; n++) kv.put(`file-links:kept:zzzzzzzz${n + 10_000}`, old);
      kv.put(counted, before);
      const make = () => new FileLinks(kv as SandboxKV, { call: unused });
      let links = make();
      const uploads: { id: string; expires: number }[] = [];
      for (const { do: action, name = 0, minutes = 0, isUpload = false, pick = 0 } of steps) {
        if (action === "keep") {
          const direction = isUpload ? ("upload" as const) : ("download" as const);
          const expires = Date.now() + minutes * 60_000;
          const id = await links.keep({
            direction,
            path: `/workspace/${name}`,
            epoch: links.epoch(),
            expires,
          });
          if (isUpload) uploads.push({ id, expires });
        } else if (action === "use") {
          const upload = uploads[pick % (uploads.length || 1)];
          if (upload && links.claim(upload) === "claimed") links.releaseClaim(upload, pick % 3 > 0);
        } else if (action === "wait") vi.setSystemTime(Date.now() + minutes * 60_000);
        else if (action === "end") links.onContainerEnd();
        else links = make();
        const stored = [...kv.list({ prefix: "file-links:kept:" })].length;
        if (kv.get<number>(counted) !== stored) return false;
      }
      return true;
    };
    const property = (length: number, before: number) =>
      fc.asyncProperty(fc.array(step, { minLength: length, maxLength: 3 * length }), (steps) =>
        check(steps, before),
      );
    const results = [
      await fc.check(property(10, 0), { numRuns: 100 }),
      await fc.check(property(12, 9995), { numRuns: 1 }),
    ];
    for (const { counterexample } of results) expect(counterexample).toBeNull();
  });
});
