/** Saves and restores of a workspace, with failures at each step. */
import { describe, expect, it, vi } from "vitest";
import { FAILED } from "../../../container/sandboxd/operations.ts";
import { Snapshots } from "../../../src/container/snapshot-client.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import { ToolError } from "../../../src/shared/errors.ts";
import {
  afterCrash,
  FakeContainer,
  evictAt,
  interruptSteps,
  prepare,
  type Step,
  type World,
  withWorld,
} from "./world.ts";
import { takeNotice } from "../notices.ts";

const refuseSteps = (pattern: RegExp) => (step: Step) => {
  if (step.when === "before" && pattern.test(step.name)) throw new Error("R2 is not there (10001)");
};

const SETTINGS = { forCheckpoint: undefined };

const CONVERSATION = { below: "/talks", id: "talk" };

const reserve = async () => () => undefined;

/** Makes a task leave files and a conversation in a sandbox. */
async function doTask(world: World): Promise<void> {
  await world.ready();
  world.write("made", "by the task");
  world.container?.conversation.set("talk", "said");
}

/** The files that a task finds when it continues in another sandbox. */
async function continueTask(world: World, sandbox: string): Promise<Record<string, string>> {
  const next = world.createSibling(sandbox, world.isSaved);
  world.registry.forkArchive(sandbox, "a.1t");
  await next.ready();
  await next.workspace.restoreConversation("a.1t", "2t");
  return Object.fromEntries([...next.files, ...(next.container?.restored.get("2t") ?? [])]);
}

