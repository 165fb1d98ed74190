/** When saves begin if something delays them, or if they miss a file, because a program renames it all the time. */
import { describe, expect, it, type Mock, vi } from "vitest";
import { sleep } from "../support.ts";
import { afterCrash, prepare, type World, withWorld } from "./world.ts";
import { restoredText } from "../../../src/tools/texts.ts";
import { takeNotice } from "../notices.ts";

const SETTINGS = { forCheckpoint: undefined };

/** Tests with fake timers when a workspace is saved. `saved` is called at the beginning of each save. */
const countSaves = (test: (world: World, saved: Mock<(name: string) => void>) => Promise<void>) =>
  withWorld(async (world) => {
    vi.useFakeTimers();
    try {
      await prepare(world);
      await vi.advanceTimersByTimeAsync(10_000);
      const saved = vi.fn<(name: string) => void>();
      world.onStep = ({ name, when }) => void (name === "sandboxd plan" && when === "before" && saved(name));
      await test(world, saved);
    } finally {
      vi.useRealTimers();
    }
  });

describe("a workspace", () => {
  it("is saved again a second after a save that has missed a file, although nothing else changes", () =>
    withWorld(async (world) => {
      await prepare(world);
      const commits = vi.fn<(name: string) => void>();
      world.onStep = ({ name, when }) =>
        void (name === "sandboxd commit" && when === "after" && commits(name));
      Object.assign(world.container ?? {}, { missed: "kept" });
      world.write("late", "x");
      await vi.waitFor(() => expect(commits).toHaveBeenCalledTimes(2), 20_000);
      expect(await afterCrash(world)).toEqual({ kept: "first", late: "x" });
    }));

  it("is not saved each second if every save misses a file", () =>
    withWorld(async (world) => {
      await prepare(world);
      let commits = 0;
      const missOne = () => Object.assign(world.container ?? {}, { missed: "kept" });
      world.onStep = ({ name, when }) => {
        if (name !== "sandboxd commit" || when !== "after") return;
        commits += 1;
        // A program in the background writes a file, without a call.
        world.files.set(`background-${commits}`, "x");
        missOne();
      };
      missOne();
      world.write("late", "x");
      await vi.waitFor(() => expect(commits).toBe(2), 20_000);
      await sleep(4000);
      expect(commits).toBe(2);
    }));

  it("has all files in a checkpoint, and after a stop, although the first save before them misses one", () =>
    withWorld(async (world) => {
      await prepare(world);
      Object.assign(world.container ?? {}, { missed: "kept" });
      world.write("late", "x");
      const { id } = await world.workspace.checkpoint("good", SETTINGS);
      expect(await afterCrash(world)).toEqual({ kept: "first", late: "x" });
      Object.assign(world.container ?? {}, { missed: "late" });
      world.write("later", "y");
      await world.workspace.saveToStop();
      expect(world.workspace.mayStop).toBe(true);
      expect(await afterCrash(world)).toEqual({ kept: "first", late: "x", later: "y" });
      await world.lifecycle.restoreCheckpoint(id, SETTINGS);
      await world.ready();
      expect(Object.fromEntries(world.files)).toEqual({ kept: "first", late: "x" });
    }));

  it("has a notice with its checkpoint, and after a stop, if packages are being installed", () =>
    withWorld(async (world) => {
      await prepare(world);
      takeNotice(world.notice);
      Object.assign(world.container ?? {}, { isInstalling: true });
      await world.workspace.checkpoint("during an installation", SETTINGS);
      expect(world.workspace.takeNotice()).toMatch(/may lack files/);
      expect(await world.lifecycle.stopIfUnused()).toBe(true);
      await world.ready();
      expect(takeNotice(world.notice)).toMatch(/not everything could be saved.*any later changes are gone/);
    }));

  it("has a notice with its checkpoint, after a restore, and after a stop, if every save misses a file", () =>
    withWorld(async (world) => {
      await prepare(world);
      takeNotice(world.notice);
      world.onStep = ({ name, when }) => {
        if (name !== "sandboxd plan" || when !== "before") return;
        // A program in the background writes a file, without a call.
        world.files.set(`background-${world.steps.length}`, "x");
        Object.assign(world.container ?? {}, { missed: "kept" });
      };
      const { id } = await world.workspace.checkpoint("lacking", SETTINGS);
      expect(world.workspace.takeNotice()).toMatch(/may lack files/);
      expect(world.workspace.takeNotice()).toBeUndefined();
      const restored = await world.lifecycle.restoreCheckpoint(id, SETTINGS);
      expect(restoredText("sandbox", restored)).toMatch(
        /could not be saved completely \(.* may be missing\): checkpoint/,
      );
      await world.ready();
      // The result of the restore has said it.
      expect(takeNotice(world.notice)).not.toMatch(/later changes/);
      world.write("kept", "again");
      expect(await world.lifecycle.stopIfUnused()).toBe(true);
      world.onStep = () => undefined;
      await world.ready();
      expect(takeNotice(world.notice)).toMatch(/not everything could be saved.*any later changes are gone/);
    }));

  it("is saved two seconds after its first unsaved change at the latest, whenever further changes follow", () =>
    countSaves(async (world, saved) => {
      for (const text of ["0.00 s", "0.95 s", "1.90 s"]) {
        world.write("busy", text);
        await vi.advanceTimersByTimeAsync(950);
      }
      expect(saved).toHaveBeenCalledOnce();
    }));

  it("is saved two seconds after its first unsaved change although the thread is so busy that changes come before the timer", () =>
    countSaves(async (world, saved) => {
      for (const text of ["0.0 s", "1.1 s", "2.2 s", "3.3 s"]) {
        world.write("busy", text);
        await vi.advanceTimersByTimeAsync(900);
        // The time goes on, and no timer fires meanwhile.
        vi.setSystemTime(Date.now() + 200);
      }
      expect(saved).toHaveBeenCalledOnce();
    }));
});
