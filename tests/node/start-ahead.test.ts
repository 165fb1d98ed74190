/** The sandbox that an engine starts before a call needs it: who gets it, when it is not used, and how it ends. */
import { existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { EngineOptions } from "../../local/engine/engine.ts";
import { identify, kill } from "../../local/engine/identity.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox, type TestEngine } from "../setup/engine-client.ts";
import { nextPrepared, whichCommand } from "../setup/start-ahead.ts";
import { tree } from "../setup/processes.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep, until } from "../setup/until.ts";

const start = async (options: Partial<EngineOptions> = {}) =>
  endLater(await startTestEngine({ prepareSandbox: true, ...options }));

const directoryOf = ({ runDir, engine }: TestEngine) => join(runDir, engine.boot);

/** A prepared sandbox that waits while the other tests run. */
const waiting = await nextPrepared(directoryOf(await start()));
const waitingSandboxd = () => tree(waiting.pid).find(({ command }) => command === "sbxd")?.pid;
const firstSandboxd = await until(waitingSandboxd);
const waitingSince = performance.now();

const markerOf = async (sandbox: TestSandbox) => (await sandbox.run(whichCommand)).stdout;

it("a prepared sandbox serves one start only, and parallel and later starts get others", async () => {
  const engine = await start();
  const ahead = await nextPrepared(directoryOf(engine));
  const sandboxes = await Promise.all(Array.from({ length: 3 }, () => TestSandbox.start(engine)));
  await sandboxes[0]?.run("echo mine >/workspace/file");
  await nextPrepared(directoryOf(engine), [ahead.name]);
  sandboxes.push(await TestSandbox.start(engine));
  const markers = await Promise.all(sandboxes.map(markerOf));
  expect(markers).toContain(ahead.which);
  expect(new Set(markers).size).toBe(4);
  for (const sandbox of sandboxes.slice(1)) expect((await sandbox.run("ls /workspace")).stdout).toBe("");
});

it("a prepared sandbox is not used for other variables, and variables reach only their own sandbox", async () => {
  const engine = await start();
  const { name, which } = await nextPrepared(directoryOf(engine));
  const withVariable = await TestSandbox.start(engine, { env: { GIVEN: "one" } });
  expect(await markerOf(withVariable)).not.toBe(which);
  expect((await withVariable.run("echo $GIVEN")).stdout).toBe("one");
  // The next prepared sandbox has the variables of the last start.
  const second = await nextPrepared(directoryOf(engine), [name]);
  const other = await TestSandbox.start(engine);
  expect(await markerOf(other)).not.toBe(second.which);
  expect((await other.run("env | grep -c GIVEN")).stdout).toBe("0");
});

it("a sandbox with a mounted directory does not use the prepared sandbox, which remains available", async () => {
  const from = temporaryDirectory();
  await writeFile(join(from, "file"), "of the host");
  const engine = await start({ directories: [{ name: "given", from, to: "/opt/given", isWritable: false }] });
  const { which } = await nextPrepared(directoryOf(engine));
  const withDirectory = await TestSandbox.start(engine, { name: "given" });
  expect((await withDirectory.run("cat /opt/given/file")).stdout).toBe("of the host");
  const other = await TestSandbox.start(engine, { name: "other" });
  expect(await markerOf(other)).toBe(which);
  expect((await other.run("ls /opt")).stdout).not.toContain("given");
});

it("a prepared sandbox gets the network and the host names of its actor", async () => {
  const engine = await start({ network: "none" });
  const { which } = await nextPrepared(directoryOf(engine));
  const intercepts = { http: ["models.example"], https: [] };
  const sandbox = await TestSandbox.start(engine, { enableInternet: false, intercepts });
  expect(await markerOf(sandbox)).toBe(which);
  expect((await sandbox.run("getent hosts models.example")).stdout).toContain("models.example");
  const refused = await sandbox.run("curl -s --max-time 20 http://elsewhere.example/");
  expect(refused.stdout).toContain("this sandbox has no internet access");
});

it("a prepared sandbox has a Python kernel, which its owner sees only as a process", async () => {
  const engine = await start();
  const { pid } = await nextPrepared(directoryOf(engine));
  await until(() => tree(pid).some(({ command }) => command.startsWith("python3")));
  const sandbox = await TestSandbox.start(engine);
  expect((await sandbox.run("pgrep -xc python3; ls -A ~ /workspace /tmp")).stdout).toBe(
    "1\n/root:\n\n/tmp:\n\n/workspace:",
  );
});

it("the engine starts sandboxes normally after a prepared sandbox was killed", async () => {
  const engine = await start();
  const ahead = await nextPrepared(directoryOf(engine));
  kill(identify(ahead.pid) ?? "");
  await until(() => !existsSync(join(directoryOf(engine), ahead.name)));
  const sandbox = await TestSandbox.start(engine);
  expect((await sandbox.run("echo works")).stdout).toBe("works");
  expect((await nextPrepared(directoryOf(engine), [ahead.name])).which).not.toBe(ahead.which);
});

it("a prepared sandbox that cannot start causes no error of its own, and the engine starts one when that is possible again", async () => {
  const shown = temporaryDirectory();
  await mkdir(join(shown, "tree"));
  const logged: string[] = [];
  const engine = await start({
    readOnly: [{ from: join(shown, "tree"), to: "/opt/tree" }],
    log: (line) => logged.push(line),
  });
  const { name } = await nextPrepared(directoryOf(engine));
  await rm(join(shown, "tree"), { recursive: true });
  // The caller gets the reason. The prepared sandbox that starts afterwards fails silently.
  await expect(TestSandbox.start(engine)).rejects.toThrow("Can't find source path");
  const loggedBefore = logged.length;
  await expect(TestSandbox.start(engine)).rejects.toThrow("Can't find source path");
  expect(logged.length).toBe(2 * loggedBefore);
  await mkdir(join(shown, "tree"), { mode: 0o755 });
  const sandbox = await TestSandbox.start(engine);
  expect((await sandbox.run("echo works")).stdout).toBe("works");
  await nextPrepared(directoryOf(engine), [name]);
});

it("a prepared sandbox keeps its sandboxd until it is used", async () => {
  // The first process kills a sandboxd that is silent for 15 s.
  await sleep(Math.max(0, waitingSince + 18_000 - performance.now()));
  expect(waitingSandboxd()).toBe(firstSandboxd);
});
