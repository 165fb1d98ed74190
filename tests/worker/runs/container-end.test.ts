import { expect, it, vi } from "vitest";
import { ContainerEnd } from "../../../src/actors/container-end.ts";
import type { Workspace } from "../../../src/actors/workspace.ts";

it("a program in sandboxd's place cannot ask for one save after another", async () => {
  let saves = 0;
  const done = () => Promise.resolve();
  const end = new ContainerEnd({
    sandboxd: {
      isToken: () => true,
      report: async () => ({ isServing: false }) as never,
    },
    lifecycle: { isRunning: true, isInUse: false },
    kernels: { refuse: () => false, stopAll: done } as never,
    workspace: {
      saveToStop: async () => ++saves > 0,
      mayStop: true,
      isComplete: true,
      noteChange: () => undefined,
    },
    notice: { noteEnding: () => undefined },
    network: {} as never,
    sync: done,
  });
  const isSaved: boolean[] = [];
  for (let request = 0; request < 200; request++) isSaved.push(await end.saveForPlatform("token"));
  // As many as an orderly stop with five restarts of sandboxd needs.
  expect(isSaved.slice(0, 36)).not.toContain(false);
  expect(saves).toBeLessThan(50);
  expect(isSaved.at(-1)).toBe(false);
});

/** Stops the server; `saveToStop` and `mayStop` are the workspace's. */
async function stopServer(workspace: Pick<Workspace, "saveToStop" | "mayStop">): Promise<boolean> {
  const done = () => Promise.resolve();
  const end = new ContainerEnd({
    sandboxd: {} as never,
    lifecycle: { isRunning: true, isInUse: false },
    kernels: {} as never,
    workspace: Object.assign(workspace, { isComplete: true, noteChange: () => undefined }),
    notice: { noteEnding: () => undefined },
    network: { connections: { collect: done } } as never,
    sync: done,
  });
  vi.useFakeTimers();
  try {
    const stopping = end.saveForServer();
    await vi.advanceTimersByTimeAsync(60_000);
    return await stopping;
  } finally {
    vi.useRealTimers();
  }
}

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

it("a workspace that cannot be saved does not delay the server's stop for long", async () => {
  let saves = 0;
  expect(await stopServer({ saveToStop: async () => ++saves < 0, mayStop: false })).toBe(false);
  expect(saves).toBe(3);
});
