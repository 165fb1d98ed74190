import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  eventsOf,
  failureOf,
  readEvents,
  REMOTE_URL,
  startRuntime,
  type Event,
  type Runtime,
} from "./runtime.ts";

let runtime: Runtime;
let api: Runtime["api"];
let counter = 0;
const newID = (): string => `processes-${process.pid}-${++counter}`;

beforeAll(async () => {
  runtime = await startRuntime();
  api = runtime.api;
});
afterAll(() => runtime.stop());

const textOf = (events: Event[], type: string): string =>
  events
    .filter((event) => event.type === type)
    .map((event) => String(event.data))
    .join("");

/** How many processes in the sandbox carry this mark in their command line. */
async function countOf(mark: string): Promise<number> {
  const script = `n=0; for f in /proc/[0-9]*/cmdline; do grep -qa -- ${mark.slice(0, 4)}'${mark.slice(4)}' $f 2>/dev/null && n=$((n+1)); done; echo $n`;
  return Number((await api.commands.execute(script, newID())).stdout);
}

describe("executeStream", () => {
  it("streams start, output by lines, and the end with the exit code", async () => {
    const id = newID();
    const events = await eventsOf(
      await api.commands.executeStream("echo a; echo b >&2; printf c; exit 4", id),
    );
    expect(events[0]).toMatchObject({ type: "start", sessionId: id, pid: expect.any(Number) });
    expect(textOf(events, "stdout")).toBe("a\nc\n");
    expect(textOf(events, "stderr")).toBe("b\n");
    expect(events.at(-1)).toMatchObject({ type: "complete", exitCode: 4 });
  });

  it("names its events, as the SDK's parser may see them", async () => {
    const stream = await api.commands.executeStream("true", newID());
    const text = await new Response(stream).text();
    expect(text).toMatch(/^event: start\ndata: \{"type":"start",/);
    expect(text).toMatch(/\n\nevent: complete\ndata: .*\n\n$/);
  });

  it("starts from the session's state and changes nothing in it", async () => {
    const id = newID();
    await api.commands.execute(
      "cd /usr; export A='a b'; c=\"it's\"; hi() { echo hi $1; }; set -f; umask 077",
      id,
    );
    const command = 'pwd; echo "$A $c"; hi you; echo *; umask; cd /; A=changed';
    const events = await eventsOf(await api.commands.executeStream(command, id));
    expect(textOf(events, "stdout")).toBe("/usr\na b it's\nhi you\n*\n0077\n");
    expect((await api.commands.execute("pwd; echo $A", id)).stdout).toBe("/usr\na b");
  });

  it("takes a directory and variables of its own", async () => {
    const options = { cwd: "/usr", env: { A: "x y" } };
    const events = await eventsOf(await api.commands.executeStream('pwd; echo "$A"', newID(), options));
    expect(textOf(events, "stdout")).toBe("/usr\nx y\n");
  });

  it("delivers output while the command runs and does not block the session", async () => {
    const id = newID();
    const events = readEvents(await api.commands.executeStream("echo one; sleep 1000", id));
    await events.next();
    expect((await events.next()).value).toMatchObject({ type: "stdout", data: "one\n" });
    expect((await api.commands.execute("echo free", id)).stdout).toBe("free");
    await api.processes.killAllProcesses();
    expect((await events.next()).value).toMatchObject({ type: "complete", exitCode: 143 });
  });

  it("answers what cannot start with an error event", async () => {
    const events = await eventsOf(await api.commands.executeStream("  ", newID()));
    expect(events).toMatchObject([{ type: "error", error: "Invalid command: empty command provided" }]);
  });

  it.skipIf(REMOTE_URL)("makes a process wait for a reader that is slow, and loses nothing", async () => {
    const id = newID();
    const events = readEvents(await api.commands.executeStream("exec seq 1 5000000", id));
    const { value: start } = await events.next();
    // Nobody reads: the process gets so far and then stands still.
    const written = async (): Promise<string> =>
      (await api.commands.execute(`grep -E 'wchar' /proc/${start?.pid}/io || echo ended`, id)).stdout;
    let last = "";
    await expect
      .poll(
        async () => {
          const now = await written();
          const still = now === last;
          last = now;
          return still;
        },
        { interval: 300, timeout: 20_000 },
      )
      .toBe(true);
    expect(last).not.toBe("ended");
    let length = 0;
    let tail = "";
    for await (const event of events) {
      if (event.type !== "stdout") continue;
      length += String(event.data).length;
      tail = String(event.data);
    }
    expect(length).toBe(38_888_896);
    expect(tail.endsWith("5000000\n")).toBe(true);
  });
});

describe("processes", () => {
  it("are started, described, listed and remembered", async () => {
    const processId = newID();
    const started = await api.processes.startProcess("echo out; echo err >&2; exit 2", newID(), {
      processId,
    });
    expect(started).toMatchObject({ success: true, processId, pid: expect.any(Number) });
    const exit = (await eventsOf(await api.processes.streamProcessLogs(processId))).at(-1);
    expect(exit).toMatchObject({ type: "exit", exitCode: 2, processId });
    const { process: info } = await api.processes.getProcess(processId);
    expect(info).toMatchObject({ id: processId, status: "failed", exitCode: 2, pid: started.pid });
    expect(new Date(info.startTime).getTime()).toBeGreaterThan(0);
    expect(await api.processes.getProcessLogs(processId)).toMatchObject({ stdout: "out\n", stderr: "err\n" });
    const { processes } = await api.processes.listProcesses();
    expect(processes.map(({ id }) => id)).toContain(processId);
  });

  it("replay their log as one event per stream, then go on live", async () => {
    const gate = `/tmp/${newID()}`;
    const { processId } = await api.processes.startProcess(
      `mkfifo ${gate}; echo 1; echo 2; echo e >&2; echo ready; read x < ${gate}; rm ${gate}; echo $x`,
      newID(),
    );
    for await (const event of readEvents(await api.processes.streamProcessLogs(processId))) {
      if (String(event.data).includes("ready")) break;
    }
    const events = readEvents(await api.processes.streamProcessLogs(processId));
    expect((await events.next()).value).toMatchObject({ type: "stdout", data: "1\n2\nready\n" });
    expect((await events.next()).value).toMatchObject({ type: "stderr", data: "e\n" });
    await api.commands.execute(`echo live > ${gate}`, newID());
    expect((await events.next()).value).toMatchObject({ type: "stdout", data: "live\n", processId });
    expect((await events.next()).value).toMatchObject({ type: "exit", exitCode: 0 });
  });

  it("are killed with their whole tree, whatever group it moved to", async () => {
    const mark = `mark${newID()}`;
    const tree = `setsid bash -c 'trap "" TERM; sleep 1000; : ${mark}' & bash -c 'sleep 1000; : ${mark}' & sleep 1000; : ${mark}`;
    const { processId } = await api.processes.startProcess(tree, newID());
    await expect.poll(() => countOf(mark), { timeout: 20_000 }).toBeGreaterThanOrEqual(2);
    await api.processes.killProcess(processId);
    expect(await countOf(mark)).toBe(0);
    const { process: info } = await api.processes.getProcess(processId);
    expect(info.status).toBe("killed");
    expect([137, 143]).toContain(info.exitCode);
  });

  it("are all killed at once, and counted", async () => {
    const id = newID();
    await api.processes.killAllProcesses();
    await Promise.all([1, 2, 3].map(() => api.processes.startProcess("sleep 1000", id)));
    expect(await api.processes.killAllProcesses()).toMatchObject({ cleanedCount: 3 });
    expect(await api.processes.killAllProcesses()).toMatchObject({ cleanedCount: 0 });
  });

  it("outlive the shell they were started from", async () => {
    const id = newID();
    const { processId } = await api.processes.startProcess("sleep 1000", id);
    await failureOf(api.commands.execute("exit", id));
    expect((await api.processes.getProcess(processId)).process.status).toBe("running");
    await api.processes.killProcess(processId);
  });

  it("are refused with the container's codes", async () => {
    expect(await failureOf(api.processes.getProcess("nobody"))).toMatchObject({
      code: "PROCESS_NOT_FOUND",
      details: { processId: "nobody" },
    });
    expect((await failureOf(api.processes.streamProcessLogs("nobody"))).code).toBe("PROCESS_NOT_FOUND");
    expect((await failureOf(api.processes.startProcess("", newID()))).code).toBe("INVALID_COMMAND");
    const { processId } = await api.processes.startProcess("true", newID());
    await eventsOf(await api.processes.streamProcessLogs(processId));
    expect((await failureOf(api.processes.killProcess(processId))).code).toBe("COMMAND_NOT_FOUND");
  });

  it.skipIf(REMOTE_URL)("are over when they exit, even if a child keeps their output open", async () => {
    const { processId } = await api.processes.startProcess("sleep 1000 & echo started", newID());
    const events = await eventsOf(await api.processes.streamProcessLogs(processId));
    expect(textOf(events, "stdout")).toBe("started\n");
    expect(events.at(-1)).toMatchObject({ type: "exit", exitCode: 0 });
  });

  it.skipIf(REMOTE_URL)("keep a bounded log of an endless output that nobody reads", async () => {
    const { processId } = await api.processes.startProcess("seq 1 4000000", newID());
    await expect
      .poll(async () => (await api.processes.getProcess(processId)).process.status, { timeout: 30_000 })
      .toBe("completed");
    const { stdout } = await api.processes.getProcessLogs(processId);
    expect(stdout.length).toBeLessThan(17 * 1024 * 1024);
    expect(stdout.endsWith("4000000\n")).toBe(true);
    expect(stdout.startsWith("[the oldest output was dropped")).toBe(true);
  });
});
