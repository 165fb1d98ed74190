/** Saved results of set-ups for the next container and sandbox, with failures at each step. */
import { describe, expect, it, vi } from "vitest";
import { SetUpOutcomes } from "../../../src/actors/set-up-outcomes.ts";
import { DAY_MS } from "../../../src/shared/days.ts";
import { ToolError } from "../../../src/shared/errors.ts";
import { CALL_MS } from "../../../src/shared/timers.ts";
import type { NetworkPolicy } from "../../../src/shared/network-policy.ts";
import type { Secret } from "../../../src/shared/secrets.ts";
import { type World, interruptSteps, withWorld } from "./world.ts";

/** The hosts that the sandbox can reach. */
const NETWORK: { policy: NetworkPolicy; secrets: Secret[] } = {
  policy: { internet: "allowlist", allowHosts: ["a.example", "b.example"] },
  secrets: [],
};

const outcomesOf = (world: World, value: string | null = null, { policy, secrets } = NETWORK, version = 1) =>
  new SetUpOutcomes({
    policy: () => policy,
    secrets: () => secrets,
    workspace: world.workspace,
    variables: () => ({ version, entries: [{ name: "WORD", value, version: 1 }] }),
    isSaved: world.isSaved,
    keepSharedMs: DAY_MS,
    lifecycle: world.lifecycle,
    account: { owner: { principalID: "p", sandbox: world.sandbox, principalHash: "h" } },
    report: (error) => world.reports.push(error),
  });

/** Changes the files as a set-up script would. */
async function install(world: World): Promise<void> {
  await world.ready();
  world.files.set("clone", "of the set-up");
  world.workspace.noteChange();
}

/** Begins a set-up whose result is not kept yet, and changes the files. Returns what to keep. */
async function beginAndInstall(world: World, value?: string) {
  const started = await outcomesOf(world, value).begin("script", undefined);
  if (!started || "savedAt" in started) throw new Error("it was kept");
  await install(world);
  return started;
}

/** Sets a sandbox up as its actor does. Returns whether the script ran or a result was restored, and the result's key. */
async function setUp(
  world: World,
  script = "script",
  previousKey?: string,
  value?: string,
  network = NETWORK,
) {
  const outcomes = outcomesOf(world, value, network);
  const started = await outcomes.begin(script, previousKey);
  if (started && "savedAt" in started) return { how: "restored", key: started.key };
  await install(world);
  if (started) await outcomes.keep(started);
  return { how: "ran", key: started?.key };
}

const filesOf = ({ files }: World) => Object.fromEntries(files);
const LEFT = { clone: "of the set-up" };

