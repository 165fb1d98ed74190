/** The limit of processes for all sandboxes together, and which sandboxes the engine ends before it is reached. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { findGroupParents } from "../../local/engine/limits.ts";
import { processesOfAll, processesWithin } from "../../local/engine/process-limits.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { findProcess, valuesInGroups } from "../setup/processes.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const isLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("pids"));

it("sandboxes leave processes to the machine, although each process can occupy three process numbers", () => {
  expect(processesOfAll(32_768, 192_729)).toBe(8192);
  expect(processesOfAll(4_194_304, 192_729)).toBe(144_546);
});

it("sandboxes leave processes to the other programs of a container with a limit", async () => {
  const [container, free] = [temporaryDirectory(), temporaryDirectory()];
  await writeFile(join(container, "pids.max"), "1000\n");
  await writeFile(join(free, "pids.max"), "max\n");
  const parents = [container, free].map((path) => ({ path }));
  expect(await processesWithin(parents, 8192)).toBe(750);
  expect(await processesWithin(parents.slice(1), 8192)).toBe(8192);
});

it.runIf(isLimited)(
  "the engine ends the largest sandbox of the principal with most processes, and no more than necessary",
  async () => {
    const one = endLater(await startTestEngine({ limits: { allProcesses: 400 } }));
    const start = async (principal: string) => await TestSandbox.start(one, { principal });
    const [modest, small, large] = [await start("modest"), await start("greedy"), await start("greedy")];
    const fill = async (sandbox: TestSandbox, count: number) => {
      const name = `all-processes-${count}`;
      void sandbox
        .run(`for i in $(seq ${count}); do sleep 600 & done; exec -a ${name} sleep 600`)
        .catch(() => undefined);
      await expect.poll(() => findProcess(name)).toBeDefined();
      return findProcess(name)?.pid ?? 0;
    };
    await fill(modest, 40);
    const pid = await fill(large, 150);
    // In version 2, the group of a principal can be in between.
    const limits = ["..", "../.."].flatMap((parent) => valuesInGroups(pid, ["pids.max", "pids.max"], parent));
    expect(limits).toContain(400);
    await fill(small, 120);
    expect(await large.waitForEnd()).toMatchObject({
      exitCode: 137,
      reason: expect.stringContaining("processes"),
    });
    for (const sandbox of [modest, small])
      expect((await sandbox.run("echo unharmed")).stdout).toBe("unharmed");
  },
);
