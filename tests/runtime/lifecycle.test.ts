import { existsSync, readdirSync, readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import {
  connectTo,
  failureOf,
  REMOTE_URL,
  startRuntime,
  type Runtime,
  type RuntimeOptions,
} from "./runtime.ts";

const running: Runtime[] = [];
afterEach(async () => {
  for (const runtime of running.splice(0)) await runtime.stop();
});

async function start(options?: RuntimeOptions): Promise<Runtime> {
  const runtime = await startRuntime(options);
  running.push(runtime);
  return runtime;
}

const alive = (mark: string): number =>
  readdirSync("/proc").filter((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, "latin1").includes(mark);
    } catch {
      return false;
    }
  }).length;

describe.skipIf(REMOTE_URL)("the runtime as a process", () => {
  it("ends on SIGTERM with 0, and everything it started with it", async () => {
    const runtime = await start();
    const mark = `lifecycle-${process.pid}`;
    const sleeper = `bash -c 'sleep 1000; : ${mark}'`;
    await runtime.api.commands.execute(`${sleeper} & setsid ${sleeper} &`, "s");
    void Promise.resolve(runtime.api.commands.execute(sleeper, "other")).catch(() => {});
    await expect.poll(() => alive(mark), { timeout: 10_000 }).toBeGreaterThanOrEqual(3);
    const child = runtime.local?.process;
    await runtime.stop();
    running.pop();
    expect(child?.exitCode).toBe(0);
    await expect.poll(() => alive(mark), { timeout: 10_000 }).toBe(0);
  });

  it("serves many connections and sessions at once without mixing them", async () => {
    const runtime = await start();
    const url = `ws+unix:${runtime.local?.socket}:/rpc`;
    const connections = await Promise.all(Array.from({ length: 5 }, () => connectTo(url)));
    const results = await Promise.all(
      Array.from({ length: 50 }, async (_, index) => {
        const { api } = connections[index % connections.length] ?? runtime;
        await api.commands.execute(`N=${index}`, `s${index}`);
        return (await api.commands.execute("sleep 0.01; echo $N", `s${index}`)).stdout;
      }),
    );
    expect(results).toEqual(Array.from({ length: 50 }, (_, index) => String(index)));
    for (const { close } of connections) close();
    expect((await runtime.api.commands.execute("echo $N", "s7")).stdout).toBe("7");
  });

  it("goes on when a client vanishes in the middle of a call", async () => {
    const runtime = await start();
    const client = await connectTo(`ws+unix:${runtime.local?.socket}:/rpc`);
    void Promise.resolve(client.api.commands.execute("sleep 0.2; A=finished", "t")).catch(() => {});
    client.close();
    expect((await runtime.api.commands.execute("echo $A", "t")).stdout).toBe("finished");
  });

  it("answers with a typed error when a session cannot be made", async () => {
    const { api } = await start({ args: () => ["--scratch", "/proc/nowhere"] });
    expect((await failureOf(api.commands.execute("true", "s"))).code).toBe("INTERNAL_ERROR");
    expect((await failureOf(api.utils.createSession({ id: "t" }))).code).toBe("INTERNAL_ERROR");
  });

  it("leaves the scratch directory it was given empty, and there: it may be a mount point", async () => {
    const { api, local } = await start();
    await api.commands.execute("A=1", "s");
    const scratch = `${local?.directory}/scratch`;
    expect(readdirSync(scratch)).not.toEqual([]);
    local?.process.kill("SIGTERM");
    await expect.poll(() => local?.process.exitCode, { timeout: 10_000 }).toBe(0);
    expect(readdirSync(scratch)).toEqual([]);
  });

  it("writes no more than one socket file, and removes it", async () => {
    const runtime = await start();
    const socket = runtime.local?.socket ?? "";
    expect(existsSync(socket)).toBe(true);
    await runtime.stop();
    running.pop();
    expect(existsSync(socket)).toBe(false);
  });
});

describe.skipIf(REMOTE_URL)("a full disk", () => {
  it("costs output but no control: the command that frees it runs", async () => {
    const { api, local } = await start({
      under: (directory) => {
        const disk = `${directory}/scratch`;
        return ["bwrap", "--dev-bind", "/", "/", "--die-with-parent", "--size", "1048576", "--tmpfs", disk];
      },
    });
    const disk = `${local?.directory}/scratch`;
    await api.commands.execute("A=kept", "s");
    const filled = await api.commands.execute(`dd if=/dev/zero of=${disk}/full bs=64k`, "s");
    expect(filled.exitCode).not.toBe(0);
    expect(await api.utils.ping()).toBe("healthy");
    expect((await api.commands.execute("echo lost", "s")).stdout).toBe("");
    // Longer than what goes to the shell without a file.
    await api.commands.execute(`rm ${disk}/full # ${"x".repeat(500)}`, "s");
    expect((await api.commands.execute("echo $A", "s")).stdout).toBe("kept");
  });
});
