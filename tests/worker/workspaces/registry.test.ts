/** The registry of saved states keeps an object exactly as long as something refers to it. */
import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import * as fc from "../../setup/chance.ts";
import { describe, expect, it, vi } from "vitest";
import type { Account } from "../../../src/actors/account.ts";
import {
  type Archive,
  type Pack,
  type Save,
  manifestPrefix,
  packPrefix,
} from "../../../src/actors/saved-states.ts";
import { SnapshotRegistry } from "../../../src/actors/snapshot-registry.ts";
import type { Env } from "../../../src/shared/config.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import { queriesOf } from "../queries.ts";

const HOUR_MS = 3_600_000;
const TTL_DAYS = 30;
/** How long the files of a task are kept. */
const TASK_DAYS = 7;
const SETTINGS = "settings";
const LIMITS = { checkpoints: 1000, workspaceBytes: 1_000_000 };

/** A registry with a clock, and a bucket that has the prefixes of the written objects. */
class Bench {
  readonly registry: SnapshotRegistry;
  readonly sql: SqlStorage;
  readonly bucket = new Set<string>();
  now = 1_000_000_000_000;
  manifestBytes = 0;
  #saves = 0;

  constructor(storage: DurableObjectStorage, limits = LIMITS) {
    this.sql = storage.sql;
    this.registry = new SnapshotRegistry(storage, limits, TTL_DAYS);
  }

  /** Begins a save on top of the current state, and writes its objects. */
  begin(sandbox: string, isArchive = false): { id: string; base: string | undefined } {
    const id = `save-${this.#saves++}`;
    const base = this.registry.current(sandbox)?.id;
    this.registry.begin(sandbox, id, base, isArchive, -1, this.now);
    this.bucket.add(packPrefix(id)).add(manifestPrefix(id));
    return { id, base };
  }

  commit(
    sandbox: string,
    started: ReturnType<Bench["begin"]>,
    packs: Pack[] = [],
    bytes = 100,
    archive?: Archive,
  ): void {
    const ownPacks = bytes > 0 ? [{ id: started.id, bytes, live: bytes }] : [];
    const save: Save = {
      ...started,
      sandbox,
      files: 1,
      bytes,
      manifestBytes: this.manifestBytes,
      packs: [...packs, ...ownPacks],
      archive,
    };
    this.registry.commit(save, bytes, this.now);
  }

  /** Keeps the files of a task in a sandbox, on top of the sandbox's state. */
  archive(sandbox: string, run: string, bytes = 100): string {
    const started = this.begin(sandbox, true);
    const packs = this.registry.current(sandbox)?.packs ?? [];
    const expiresAt = this.now + TASK_DAYS * DAY_MS;
    this.commit(sandbox, started, packs, bytes, { run, part: "workspace", expiresAt });
    return started.id;
  }

  /** @param keep the packs of the previous state that the new one refers to; the default is all */
  save(sandbox: string, keep: (pack: Pack) => boolean = () => true, bytes = 100): string {
    const packs = (this.registry.current(sandbox)?.packs ?? []).filter(keep);
    const started = this.begin(sandbox);
    this.commit(sandbox, started, packs, bytes);
    return started.id;
  }

  /** Deletes the objects that are due. @param refuses whether R2 fails @param ms how long the deletions may take */
  async sweep(refuses: () => boolean = () => false, ms = HOUR_MS): Promise<void> {
    const remove = async (prefix: string) => {
      if (refuses()) throw new Error("R2 is not there");
      for (const key of this.bucket) if (key.startsWith(prefix)) this.bucket.delete(key);
    };
    await this.registry.sweep(remove, ms, this.now);
  }
}

async function withBench(work: (bench: Bench) => void | Promise<void>, limits = LIMITS): Promise<void> {
  const accounts = (env as Env).Account as DurableObjectNamespace<Account>;
  const account = accounts.getByName(crypto.randomUUID());
  await runInDurableObject(account, (_account, { storage }) => work(new Bench(storage, limits)));
}

/** Checks that the registry and the model agree. */
function expectSame(isInRegistry: boolean, isInModel: boolean): void {
  expect(isInRegistry).toBe(isInModel);
}

