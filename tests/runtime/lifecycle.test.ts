import { existsSync, readdirSync, readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import { connectTo, REMOTE_URL, startRuntime, type Runtime } from "./runtime.ts";

const running: Runtime[] = [];
afterEach(async () => {
  for (const runtime of running.splice(0)) await runtime.stop();
});

async function start(): Promise<Runtime> {
  const runtime = await startRuntime();
  running.push(runtime);
  return runtime;
}

/** What code prints in a context. */
async function run({ api }: Pick<Runtime, "api">, contextID: string, code: string): Promise<string> {
  let printed = "";
  await api.interpreter.runCodeStream(contextID, code, undefined, {
    onStdout: ({ text }) => void (printed += text),
  });
  return printed;
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
    const sleeper = JSON.stringify(["bash", "-c", `sleep 1000; : ${mark}`]);
    const { id } = await runtime.api.interpreter.createCodeContext({ language: "python" });
    const code = [
      "import subprocess",
      `subprocess.Popen(${sleeper})`,
      `subprocess.Popen(${sleeper}, start_new_session=True)`,
      `subprocess.run(${sleeper})`,
    ];
    void run(runtime, id, code.join("\n")).catch(() => {});
    await expect.poll(() => alive(mark), { timeout: 10_000 }).toBe(3);
    const child = runtime.local?.process;
    await runtime.stop();
    running.pop();
    expect(child?.exitCode).toBe(0);
    await expect.poll(() => alive(mark), { timeout: 10_000 }).toBe(0);
  });

  it("serves many connections and contexts at once without mixing them", async () => {
    const runtime = await start();
    const url = `ws+unix:${runtime.local?.socket}:/rpc`;
    const connections = await Promise.all(Array.from({ length: 3 }, () => connectTo(url)));
    const ids = await Promise.all(
      Array.from({ length: 4 }, async (_, index) => {
        const { id } = await runtime.api.interpreter.createCodeContext({ language: "javascript" });
        await run(runtime, id, `N = ${index}`);
        return id;
      }),
    );
    const asked = Array.from({ length: 40 }, (_, call) => call);
    const printed = await Promise.all(
      asked.map((call) => run(connections[call % 3] ?? runtime, ids[call % 4] ?? "", "console.log(N)")),
    );
    expect(printed).toEqual(asked.map((call) => `${call % 4}\n`));
    for (const { close } of connections) close();
    expect(await run(runtime, ids[3] ?? "", "console.log(N)")).toBe("3\n");
  });

  it("goes on when a client vanishes in the middle of a call", async () => {
    const runtime = await start();
    const client = await connectTo(`ws+unix:${runtime.local?.socket}:/rpc`);
    const { id } = await runtime.api.interpreter.createCodeContext({ language: "javascript" });
    const begun = `${runtime.workspace}/begun`;
    const code = `require('fs').writeFileSync('${begun}', ''); await new Promise((r) => setTimeout(r, 200)); A = 'finished'; 0`;
    void run(client, id, code).catch(() => {});
    await expect.poll(() => existsSync(begun), { timeout: 10_000 }).toBe(true);
    client.close();
    expect(await run(runtime, id, "console.log(A)")).toBe("finished\n");
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
