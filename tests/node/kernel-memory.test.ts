/** Kernel memory that no control group counts, but that the limit of memory for all sandboxes must include. */
import { randomInt } from "node:crypto";
import { statfsSync } from "node:fs";
import { expect, it } from "vitest";
import { countOf, findGroupParents, kernelMemoryOf, memoryOf } from "../../local/engine/limits.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { findProcess, groupsOf } from "../setup/processes.ts";

const isMemoryLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("memory"));

it.runIf(isMemoryLimited)(
  "directories in each other count with the memory for the lists of their entries",
  async () => {
    const sandbox = await TestSandbox.start(endLater(await startTestEngine()));
    const sleeper = `sleep 86400.${randomInt(1e9)}`;
    await sandbox.run(`setsid ${sleeper} >/dev/null 2>&1 &`);
    await expect.poll(() => findProcess(sleeper)).toBeDefined();
    const groups = groupsOf(findProcess(sleeper)?.pid);
    const measure = async () => ({
      memory: await countOf(groups, memoryOf),
      kernel: await countOf(groups, kernelMemoryOf),
    });
    const before = await measure();
    const nest = ["import os", "for _ in range(60_000): os.mkdir('one'); os.chdir('one')", "print('made')"];
    expect((await sandbox.python(nest)).stdout).toBe("made");
    const after = await measure();
    // Measured: 960 bytes of a directory are counted, and 286 are not.
    expect(after.memory - before.memory).toBeGreaterThan(1.2 * (after.kernel - before.kernel));
  },
);

/** ext4, which keeps the entries that a program has not read yet. */
const isExt4 = statfsSync("/usr/bin").type === 0xef53;

it.runIf(isExt4)(
  "the engine ends a sandbox whose many open directories fill the kernel's memory",
  async () => {
    const limits = { kernelGrowthOfMachine: 200 * 1024 * 1024 };
    const engine = endLater(await startTestEngine({ limits }));
    const [modest, reader] = [await TestSandbox.start(engine), await TestSandbox.start(engine)];
    const open = [
      "import ctypes, os, platform, time",
      "getdents = 217 if platform.machine() == 'x86_64' else 61",
      "libc, entries = ctypes.CDLL(None), ctypes.create_string_buffer(300)",
      "for _ in range(60):",
      "  reader, writer = os.pipe()",
      "  if os.fork() == 0:",
      "    for file in [os.open('/usr/bin', os.O_RDONLY) for _ in range(900)]: libc.syscall(getdents, file, entries, 300)",
      "    os.write(writer, b'x'); time.sleep(600)",
      "  os.read(reader, 1); os.close(reader); os.close(writer)",
      "time.sleep(600)",
    ];
    void reader.python(open).catch(() => undefined);
    expect((await reader.waitForEnd()).reason).toContain("many directories");
    expect((await modest.run("echo unharmed")).stdout).toBe("unharmed");
  },
);