describe("the saved result of a set-up", () => {
  it("is not used for a sandbox with other reachable hosts or other secrets", () =>
    withWorld(async (world) => {
      await setUp(world);
      const { policy } = NETWORK;
      const secret = { name: "forge", hosts: ["a.example"], variable: undefined } as unknown as Secret;
      const networks: (typeof NETWORK)[] = [
        { policy: { internet: "none", allowHosts: policy.allowHosts }, secrets: [] },
        { policy: { internet: "full", allowHosts: [] }, secrets: [] },
        { policy: { internet: "allowlist", allowHosts: ["a.example"] }, secrets: [] },
        { policy, secrets: [secret] },
        { policy, secrets: [{ ...secret, variable: "FORGE_KEY" }] },
      ];
      for (const [index, network] of networks.entries()) {
        const other = world.createSibling(`other-${index}`);
        expect(await setUp(other, "script", undefined, undefined, network)).toMatchObject({ how: "ran" });
      }
      const same = { policy: { ...policy, allowHosts: policy.allowHosts.toReversed() }, secrets: [] };
      expect(await setUp(world.createSibling("same"), "script", undefined, undefined, same)).toMatchObject({
        how: "restored",
      });
    }));

  it("is not kept if the sandbox could reach other hosts at the end of the set-up", () =>
    withWorld(async (world) => {
      const started = await beginAndInstall(world);
      const full: typeof NETWORK = { policy: { internet: "full", allowHosts: [] }, secrets: [] };
      await expect(outcomesOf(world, null, full).keep(started)).rejects.toThrow("network");
    }));

  it("is not kept if the variables were changed before the end of the set-up", () =>
    withWorld(async (world) => {
      const started = await beginAndInstall(world, "first");
      await expect(outcomesOf(world, "second", NETWORK, 2).keep(started)).rejects.toThrow("variables");
      const other = world.createSibling("other");
      expect(await setUp(other, "script", undefined, "first")).toMatchObject({ how: "ran" });
    }));

  it("is complete in the next container even if the sandbox ended before its first save", () =>
    withWorld(async (world) => {
      const { key } = await setUp(world);
      world.kill();
      expect(await setUp(world, "script", key)).toEqual({ how: "restored", key });
      expect(filesOf(world)).toEqual(LEFT);
      world.write("clone", "changed");
      await world.workspace.save();
      world.kill();
      expect(await setUp(world, "script", key)).toEqual({ how: "restored", key });
      expect(filesOf(world)).toEqual({ ...LEFT, clone: "changed" });
      // A set-up on top of a saved workspace.
      world.kill();
      const second = await setUp(world, "another", key);
      world.kill();
      expect(await setUp(world, "another", second.key)).toEqual({ how: "restored", key: second.key });
      expect(filesOf(world)).toEqual(LEFT);
    }));

  it("on top of a workspace is used only for sandboxes with that workspace", () =>
    withWorld(async (world) => {
      await world.ready();
      world.write("requirements", "tool");
      await world.workspace.save();
      const { how: result, key } = await setUp(world);
      expect([result, key]).toEqual(["ran", expect.stringMatching(/^setup:[0-9a-f]{64}$/)]);
      await world.workspace.save();
      world.kill();
      expect(await setUp(world, "script", key)).toEqual({ how: "restored", key });
      expect(filesOf(world)).toEqual({ requirements: "tool", ...LEFT });
      // The script changed, and then the sandbox was rolled back.
      world.kill();
      expect(await setUp(world, "another", key)).toMatchObject({ how: "ran" });
      expect(await setUp(world.createSibling("b"))).toMatchObject({ how: "ran" });
    }));

  it.each([
    {
      why: "a part exceeds the limit",
      state: { left: { count: 1, bytes: 5, largest: [{ path: "large", size: 5 }] } },
      message: "WORKSPACE_MAX_MB",
    },
    {
      why: "packages are still being installed",
      state: { isInstalling: true },
      message: "files may be missing",
    },
  ])("is not kept if $why", ({ state, message }) =>
    withWorld(async (world) => {
      const started = await beginAndInstall(world);
      Object.assign(world.container ?? {}, state);
      await expect(outcomesOf(world).keep(started)).rejects.toThrow(message);
      expect(await setUp(world.createSibling("b"))).toMatchObject({ how: "ran" });
    }),
  );

  it.each(["mark", "system"])("is made by the script if sandboxd never responds to %s", (name) =>
    withWorld(async (world) => {
      await setUp(world);
      const other = world.createSibling("b");
      await other.ready();
      const before = other.steps.length - 1;
      vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
      other.onStep = (step) => (step.name === `sandboxd ${name}` ? new Promise(() => {}) : undefined);
      const begun = outcomesOf(other).begin("script", undefined);
      await vi.waitFor(() => expect(other.steps.lastIndexOf(`sandboxd ${name}`)).toBeGreaterThan(before));
      await vi.advanceTimersByTimeAsync(CALL_MS);
      await expect(begun).resolves.toBeUndefined();
    }),
  );

  it.each([
    ["the storage has lost an object", (world: World) => world.loseObjects()],
    ["the storage has lost the end of an object", (world: World) => world.loseObjects({ bytes: 1 })],
    ["the storage has emptied the objects", (world: World) => world.loseObjects({ areLeftEmpty: true })],
    [
      "sandboxd cannot read it",
      (_world: World, other: World) => {
        other.onStep = ({ name }) => {
          if (name === "sandboxd restore") throw new ToolError("damaged", "it is damaged");
        };
      },
    ],
  ])("is used for no further sandbox if a restore fails because %s", (_why, damage) =>
    withWorld(async (world) => {
      await setUp(world);
      const other = world.createSibling("b");
      await damage(world, other);
      await expect(setUp(other)).rejects.toThrow(/could not be restored: .* damaged/);
      const next = world.createSibling("c");
      expect(await setUp(next)).toMatchObject({ how: "ran" });
      expect(filesOf(next)).toEqual(LEFT);
    }),
  );

  it("is used for further sandboxes if a restore fails because of its own sandbox", () =>
    withWorld(async (world) => {
      await setUp(world);
      const other = world.createSibling("b");
      other.onStep = ({ name }) => {
        if (name === "sandboxd restore") throw new ToolError("no_space", "its disk is full");
      };
      await expect(setUp(other)).rejects.toThrow(/could not be restored: its disk is full/);
      expect(await setUp(world.createSibling("c"))).toMatchObject({ how: "restored" });
    }));

  it("is complete or missing after a failure or an eviction at each step of its save", () =>
    interruptSteps(async (world, interrupt) => {
      const started = await beginAndInstall(world);
      await world.workspace.save();
      const { evicted } = interrupt();
      const keeping = outcomesOf(world)
        .keep(started)
        .then(
          () => true,
          () => false,
        );
      const isKept = (await Promise.race([keeping, evicted])) === true;
      world.onStep = () => undefined;
      const other = world.createSibling("b");
      const { how: result } = await setUp(other);
      // If the server reported the outcome as kept, it is kept.
      expect(result === "restored" || !isKept).toBe(true);
      expect(filesOf(other)).toEqual(LEFT);
      // The next actor keeps the outcome.
      await world.ready();
      await outcomesOf(world).keep(started);
      expect(await setUp(world.createSibling("c"))).toMatchObject({ how: "restored" });
    }));

  it("is restored or made by the script after a failure or an eviction at each step of its restore", () =>
    interruptSteps(async (first, interrupt) => {
      await setUp(first);
      const world = first.createSibling("b");
      const { evicted } = interrupt(world);
      await Promise.race([setUp(world).catch(() => undefined), evicted]);
      world.onStep = () => undefined;
      await world.ready();
      // After an eviction, the next actor gets this call.
      await setUp(world);
      expect(filesOf(world)).toEqual(LEFT);
      world.write("mine", "later");
      await world.workspace.save();
      world.kill();
      await world.ready();
      expect(Object.fromEntries(world.files)).toEqual({ clone: LEFT.clone, mine: "later" });
    }));
});

