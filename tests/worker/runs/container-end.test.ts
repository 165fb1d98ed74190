import { expect, it } from "vitest";
import { ContainerEnd } from "../../../src/actors/container-end.ts";

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