describe("a workspace", () => {
  it("has a notice that names unsaved files once, and missing files again after the restore", () =>
    withWorld(async (world) => {
      await prepare(world);
      expect(world.workspace.takeNotice()).toBeUndefined();
      // A socket is useless without its process.
      const special = { count: 1, names: ["socket"] };
      Object.assign(world.container ?? {}, { left: { count: 0, bytes: 0, largest: [], special } });
      world.write("kept", "more");
      await world.workspace.save();
      expect(world.workspace.takeNotice()).toBeUndefined();
      Object.assign(world.container ?? {}, {
        left: { count: 2, bytes: 3e6, largest: [{ path: "video", size: 3e6 }], special },
        unreadable: { count: 7, names: ["a", "b", "c", "d", "e", "f", "g"] },
      });
      const files = "2 files beyond WORKSPACE_MAX_MB, 3 MB together (video)";
      const words = `${files}; 7 unreadable files (a, b, c, d, e); 1 sockets, pipes and devices (socket)`;
      for (const [content, notice] of [
        [
          "second",
          `Not all of the sandbox is saved. These files would be lost with its container: ${words}.`,
        ],
        ["third", undefined],
      ]) {
        world.write("kept", content ?? "");
        await world.workspace.save();
        expect(world.workspace.takeNotice()).toBe(notice);
      }
      await afterCrash(world);
      expect(takeNotice(world.notice)).toContain(` Not saved, so missing: ${words}.`);
    }));

  it("has short notices, although a sandbox has long paths or reports false ones", () =>
    withWorld(async (world) => {
      await prepare(world);
      const path = "a/\u0001".repeat(1365);
      const named = { count: 20, names: Array<string>(20).fill(path) };
      Object.assign(world.container ?? {}, {
        left: { count: 20, bytes: 3e6, largest: named.names.map(() => ({ path, size: 1 })), special: named },
        unreadable: named,
      });
      world.write("kept", "more");
      await world.workspace.save();
      const notice = world.workspace.takeNotice();
      expect(notice).toContain('("a/\\u0001a/');
      expect(notice?.length).toBeLessThan(8000);
      expect(JSON.stringify(world.registry.current("a")?.left).length).toBeLessThan(20_000);
    }));

  it("is not overwritten, and no call starts, while it cannot be restored", async () => {
    for (const broken of [/bucket get/, /account workspace/, /sandboxd (mark|restore|data)/])
      await withWorld(async (world) => {
        await prepare(world);
        const before = world.registry.current("a");
        world.kill();
        world.onStep = refuseSteps(broken);
        await expect(world.ready()).rejects.toThrow();
        expect(world.lifecycle.container).toBeUndefined();
        // The server never saves from a container without a complete restore.
        world.write("from nothing", "x");
        await world.workspace.save();
        expect(world.registry.current("a")).toEqual(before);
        world.onStep = () => undefined;
        await world.ready();
        expect(world.files.get("kept")).toBe("first");
      });
  });

  it("is not partly restored to a full disk: the call reports it, and the saved state stays", () =>
    withWorld(async (world) => {
      await prepare(world);
      world.kill();
      const full = new ToolError("no_space", "the disk of the sandbox is full");
      world.onStep = ({ name }) => (name === "sandboxd data" ? Promise.reject(full) : undefined);
      await expect(world.ready()).rejects.toThrow(
        /could not be restored: the disk of the sandbox is full\. This call was not started, and the saved state is unchanged\./,
      );
      expect(world.lifecycle.container).toBeUndefined();
      expect(await afterCrash(Object.assign(world, { onStep: () => undefined }))).toEqual({ kept: "first" });
    }));

  it("is reported as damaged if its manifest refers to foreign packs, and is not restored", () =>
    withWorld(async (world) => {
      await prepare(world);
      const restore = FakeContainer.prototype.restore;
      vi.spyOn(FakeContainer.prototype, "restore").mockImplementationOnce(function (
        this: FakeContainer,
        ...args
      ) {
        return restore.apply(this, args).map(({ from, to }) => ({ pack: "f", from, to }));
      });
      world.kill();
      await expect(world.ready()).rejects.toThrow("could not be restored: the saved state is damaged");
      await world.ready();
      expect(world.files.get("kept")).toBe("first");
    }));

  it("says that the sandbox is damaged if a save reports false packs, and restores a checkpoint without a save", () =>
    withWorld(async (world) => {
      await prepare(world);
      const checkpoint = await world.workspace.checkpoint("", SETTINGS);
      const container = world.container as NonNullable<World["container"]>;
      const done = container.done.bind(container);
      const foreign = { id: "f", length: 1, live: 1 };
      const falsePacks = [
        (packs: (typeof foreign)[]) => packs.map((pack) => ({ ...pack, length: pack.length + 1 })),
        (packs: (typeof foreign)[]) => [...packs, ...packs],
        (packs: (typeof foreign)[]) => [...packs, foreign],
      ];
      for (const [number, falsify] of falsePacks.entries()) {
        world.write("kept", `changed ${number}`);
        container.done = (id) => ({ ...done(id), packs: falsify(done(id).packs) });
        await expect(world.workspace.save()).rejects.toMatchObject({
          code: "damaged",
          message: expect.stringContaining("another program may be in its place"),
        });
      }
      const empty = (id: string) => ({ ...done(id), packs: [{ ...foreign, id, length: 0 }] });
      const conflict = { state: "conflict", files: 0, bytes: 0, left: container.left };
      for (const falsified of [{ pack: () => "", done: empty }, { plan: () => conflict }]) {
        Object.assign(container, falsified);
        await expect(world.workspace.save()).rejects.toMatchObject({ code: "damaged" });
      }
      const { unsaved } = await world.lifecycle.restoreCheckpoint(checkpoint.id, SETTINGS);
      expect(unsaved).toContain("another program may be in its place");
    }));

  it("says that the sandbox is damaged if a save refers to too many packs. An archive and the next save have few", () =>
    withWorld(async (world) => {
      await prepare(world);
      const container = world.container as NonNullable<World["container"]>;
      const plan = container.plan.bind(container);
      container.plan = (call) => plan({ ...call, repack: [] });
      const packs = () => world.registry.current("a")?.packs.length;
      for (let number = 0; number < 20; number++) {
        world.write(`${number}`, `content ${number}`);
        await world.workspace.save();
      }
      world.write("one more", "content");
      await expect(world.workspace.save()).rejects.toMatchObject({ code: "damaged" });
      expect(packs()).toBe(21);
      container.plan = plan;
      const archive = { run: "run", expiresAt: Date.now() + 60_000, maxBytes: 1e6 };
      await world.workspace.keepArchive(archive, SETTINGS);
      expect(world.registry.findArchive("run", "workspace")?.packs).toHaveLength(5);
      await world.workspace.save();
      expect(packs()).toBe(5);
    }));

  it("gets no checkpoint, and is not replaced by one, if its container ends before the save that they wait for", () =>
    withWorld(async (world) => {
      const calls = [
        (id: string) => world.workspace.checkpoint(id, SETTINGS),
        (id: string) => world.workspace.beginCheckpointRestore(id, SETTINGS, async () => world.kill()),
      ];
      for (const [call, isReported] of calls.flatMap(
        (each) =>
          [
            [each, true],
            [each, false],
          ] as const,
      )) {
        await prepare(world);
        const { id } = await world.workspace.checkpoint("", SETTINGS);
        world.write("kept", "second");
        const { promise, reject } = Promise.withResolvers<never>();
        world.onStep = ({ name }) => (name === "sandboxd plan" ? promise : undefined);
        const saving = world.workspace.save();
        await vi.waitFor(() => expect(world.steps.at(-1)).toBe("sandboxd plan"));
        // The save under way may have missed the last change, so the call waits for another save.
        const calling = call(id);
        // The platform may report the end later.
        if (isReported) world.kill();
        else world.container = undefined;
        reject(new Error("connection lost"));
        await expect(saving).rejects.toThrow("stopped");
        await expect(calling).rejects.toMatchObject({ code: "sandbox_restarted" });
        world.onStep = () => undefined;
      }
    }));

  const isSavedToStop = async ({ workspace }: World) => {
    await workspace.saveToStop();
    return workspace.mayStop;
  };

  it("does not let its sandbox stop before it is saved completely", () =>
    withWorld(async (world) => {
      await prepare(world);
      expect(await isSavedToStop(world)).toBe(true);
      world.write("late", "x");
      world.onStep = refuseSteps(/bucket put/);
      expect(await isSavedToStop(world)).toBe(false);
      world.onStep = ({ name, when }) => {
        if (name === "bucket put" && when === "after") world.write("meanwhile", "y");
      };
      expect(await isSavedToStop(world)).toBe(false);
      world.onStep = () => undefined;
      expect(await isSavedToStop(world)).toBe(true);
      expect(Object.keys(await afterCrash(world)).sort()).toEqual(["kept", "late", "meanwhile"]);
    }));

  it("of another image has one notice that names the files that were not restored", () =>
    withWorld(async (world) => {
      await prepare(world);
      world.dropped = {
        count: 7,
        names: ["apt: jq", "/etc/jq.conf", "/opt/a", "/opt/b", "/opt/c", "/opt/d"],
      };
      world.kill();
      await world.ready();
      expect(takeNotice(world.notice)).toContain(
        'Not restored, because the image has changed: "apt: jq", /etc/jq.conf, /opt/a, /opt/b, /opt/c and 2 more. Install them again.',
      );
      expect(takeNotice(world.notice)).toBeUndefined();
    }));

  it("lets its sandbox stop after an hour, however long its saves take and whichever of them fail, and the notice says what is lost", () =>
    withWorld(async (world) => {
      await prepare(world);
      world.write("late", "x");
      const stop = () => world.lifecycle.stopIfUnused();
      vi.useFakeTimers();
      try {
        let plans = 0;
        world.onStep = async ({ name, when }) => {
          if (name !== "sandboxd plan" || when !== "before") return;
          plans++;
          if (plans % 2 === 0) throw new ToolError("file_system", "the sandbox reported error EIO");
          await new Promise((resolve) => setTimeout(resolve, 41_000));
        };
        const hasStopped: boolean[] = [];
        for (let minute = 0; minute < 90; minute += 2) {
          const stopping = stop();
          await vi.advanceTimersByTimeAsync(120_000);
          hasStopped.push(await stopping);
        }
        expect(plans).toBeGreaterThan(20);
        expect(hasStopped.slice(0, 25)).not.toContain(true);
        expect(world.container).toBeUndefined();
      } finally {
        vi.useRealTimers();
      }
      world.onStep = () => undefined;
      await world.ready();
      expect(takeNotice(world.notice)).toMatch(
        /not everything could be saved: .* any later changes are gone/,
      );
    }));

  it("is saved soon after a failed save, and less often while saves continue to fail", () =>
    withWorld(async (world) => {
      vi.useFakeTimers();
      try {
        await prepare(world);
        let attempts = 0;
        world.onStep = ({ name, when }) => {
          if (name !== "sandboxd plan" || when !== "before") return;
          attempts++;
          throw new Error("R2 is not there (10001)");
        };
        world.write("late", "x");
        await vi.advanceTimersByTimeAsync(60_000);
        expect(attempts).toBeGreaterThan(4);
        expect(attempts).toBeLessThan(10);
      } finally {
        vi.useRealTimers();
      }
      world.onStep = () => undefined;
      await world.workspace.save();
      expect(await afterCrash(world)).toEqual({ kept: "first", late: "x" });
    }));

  it("is not rolled back if its current state cannot be saved", () =>
    withWorld(async (world) => {
      await prepare(world);
      const { id } = await world.workspace.checkpoint("good", SETTINGS);
      world.write("kept", "precious");
      world.onStep = refuseSteps(/bucket put/);
      await expect(world.lifecycle.restoreCheckpoint(id, SETTINGS)).rejects.toThrow("could not be saved");
      world.onStep = () => undefined;
      expect(world.workspace.isRestoringCheckpoint).toBe(false);
      await world.workspace.save();
      expect(await afterCrash(world)).toEqual({ kept: "precious" });
    }));

  it("is rolled back if its current state can never be saved, its last save becomes a checkpoint, and the result says why", () =>
    withWorld(async (world) => {
      await prepare(world);
      const { id } = await world.workspace.checkpoint("good", SETTINGS);
      world.write("kept", "second");
      await world.workspace.save();
      world.write("kept", "broken");
      world.onStep = ({ name }) => {
        if (name === "sandboxd plan") throw new ToolError("too_large", "it has too many files");
      };
      await expect(world.workspace.save()).rejects.toMatchObject({
        code: "too_large",
        hint: expect.stringContaining("Delete files that are not needed"),
        retryable: false,
      });
      // The call reports the failure, so no notice repeats it.
      await expect(world.workspace.checkpoint("no", SETTINGS)).rejects.toThrow("too many files");
      expect(world.workspace.takeNotice()).toBeUndefined();
      const { before, unsaved } = await world.lifecycle.restoreCheckpoint(id, SETTINGS);
      expect(unsaved).toBe("it has too many files");
      world.onStep = () => undefined;
      expect(await afterCrash(world)).toEqual({ kept: "first" });
      await world.lifecycle.restoreCheckpoint(before?.id ?? "", SETTINGS);
      expect(await afterCrash(world)).toEqual({ kept: "second" });
    }));

  it("that exceeds the limit is reported at once, and not sent again until it is smaller", () =>
    withWorld(
      async (world) => {
        await prepare(world);
        const { id } = await world.workspace.checkpoint("good", SETTINGS);
        world.write("large", "x".repeat(2000));
        const refused = { code: "quota_exceeded", hint: expect.stringContaining("list_sandboxes") };
        await expect(world.workspace.save()).rejects.toMatchObject(refused);
        expect(world.workspace.takeNotice()).toMatch(/your limit is.*list_sandboxes/);
        world.steps.length = 0;
        world.write("other", "y");
        await expect(world.workspace.save()).rejects.toMatchObject(refused);
        expect(world.steps).toEqual(["sandboxd plan", "account beginSave"]);
        world.write("large", "x".repeat(100));
        await world.workspace.save();
        world.write("large", "y".repeat(2000));
        expect((await world.lifecycle.restoreCheckpoint(id, SETTINGS)).unsaved).toContain("your limit is");
        expect(await afterCrash(world)).toEqual({ kept: "first" });
      },
      { workspaceBytes: 1000 },
    ));

  it("is rolled back completely or not at all if its actor is evicted at each step", async () => {
    for (let at = 0, isOver = false; !isOver; at++)
      await withWorld(async (world) => {
        await prepare(world);
        const { id } = await world.workspace.checkpoint("good", SETTINGS);
        world.write("kept", "precious");
        const evicted = evictAt(world, at);
        const restoring = world.lifecycle.restoreCheckpoint(id, SETTINGS).then(() => "back");
        const outcome = await Promise.race([restoring, evicted]);
        isOver = outcome === "back";
        world.onStep = () => undefined;
        // The next call ends the container, and its result then says that the sandbox was restored.
        const isBack = isOver || world.workspace.isRestoringCheckpoint;
        await world.ready();
        await world.workspace.save();
        const labels = world.registry.checkpoints().map(({ label }) => label);
        expect(labels.filter((label) => label === "before going back to good")).toHaveLength(isBack ? 1 : 0);
        expect(world.files.get("kept")).toBe(isBack ? "first" : "precious");
      });
  });

  it("is neither saved nor restored if sandboxd refers to packs that it does not have", () =>
    withWorld(async (world) => {
      const other = world.createSibling("other");
      await prepare(other);
      await prepare(world);
      const foreign = other.registry.current("other")?.packs[0]?.id ?? "";
      const container = world.container;
      if (!container) throw new Error("there is no container");
      const done = container.done.bind(container);
      container.done = (id) => {
        const restored = done(id);
        return { ...restored, packs: [...restored.packs, { id: foreign, length: 5, live: 5 }] };
      };
      const before = world.registry.current("a");
      world.write("late", "x");
      await expect(world.workspace.save()).rejects.toThrow("could not be saved");
      expect(world.registry.current("a")).toEqual(before);
      container.done = (id) => ({ ...done(id), manifestBytes: 1 });
      await expect(world.workspace.save()).rejects.toThrow("could not be saved");
      container.done = done;

      world.kill();
      world.onStep = ({ name, when }) => {
        if (name !== "start" || when !== "after" || !world.container) return;
        world.container.restore = () => [{ pack: foreign, from: 0, to: 5 }];
      };
      await expect(world.ready()).rejects.toThrow("could not be restored");
    }));
});