it("starts no container for a set-up whose sandbox is destroyed while it is registered again", () =>
  withWorld(async (world) => {
    const owner = { principalID: "p", sandbox: world.sandbox };
    let destroying: Promise<unknown> | undefined;
    let isDestroyed = false;
    const isOver = () => {
      destroying ??= world.lifecycle.destroy(owner, "workspace").then(() => (isDestroyed = true));
      return isDestroyed;
    };
    expect(await outcomesOf(world).begin("script", undefined, false, isOver)).toBeUndefined();
    expect(isDestroyed).toBe(true);
    expect(world.container).toBeUndefined();
    expect(world.lifecycle.isAlive).toBe(false);
    expect(world.reports).toEqual([]);
  }));

it("a checkpoint or restore during a set-up says that changes from before the set-up could not be saved", () =>
  withWorld(async (world) => {
    const settings = { forCheckpoint: undefined };
    await world.ready();
    world.write("mine", "saved");
    const { id } = await world.workspace.checkpoint("", settings);
    world.write("mine", "changed");
    Object.assign(world.container ?? {}, {
      plan: () => Promise.reject(new ToolError("too_large", "it has too many files")),
    });
    await expect(world.workspace.save()).rejects.toThrow("too many files");
    world.workspace.isHeld = true;
    await expect(world.workspace.checkpoint("", settings)).rejects.toThrow("too many files");
    const { unsaved } = await world.lifecycle.restoreCheckpoint(id, settings);
    expect(unsaved).toBe("it has too many files");
  }));
