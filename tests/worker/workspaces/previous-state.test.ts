/** The checkpoint that a restore makes of the state before it. */
import { expect, it } from "vitest";
import { type World, withWorld } from "./world.ts";
import { takeNotice } from "../notices.ts";

const SETTINGS = { forCheckpoint: undefined };

/** Changes a file after a checkpoint, and returns the checkpoint's id. */
async function changeAfterCheckpoint(world: World): Promise<string> {
  await world.ready();
  world.write("kept", "first");
  const { id } = await world.lifecycle.checkpoint("", SETTINGS);
  world.write("kept", "second");
  return id;
}

/** Restores a checkpoint during a set-up, although the checkpoint is deleted when the set-up has ended. */
async function failToRestore(world: World, id: string): Promise<void> {
  world.workspace.isHeld = true;
  world.write("late", "x");
  world.onStep = ({ name, when }) => {
    if (name === "account restoreCheckpoint" && when === "before")
      world.registry.removeCheckpoint(world.sandbox, id);
  };
  await expect(world.lifecycle.restoreCheckpoint(id, SETTINGS)).rejects.toThrow("checkpoint");
  world.onStep = () => undefined;
  world.workspace.isHeld = false;
}

/** The files of a fork from a checkpoint. */
async function filesOf(world: World, checkpoint?: { id: string }): Promise<Record<string, string>> {
  const fork = world.createSibling("fork", true);
  world.registry.fork("fork", checkpoint?.id ?? "");
  await fork.ready();
  return Object.fromEntries(fork.files);
}

it("has what earlier calls and runs change while the server saves it", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    let late = 2;
    world.onStep = ({ name, when }) => {
      if (name === "bucket put" && when === "after" && late > 0) world.write(`late ${late--}`, "x");
    };
    const { before } = await world.lifecycle.restoreCheckpoint(id, SETTINGS);
    await world.ready();
    expect(Object.fromEntries(world.files)).toEqual({ kept: "first" });
    expect(await filesOf(world, before)).toEqual({ kept: "second", "late 2": "x", "late 1": "x" });
  }));

it("has every change that a call made until the restore", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    const written = ["kept"];
    world.onStep = ({ name, when }) => {
      if (name !== "account restoreCheckpoint" || when !== "before" || !world.container) return;
      written.push("late");
      world.write("late", "x");
    };
    const { before } = await world.lifecycle.restoreCheckpoint(id, SETTINGS);
    expect(Object.keys(await filesOf(world, before))).toEqual(written);
  }));

it("lacks what runs change during a set-up, and the result says so", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    await world.workspace.save();
    world.workspace.isHeld = true;
    // As a run does that has not ended.
    world.files.set("late", "x");
    const { before, unsaved } = await world.lifecycle.restoreCheckpoint(id, SETTINGS);
    expect(unsaved).toContain("set-up");
    expect(await filesOf(world, before)).toEqual({ kept: "second" });
  }));

it("does not become the state again if a set-up ends during the restore", () =>
  withWorld(async (world) => {
    await world.ready();
    world.write("kept", "first");
    const { id } = await world.lifecycle.checkpoint("", SETTINGS);
    world.workspace.isHeld = true;
    world.write("late", "x");
    world.onStep = async ({ name, when }) => {
      if (name !== "account restoreCheckpoint" || when !== "after") return;
      world.workspace.isHeld = false;
      await world.workspace.save();
    };
    await world.lifecycle.restoreCheckpoint(id, SETTINGS);
    await world.ready();
    expect(Object.fromEntries(world.files)).toEqual({ kept: "first" });
  }));

it("keeps the notice true if the checkpoint is deleted during a restore that has ended a set-up", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    await world.workspace.save();
    await failToRestore(world, id);
    await world.ready();
    expect(takeNotice(world.notice)).toContain("any later changes are gone");
  }));

it("has all changes that the restore of a checkpoint during a set-up could save, so the notice names no loss", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    await world.workspace.save();
    world.workspace.isHeld = true;
    world.write("late", "x");
    await world.lifecycle.restoreCheckpoint(id, SETTINGS);
    world.workspace.isHeld = false;
    await world.ready();
    expect(takeNotice(world.notice)).toMatch(
      /^The sandbox was stopped to restore.*Processes and variables are gone/,
    );
  }));

it("names the loss in the notice if a restore failed after it had ended a set-up, and another succeeds", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    const other = await world.lifecycle.checkpoint("", SETTINGS);
    await failToRestore(world, id);
    expect((await world.lifecycle.restoreCheckpoint(other.id, SETTINGS)).unsaved).toBeUndefined();
    await world.ready();
    expect(takeNotice(world.notice)).toContain("any later changes are gone");
  }));

it("names the loss in the notice if the actor is evicted during a restore that has ended a set-up", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    await world.workspace.save();
    world.workspace.isHeld = true;
    world.write("late", "x");
    const { promise: evicted, resolve } = Promise.withResolvers<void>();
    world.onStep = ({ name, when }) => {
      if (name !== "account restoreCheckpoint" || when !== "before") return;
      world.onStep = () => undefined;
      world.evict();
      resolve();
      return new Promise(() => undefined);
    };
    void world.lifecycle.restoreCheckpoint(id, SETTINGS);
    await evicted;
    world.workspace.isHeld = false;
    await world.ready();
    expect(takeNotice(world.notice)).toContain("any later changes are gone");
  }));

it("is made by the next actor if this one is evicted while the container ends", () =>
  withWorld(async (world) => {
    const id = await changeAfterCheckpoint(world);
    const { promise: evicted, resolve } = Promise.withResolvers<void>();
    void world.workspace.beginCheckpointRestore(id, SETTINGS, () => {
      world.kill();
      world.evict();
      resolve();
      return new Promise(() => undefined);
    });
    await evicted;
    await world.ready();
    expect(Object.fromEntries(world.files)).toEqual({ kept: "first" });
    expect(world.registry.checkpoints()).toHaveLength(2);
  }));

it("is not made, and the container goes on, if there is no checkpoint to restore", () =>
  withWorld(async (world) => {
    await world.ready();
    world.write("kept", "x");
    await expect(world.lifecycle.restoreCheckpoint("c-none", SETTINGS)).rejects.toMatchObject({
      code: "not_found",
    });
    expect(Object.fromEntries(world.files)).toEqual({ kept: "x" });
  }));
