import { expect, it, vi } from "vitest";
import { ContainerEnd } from "../../../src/actors/container-end.ts";
import type { Workspace } from "../../../src/actors/workspace.ts";

type SavedWorkspace = Pick<Workspace, "saveToStop" | "mayStop"> & Partial<Pick<Workspace, "prioritizeSaves">>;

function createEnd(workspace: SavedWorkspace): ContainerEnd {
  const done = () => Promise.resolve();
  return new ContainerEnd({
    sandboxd: {
      isToken: () => true,
      report: async () => ({ isServing: false }) as never,
    },
    lifecycle: { isRunning: true, isInUse: false },
    kernels: { refuse: () => false, stopAll: done } as never,
    workspace: Object.assign(workspace, {
      isComplete: true,
      prioritizeSaves: workspace.prioritizeSaves ?? (() => undefined),
      noteChange: () => undefined,
    }),
    notice: { noteEnding: () => undefined },
    network: { connections: { collect: done } } as never,
    sync: done,
  });
}

/** Does `work` while a minute passes. */
async function withinMinute<T>(work: () => Promise<T>): Promise<T> {
  vi.useFakeTimers();
  const done = work();
  await vi.advanceTimersByTimeAsync(60_000);
  return await done;
}

const stopServer = (workspace: SavedWorkspace) => withinMinute(() => createEnd(workspace).saveForServer());

it("calls that are refused do not delay the platform's end of a container for long, although they count as changes", async () => {
  let saves = 0;
  const end = createEnd({ saveToStop: async () => ++saves > 0, mayStop: false });
  expect(await withinMinute(() => end.saveForPlatform("token"))).toBe(true);
  expect(saves).toBe(3);
});

it("before the server stops, the workspace is saved until no call has changed files during the save", async () => {
  let saves = 0;
  const workspace = {
    saveToStop: async () => ++saves > 0,
    get mayStop() {
      return saves >= 8;
    },
  };
  expect(await stopServer(workspace)).toBe(true);
  expect(saves).toBe(8);
});

it("before the server stops, programs yield the processors to the first save", async () => {
  const steps: string[] = [];
  const workspace = {
    prioritizeSaves: () => void steps.push("prioritize"),
    saveToStop: async () => steps.push("save") > 0,
    mayStop: true,
  };
  expect(await stopServer(workspace)).toBe(true);
  expect(steps).toEqual(["prioritize", "save"]);
});

it("a workspace that cannot be saved does not delay the server's stop for long", async () => {
  let saves = 0;
  expect(await stopServer({ saveToStop: async () => ++saves < 0, mayStop: false })).toBe(false);
  expect(saves).toBe(3);
});