describe("the registry of saved states", () => {
  it("refuses a save of a sandbox that was destroyed meanwhile, and deletes the save's objects", () =>
    withBench(async (bench) => {
      bench.save("a");
      const started = bench.begin("a");
      expect(bench.registry.forget("a", bench.now)).toBe(true);
      expect(() => bench.commit("a", started)).toThrow();
      expect(bench.registry.current("a")).toBeUndefined();
      bench.now += HOUR_MS;
      await bench.sweep();
      expect(bench.bucket).toEqual(new Set());
    }));

  it("deletes the objects of a destroyed sandbox's save as soon as the save has ended", () =>
    withBench(async (bench) => {
      const started = bench.begin("a");
      bench.registry.forget("a", bench.now);
      await bench.sweep();
      expect(bench.bucket.size).toBe(2);
      bench.registry.abandonSave("a", started.id, false, bench.now);
      await bench.sweep();
      expect(bench.bucket).toEqual(new Set());
    }));

  it("deletes what a save writes after it has expired, because the machine slept meanwhile", () =>
    withBench(async (bench) => {
      const started = bench.begin("a");
      bench.now += 2 * HOUR_MS;
      bench.registry.expire(bench.now);
      await bench.sweep();
      expect(bench.bucket).toEqual(new Set());
      bench.bucket.add(packPrefix(started.id));
      expect(() => bench.commit("a", started)).toThrow();
      bench.registry.abandonSave("a", started.id, false, bench.now);
      await bench.sweep();
      expect(bench.bucket).toEqual(new Set());
    }));

  it("keeps the objects of a save that was committed before it is abandoned", () =>
    withBench(async (bench) => {
      const id = bench.save("a");
      bench.registry.abandonSave("a", id, false, bench.now);
      await bench.sweep();
      expect(bench.bucket.size).toBe(2);
      expect(bench.registry.current("a")?.id).toBe(id);
    }));

  it("begins no deletion of objects after the time for them, and deletes the others later", () =>
    withBench(async (bench) => {
      for (const sandbox of ["a", "b"]) bench.save(sandbox);
      for (const sandbox of ["a", "b"]) bench.registry.forget(sandbox, bench.now);
      bench.now += HOUR_MS;
      const objects = bench.bucket.size;
      const sweeping = async () => {
        const clock = vi.spyOn(Date, "now");
        const now = Date.now();
        // The first deletion takes two minutes.
        const takeLong = () => {
          clock.mockReturnValue(now + 120_000);
          return false;
        };
        await bench.sweep(takeLong, 60_000);
      };
      await sweeping().finally(() => vi.restoreAllMocks());
      expect(bench.bucket.size).toBe(objects - 1);
      await bench.sweep();
      expect(bench.bucket).toEqual(new Set());
    }));

  it("refuses a save that began before a rollback of its sandbox", () =>
    withBench((bench) => {
      bench.save("a");
      const { id } = bench.registry.checkpoint("a", "good", bench.now);
      const second = bench.save("a");
      const started = bench.begin("a");
      bench.registry.restoreCheckpoint("a", id, undefined, bench.now);
      expect(() => bench.commit("a", started)).toThrow();
      expect(() => bench.registry.begin("a", "late", second, false, -1, bench.now)).toThrow();
    }));

  it.each([
    ["another sandbox's", "b"],
    ["a missing one", "nobody"],
  ])("refuses a save that refers to a pack that is not its own: %s", (_what, sandbox) =>
    withBench((bench) => {
      const foreign = bench.save("b");
      const before = bench.save("a");
      const started = bench.begin("a");
      const id = sandbox === "b" ? foreign : "save-of-nobody";
      expect(() => bench.commit("a", started, [{ id, bytes: 100, live: 1 }])).toThrow("a missing pack");
      expect(bench.registry.current("a")?.id).toBe(before);
      // The refusal changed nothing: the save can still be abandoned.
      bench.registry.abandonSave("a", started.id, false, bench.now);
    }),
  );

  it("keeps the state before a rollback as a checkpoint, and only the newest ten of these checkpoints", () =>
    withBench((bench) => {
      bench.save("a");
      const { id } = bench.registry.checkpoint("a", "good", bench.now);
      const broken = bench.save("a");
      const { before } = bench.registry.restoreCheckpoint("a", id, undefined, bench.now);
      expect(before).toMatchObject({ sandbox: "a", label: "before going back to good" });
      // Nothing changed since, so the previous state is the checkpoint itself.
      expect(bench.registry.restoreCheckpoint("a", id, undefined, bench.now).before?.id).toBe(id);
      bench.registry.restoreCheckpoint("a", before?.id ?? "", undefined, bench.now);
      expect(bench.registry.current("a")?.id).toBe(broken);
      for (let n = 0; n < 20; n++) {
        bench.now++;
        bench.save("a");
        bench.registry.restoreCheckpoint("a", id, undefined, bench.now);
      }
      const labels = bench.registry.checkpoints().map(({ label }) => label);
      expect(labels.filter((label) => label.startsWith("before"))).toHaveLength(10);
      expect(labels).toContain("good");
    }));

  it("reports the checkpoints of restores that are deleted beyond MAX_CHECKPOINTS, also of other sandboxes", () =>
    withBench(
      (bench) => {
        const ids = new Map(
          ["a", "b"].map((sandbox) => {
            bench.save(sandbox);
            return [sandbox, bench.registry.checkpoint(sandbox, "", bench.now).id];
          }),
        );
        const restored = ["b", "a", "a"].map((sandbox) => {
          bench.now++;
          bench.save(sandbox);
          return bench.registry.restoreCheckpoint(sandbox, ids.get(sandbox) ?? "", undefined, bench.now);
        });
        expect(restored.map(({ deleted }) => deleted)).toEqual([[], [], [restored[0]?.before?.id]]);
      },
      { checkpoints: 2, workspaceBytes: 1e9 },
    ));

  it("goes back to the oldest of these ten checkpoints, and keeps it", () =>
    withBench((bench) => {
      bench.save("a");
      const { id } = bench.registry.checkpoint("a", "good", bench.now);
      const oldest = bench.save("a");
      const { before } = bench.registry.restoreCheckpoint("a", id, undefined, bench.now);
      for (let n = 0; n < 9; n++) {
        bench.now++;
        bench.save("a");
        bench.registry.restoreCheckpoint("a", id, undefined, bench.now);
      }
      bench.now++;
      bench.save("a");
      bench.registry.restoreCheckpoint("a", before?.id ?? "", undefined, bench.now);
      expect(bench.registry.current("a")?.id).toBe(oldest);
      expect(bench.registry.requireCheckpoint(before?.id ?? "").id).toBe(before?.id);
    }));

  it("names the restored checkpoint in the label of the previous state, by its id if its own label is from a rollback", () =>
    withBench((bench) => {
      bench.save("a");
      const { id } = bench.registry.checkpoint("a", "x".repeat(90), bench.now);
      bench.save("a");
      const { before } = bench.registry.restoreCheckpoint("a", id, undefined, bench.now);
      bench.save("a");
      const { before: next } = bench.registry.restoreCheckpoint("a", before?.id ?? "", undefined, bench.now);
      expect(before?.label).toBe(`before going back to ${"x".repeat(90)}`);
      expect(next?.label).toBe(`before going back to ${before?.id}`);
    }));

  it("limits checkpoints and bytes, and beyond the limit a save may only shrink", () =>
    withBench(
      (bench) => {
        bench.save("a", undefined, 600);
        bench.registry.checkpoint("a", "one", bench.now);
        bench.registry.checkpoint("a", "two", bench.now);
        expect(() => bench.registry.checkpoint("a", "three", bench.now)).toThrow("You have 2 checkpoints");
        expect(() => bench.save("a", undefined, 500)).toThrow("your limit is");
        expect(bench.registry.current("a")?.bytes).toBe(600);
        const [two, one] = bench.registry.checkpoints();
        expect(() => bench.registry.removeCheckpoint("b", two?.id ?? "", bench.now)).toThrow(
          "belongs to sandbox a",
        );
        bench.registry.removeCheckpoint("a", two?.id ?? "", bench.now);
        expect(bench.registry.checkpoints()).toEqual([one]);
        bench.registry.removeCheckpoints("a", bench.now);
        bench.save("a", () => false, 1000);
        expect(() => bench.registry.checkpoint("a", "full", bench.now)).toThrow("your limit is");
        bench.save("a", () => false, 900);
        expect(bench.registry.bytes).toBe(900);
      },
      { checkpoints: 2, workspaceBytes: 1000 },
    ));

  it("deletes the oldest archives of tasks for newer data, but only if that makes enough room", () =>
    withBench(
      (bench) => {
        const isKept = () => ["1", "2", "3"].filter((run) => bench.registry.findArchive(run, "workspace"));
        for (const run of ["1", "2"]) {
          bench.archive("a", run, 400);
          bench.now++;
        }
        // A save may also use the space of these archives.
        expect(bench.registry.begin("b", "other", undefined, false, -1, bench.now)).toBe(1000);
        bench.registry.abandonSave("b", "other", false, bench.now);
        bench.save("b", undefined, 300);
        expect(isKept()).toEqual(["2"]);
        bench.archive("a", "3", 600);
        expect(isKept()).toEqual(["3"]);
        expect(() => bench.archive("a", "4", 800)).toThrow("your limit is");
        expect(() => bench.save("c", undefined, 800)).toThrow("your limit is");
        expect(isKept()).toEqual(["3"]);
        expect(bench.registry.bytes).toBe(900);
      },
      { checkpoints: 2, workspaceBytes: 1000 },
    ));

  // With a search of all tables for each archive, 1,500 archives took the thread 2.4 s.
  it("makes room without a search for each archive that it deletes", () => {
    const count = 300;
    return withBench(
      async (bench) => {
        for (let n = 0; n < count; n++) bench.archive("a", `run-${n}`, 100);
        const { rowsRead } = await queriesOf(bench.sql, () => bench.save("b", undefined, 100 * count - 150));
        expect(rowsRead).toBeLessThan(60 * count);
        const isKept = (n: number) => bench.registry.findArchive(`run-${n}`, "workspace") !== undefined;
        expect(Array.from({ length: count }, (_, n) => n).filter(isKept)).toHaveLength(1);
      },
      { checkpoints: 2, workspaceBytes: 100 * count },
    );
  });

  it("keeps the first settings of a checkpoint's sandbox as long as the checkpoint", () =>
    withBench((bench) => {
      bench.save("a");
      const { id } = bench.registry.checkpoint("a", "", bench.now);
      bench.registry.keepSettings(id, "first");
      bench.registry.keepSettings(id, "later");
      bench.registry.forget("a", bench.now);
      expect(bench.registry.settings(id)).toBe("first");
      bench.registry.removeCheckpoints("a", bench.now);
      expect(bench.registry.settings(id)).toBeUndefined();
    }));

  it("counts the settings of checkpoints and archives as saved bytes", () =>
    withBench(
      (bench) => {
        const expiresAt = bench.now + DAY_MS;
        const archive = (run: string) => {
          const settings = "x".repeat(400);
          bench.registry.archive(snapshot, { run, part: "workspace", expiresAt, settings }, bench.now);
        };
        const snapshot = bench.save("a");
        for (const run of ["1", "2", "3"]) archive(run);
        expect(["1", "2", "3"].filter((run) => bench.registry.findArchive(run, "workspace"))).toEqual([
          "2",
          "3",
        ]);
        expect(bench.registry.bytes).toBe(900);
        const { id } = bench.registry.checkpoint("a", "", bench.now);
        bench.registry.keepSettings(id, "ü".repeat(500));
        expect(() => archive("4")).toThrow("your limit is");
        expect(() => bench.registry.checkpoint("a", "", bench.now)).toThrow("your limit is");
        expect(bench.registry.bytes).toBe(1900);
      },
      { checkpoints: 10, workspaceBytes: 1000 },
    ));

  it("keeps only as many checkpoints of rollbacks in all sandboxes as a principal may make", () =>
    withBench(
      (bench) => {
        for (const sandbox of ["a", "b"]) {
          bench.save(sandbox);
          const { id } = bench.registry.checkpoint(sandbox, "good", bench.now);
          for (let n = 0; n < 4; n++) {
            bench.now++;
            bench.save(sandbox);
            bench.registry.restoreCheckpoint(sandbox, id, undefined, bench.now);
          }
          bench.registry.removeCheckpoint(sandbox, id, bench.now);
          bench.registry.forget(sandbox, bench.now);
        }
        const kept = bench.registry.checkpoints().map(({ sandbox }) => sandbox);
        expect(kept).toEqual(["b", "b", "b", "b", "a"]);
      },
      { checkpoints: 5, workspaceBytes: 1_000_000 },
    ));

  it("keeps the newest hundred outcomes of set-ups", () =>
    withBench(async (bench) => {
      // A task in a sandbox named setup:a has an archive too, which is not the outcome of a set-up.
      const task = { run: "setup:a.1t", part: "workspace", expiresAt: bench.now + DAY_MS } as const;
      bench.commit("setup:a", bench.begin("setup:a", true), [], 1, task);
      for (let number = 0; number <= 100; number++) {
        bench.now++;
        const archive = { run: `setup:${number}`, part: "workspace", expiresAt: bench.now + DAY_MS } as const;
        bench.commit("a", bench.begin("a", true), [], 1, archive);
      }
      const isKept = (number: number) => Boolean(bench.registry.findArchive(`setup:${number}`, "workspace"));
      expect([0, 1, 100].map(isKept)).toEqual([false, true, true]);
      expect(bench.registry.findArchive(task.run, "workspace")).toBeDefined();
      expect(bench.registry.bytes).toBe(101);
    }));

  it("deletes exactly the unreferenced objects, and counts the bytes of the others, after any sequence of operations", async () => {
    const sandbox = fc.constantFrom("a", "b", "c");
    const run = fc.constantFrom("a.1t", "b.1t");
    const stepOf = fc.oneof(
      { weight: 4, arbitrary: fc.record({ do: fc.constant("save" as const), sandbox, seed: fc.nat(15) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("begin" as const), sandbox }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("commit" as const), pick: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("abandon" as const), pick: fc.nat() }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("checkpoint" as const), sandbox }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("back" as const), sandbox, pick: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("fork" as const), sandbox, pick: fc.nat() }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("forget" as const), sandbox }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("archive" as const), sandbox, run }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("removeArchive" as const), run }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("forkArchive" as const), sandbox, run }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), sandbox }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant("wait" as const), hours: fc.nat(24 * 20) }) },
      { weight: 3, arbitrary: fc.record({ do: fc.constant("sweep" as const), refuses: fc.boolean() }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(stepOf, { minLength: 5, maxLength: 60 }), (steps) =>
        withBench(async (bench) => {
          bench.manifestBytes = 7;
          /** What the registry must know: the references of each state, and its owner. */
          const packs = new Map<string, string[]>();
          const current = new Map<string, { id: string; usedAt: number }>();
          const checkpoints = new Map<
            string,
            { id: string; sandbox: string; endsAt: number; hasSettings?: boolean }
          >();
          const archives = new Map<string, { id: string; endsAt: number }>();
          const started: { sandbox: string; id: string; base: string | undefined }[] = [];
          const attempt = <T>(work: () => T): T | undefined => {
            try {
              return work();
            } catch {
              return undefined;
            }
          };
          const setCurrent = (id: string, name: string) => current.set(name, { id, usedAt: bench.now });
          for (const step of steps) {
            if (step.do === "save") {
              const before = bench.registry.current(step.sandbox)?.packs ?? [];
              const keptPacks = before.filter((_pack, index) => (step.seed >> (index % 4)) & 1);
              const id = bench.save(
                step.sandbox,
                (pack) => keptPacks.includes(pack) || keptPacks.some((one) => one.id === pack.id),
              );
              packs.set(id, [...keptPacks.map((pack) => pack.id), id]);
              setCurrent(id, step.sandbox);
            } else if (step.do === "begin")
              started.push({ sandbox: step.sandbox, ...bench.begin(step.sandbox) });
            else if (step.do === "commit" || step.do === "abandon") {
              const one = started[step.pick % (started.length || 1)];
              if (!one) continue;
              if (step.do === "abandon") bench.registry.abandonSave(one.sandbox, one.id, false, bench.now);
              else if (attempt(() => (bench.commit(one.sandbox, one), true))) {
                // A repeated commit changes nothing.
                packs.set(one.id, [one.id]);
                if (current.get(one.sandbox)?.id !== one.id) setCurrent(one.id, one.sandbox);
              }
            } else if (step.do === "checkpoint") {
              const created = attempt(() => bench.registry.checkpoint(step.sandbox, "x", bench.now));
              const id = current.get(step.sandbox)?.id;
              expectSame(created !== undefined, id !== undefined);
              if (created) bench.registry.keepSettings(created.id, SETTINGS);
              if (created && id)
                checkpoints.set(created.id, {
                  id,
                  sandbox: step.sandbox,
                  endsAt: created.expiresAt,
                  hasSettings: true,
                });
            } else if (step.do === "back" || step.do === "fork") {
              const [id, to] = [...checkpoints][step.pick % (checkpoints.size || 1)] ?? [];
              if (id === undefined || to === undefined) continue;
              // The account forks only to new names.
              if (step.do === "fork" && current.has(step.sandbox)) continue;
              if (step.do === "fork") bench.registry.fork(step.sandbox, id, bench.now);
              else {
                const was = current.get(step.sandbox)?.id;
                const { before } = bench.registry.restoreCheckpoint(step.sandbox, id, undefined, bench.now);
                expectSame(before !== undefined, was !== undefined);
                if (before && was && !checkpoints.has(before.id))
                  checkpoints.set(before.id, { id: was, sandbox: step.sandbox, endsAt: before.expiresAt });
                // The oldest checkpoint of a rollback may have been deleted.
                const remaining = new Set(bench.registry.checkpoints().map((one) => one.id));
                expectSame(remaining.has(id), true);
                for (const one of checkpoints.keys()) if (!remaining.has(one)) checkpoints.delete(one);
              }
              setCurrent(to.id, step.sandbox);
            } else if (step.do === "forget") {
              expectSame(bench.registry.forget(step.sandbox, bench.now), current.delete(step.sandbox));
            } else if (step.do === "archive") {
              const base = bench.registry.current(step.sandbox)?.packs ?? [];
              const id = bench.archive(step.sandbox, step.run);
              packs.set(id, [...base.map((pack) => pack.id), id]);
              archives.set(step.run, { id, endsAt: bench.now + TASK_DAYS * DAY_MS });
            } else if (step.do === "removeArchive") {
              bench.registry.removeArchive(step.run, bench.now);
              archives.delete(step.run);
            } else if (step.do === "forkArchive") {
              if (current.has(step.sandbox)) continue;
              const archived = archives.get(step.run);
              const isMade = attempt(
                () => (bench.registry.forkArchive(step.sandbox, step.run, bench.now), true),
              );
              expectSame(isMade === true, archived !== undefined);
              if (archived) setCurrent(archived.id, step.sandbox);
            } else if (step.do === "remove") {
              bench.registry.removeCheckpoints(step.sandbox, bench.now);
              for (const [id, { sandbox: savedOf }] of checkpoints)
                if (savedOf === step.sandbox) checkpoints.delete(id);
            } else if (step.do === "wait") {
              wait(step.hours);
            } else await bench.sweep(() => step.refuses);
            expect(referencedObjects()).toEqual(referencedObjects().intersection(bench.bucket));
            expect(bench.registry.bytes).toBe(referencedBytes());
          }
          function wait(hours: number): void {
            bench.now += hours * HOUR_MS;
            bench.registry.expire(bench.now);
            for (const states of [checkpoints, archives])
              for (const [id, { endsAt }] of states) if (endsAt <= bench.now) states.delete(id);
            for (const [name, { usedAt }] of current)
              if (usedAt <= bench.now - TTL_DAYS * DAY_MS) current.delete(name);
          }
          function referencedBytes(): number {
            const keys = [...referencedObjects()];
            const settings = [...checkpoints.values()].filter(({ hasSettings }) => hasSettings);
            const bytes = keys.map((key) => (key.includes("manifest") ? bench.manifestBytes : 100));
            return bytes.reduce((sum, each) => sum + each, settings.length * SETTINGS.length);
          }
          function referencedObjects(): Set<string> {
            const holders = [...current.values(), ...checkpoints.values(), ...archives.values()];
            const states = new Set(holders.map(({ id }) => id));
            const manifests = [...states].map(manifestPrefix);
            const referenced = [...states].flatMap((id) => packs.get(id) ?? []).map(packPrefix);
            return new Set(manifests.concat(referenced));
          }
          expect(new Set(bench.registry.workspaces().map(({ sandbox: name }) => name))).toEqual(
            new Set(current.keys()),
          );
          // The registry abandons an unfinished save after an hour, and retries failed deletions.
          for (let round = 0; round < 2; round++) {
            wait(1);
            await bench.sweep();
          }
          expect(bench.bucket).toEqual(referencedObjects());
        }),
      ),
      { numRuns: 100 },
    );
  });
});
