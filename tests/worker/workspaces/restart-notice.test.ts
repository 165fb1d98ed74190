/** The notice after a restart, also if the actor is evicted, and the error of a call that the restart interrupts. */
import { expect, it, onTestFinished, vi } from "vitest";
import { type World, withWorld } from "./world.ts";
import { takeNotice } from "../notices.ts";

/** Starts a container. The actor is evicted when the container runs, before it has stored that. */
async function readyAfterEviction(world: World): Promise<void> {
  await new Promise<void>((resolve) => {
    world.onStep = ({ name, when }) => {
      if (name !== "start" || when !== "after") return;
      world.onStep = () => undefined;
      world.evict();
      resolve();
    };
    void world.ready();
  });
  await world.ready();
}

/** Starts a sandbox whose saved state stays after its removal, and changes it after a save. */
async function changeAfterSave(world: World): Promise<void> {
  world.isKept = true;
  await world.ready();
  world.write("a", "saved");
  await world.workspace.save();
  world.write("a", "not saved");
}

/** Removes the sandbox as an unused one. */
function remove(world: World): Promise<boolean> {
  const owner = { principalID: "p", sandbox: world.sandbox };
  return world.lifecycle.destroyIfUnused(owner, () => false);
}

it.each([
  ["the next container starts", (world: World) => world.ready()],
  ["each container starts", readyAfterEviction],
])("says that unsaved changes are gone, even if the actor is evicted while %s", (_when, begin) =>
  withWorld(async (world) => {
    await begin(world);
    world.write("a", "saved");
    await world.workspace.save();
    world.write("a", "not saved");
    world.kill();
    await readyAfterEviction(world);
    expect(takeNotice(world.notice)).toContain("any later changes are gone");
  }),
);

it.each([
  [
    "still says that unsaved changes are gone after an unused sandbox was removed",
    undefined,
    /later changes are gone/,
    /later changes are gone/,
  ],
  [
    "says only what is restored if everything was saved before the removal",
    "idle",
    /^$/,
    /^The sandbox starts with/,
  ],
] as const)("%s", (_what, ending, atCheckpoint, expected) =>
  withWorld(async (world) => {
    world.isKept = true;
    await world.ready();
    world.write("a", "saved");
    await world.workspace.save();
    if (ending) world.notice.noteEnding(ending);
    else world.write("a", "not saved");
    world.kill();
    expect(await remove(world)).toBe(true);
    await world.lifecycle.checkpoint("", { forCheckpoint: undefined });
    expect(takeNotice(world.notice) ?? "").toMatch(atCheckpoint);
    await world.ready();
    expect(takeNotice(world.notice)).toMatch(expected);
  }),
);

it("says that unsaved changes are gone if an unused sandbox is removed although it cannot be saved", () =>
  withWorld(async (world) => {
    await changeAfterSave(world);
    world.onStep = ({ name }) => {
      if (name === "bucket put") throw new Error("R2 fails");
    };
    expect(await remove(world)).toBe(false);
    const later = Date.now() + 2 * 3_600_000;
    const clock = vi.spyOn(Date, "now").mockImplementation(() => later);
    onTestFinished(() => clock.mockRestore());
    expect(await remove(world)).toBe(true);
    await world.ready();
    expect(takeNotice(world.notice)).toContain("any later changes are gone");
  }));

it("says that unsaved changes are gone if the container of an unused sandbox ends while it is saved to be removed", () =>
  withWorld(async (world) => {
    await changeAfterSave(world);
    world.onStep = ({ name }) => {
      // The platform has not reported the end yet.
      if (name === "bucket put") world.container = undefined;
    };
    expect(await remove(world)).toBe(true);
    world.onStep = () => undefined;
    await world.ready();
    expect(takeNotice(world.notice)).toContain("any later changes are gone");
  }));

it.each([
  ["that changes are gone if a call made them after the save before a stop of the server", true],
  ["nothing about lost changes if no call followed the save before a stop of the server", false],
])("says %s", (_what, isChanged) =>
  withWorld(async (world) => {
    await world.ready();
    world.write("a", "saved");
    await world.workspace.saveToStop();
    world.notice.noteEnding("server");
    if (isChanged) world.write("a", "not saved");
    world.container = undefined;
    world.evict();
    await world.ready();
    const notice = takeNotice(world.notice);
    expect(notice).toMatch(/^The sandbox was stopped together with the server: its files are as saved/);
    expect(notice?.includes("any later changes are gone")).toBe(isChanged);
  }),
);

it("says nothing about a checkpoint of a sandbox that was stopped after a save", () =>
  withWorld(async (world) => {
    await world.ready();
    const state = { savedAt: 0, files: 1, bytes: 1 };
    world.notice.noteEnding("idle");
    world.kill();
    world.notice.noteCheckpoint(state);
    expect(takeNotice(world.notice)).toBeUndefined();
  }));

it("a checkpoint whose container ends says so, although the next container runs when the save fails", () =>
  withWorld(async (world) => {
    const { lifecycle } = world;
    await world.ready();
    world.write("a", "not saved");
    const { promise, reject } = Promise.withResolvers<never>();
    world.onStep = ({ name }) => (name === "bucket put" ? promise : undefined);
    const checkpoint = lifecycle.checkpoint("", { forCheckpoint: undefined });
    const explained = checkpoint.catch((error) => lifecycle.explainError(error));
    await vi.waitFor(() => expect(world.steps).toContain("bucket put"));
    world.kill();
    const next = world.ready();
    await vi.waitFor(() => expect(lifecycle.isRunning).toBe(true));
    reject(new Error("R2 is slow"));
    expect(await explained).toMatchObject({ code: "sandbox_restarted" });
    await next;
  }));