it("a save of more than twice its sandbox's limit fails, although the principal's limit is higher", () =>
  withWorld(async (world) => {
    await prepare(world);
    const before = world.registry.current("a");
    world.maxBytes = 1000;
    world.evict();
    await world.ready();
    world.write("large", "x".repeat(2001));
    await expect(world.workspace.save()).rejects.toMatchObject({ code: "too_large" });
    expect(world.registry.current("a")).toEqual(before);
    world.write("large", "x".repeat(1000));
    await world.workspace.save();
    expect(await afterCrash(world)).toMatchObject({ large: "x".repeat(1000) });
  }));

it("a save of too many files fails, and the reason names the limit", async () => {
  const response = Response.json({ problem: "too_large" }, { status: FAILED });
  const snapshots = new Snapshots((_path, _init, _signal, read) => read(response, reserve));
  await expect(snapshots.call("commit", { id: "a" }, AbortSignal.timeout(1000))).rejects.toThrow(
    "it has more than 200000 files and directories, or their names and links are too long",
  );
});

describe("the saved files of a task", () => {
  const remains = {
    run: "a.1t",
    expiresAt: Date.now() + DAY_MS,
    maxBytes: 1000,
    conversation: CONVERSATION,
  };
  const taskFiles = { made: "by the task", talk: "said" };

  it("can be restored in another sandbox, also after the task's sandbox is destroyed, and need no space if they are saved already", () =>
    withWorld(async (world) => {
      await doTask(world);
      await world.workspace.save();
      const put = () => world.steps.filter((name) => name === "bucket put").length;
      const before = put();
      expect(await world.workspace.keepArchive(remains, SETTINGS)).toEqual({
        count: 0,
        bytes: 0,
        largest: [],
      });
      // Two objects: the conversation and its manifest.
      expect(put() - before).toBe(2);
      world.registry.forget("a");
      expect(await continueTask(world, "b")).toEqual(taskFiles);
    }));

  it("are kept without a conversation that is too large, and the outcome says so", () =>
    withWorld(async (world) => {
      await doTask(world);
      world.container?.conversation.set("talk", "x".repeat(1024 * 1024 + 1001));
      expect(await world.workspace.keepArchive(remains, SETTINGS)).toMatchObject({
        count: 0,
        conversation: true,
      });
      expect(world.registry.findArchive("a.1t", "conversation")).toBeUndefined();
      expect(await continueTask(world, "b")).toEqual({ made: taskFiles.made });
    }));

  it("do not become the state of their sandbox", () =>
    withWorld(async (world) => {
      await doTask(world);
      await world.workspace.keepArchive(remains, SETTINGS);
      expect(world.registry.current("a")).toBeUndefined();
      world.write("later", "x");
      await world.workspace.save();
      expect(await afterCrash(world)).toEqual({ made: "by the task", later: "x" });
      expect(await continueTask(world, "b")).toEqual(taskFiles);
    }));

  it("are kept and restored on a server that saves no workspaces, but nothing else is", () =>
    withWorld(async (saving) => {
      const world = saving.createSibling("a", false);
      await doTask(world);
      await world.workspace.keepArchive(remains, SETTINGS);
      await world.workspace.save();
      expect(await continueTask(world, "b")).toEqual(taskFiles);
      expect(await afterCrash(world)).toEqual({});
    }));

  it("are not restored over existing files on a server that saves no workspaces", () =>
    withWorld(async (saving) => {
      const world = saving.createSibling("a", false);
      await doTask(world);
      await world.workspace.keepArchive(remains, SETTINGS);
      world.registry.forkArchive("b", "a.1t");
      const next = world.createSibling("b", false);
      next.onStep = ({ name, when }) => {
        if (name === "start" && when === "after") next.files.set("somebody's own", "untouched");
      };
      await next.ready();
      expect(Object.fromEntries(next.files)).toEqual({ "somebody's own": "untouched" });
      await next.workspace.keepArchive({ ...remains, run: "b.1t" }, SETTINGS);
    }));

  it("are deleted if the sandbox sends more than allowed", () =>
    withWorld(async (world) => {
      await doTask(world);
      world.write("made", "x".repeat(1024 * 1024 + 1001));
      await expect(world.workspace.keepArchive(remains, SETTINGS)).rejects.toMatchObject({
        code: "too_large",
      });
      expect(world.registry.findArchive("a.1t", "workspace")).toBeUndefined();
      await world.workspace.save();
      const removed: string[] = [];
      await world.registry.sweep(async (prefix) => void removed.push(prefix), 60_000);
      expect(removed).toHaveLength(1);
    }));

  it("are kept by the next attempt after a failure or an eviction at each step", () =>
    interruptSteps(async (world, interrupt) => {
      await doTask(world);
      await world.workspace.save();
      world.write("made", "by the task");
      world.write("more", "of it");
      const { evicted } = interrupt();
      await Promise.race([world.workspace.keepArchive(remains, SETTINGS).catch(() => undefined), evicted]);
      world.onStep = () => undefined;
      await world.workspace.keepArchive(remains, SETTINGS);
      expect(await continueTask(world, "b")).toEqual({ ...taskFiles, more: "of it" });
      expect(await afterCrash(world)).toMatchObject({ made: "by the task" });
    }));
});
