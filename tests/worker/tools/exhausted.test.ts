import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { idIn, owner, until } from "../support.ts";

const sandbox = "exhausted";

let id: string;
beforeAll(async () => {
  await owner.call("run_command", { sandbox, command: "echo old > file" });
  const holder = await owner.call("run_command", {
    sandbox,
    session: "holder",
    // Starts processes until none is free, and another one whenever a process ends.
    command: `exec python3 -c 'import os,time,signal
while True:
  try:
    if os.fork() == 0: signal.pause()
  except OSError: time.sleep(0.001)'`,
    wait_seconds: 1,
    timeout_seconds: 300,
  });
  id = idIn(holder);
  // A command in a new session starts a shell, which fails when no process is free.
  const runInFullSession = () => owner.call("run_command", { sandbox, command: "true", session: "full" });
  await until(async () => (await runInFullSession()).text.includes("out of processes"));
});
afterAll(async () => {
  await owner.call("destroy_sandbox", { sandbox });
});

describe.concurrent("a sandbox without free processes", () => {
  it.each([
    ["run_code", { code: "1" }],
    ["run_code", { code: "1", language: "javascript", context: "other" }],
    ["run_code", { code: "1", language: "typescript" }],
    ["run_command", { command: "echo hello", session: "new" }],
  ])("returns a result of %s %j that names this reason and the next step", async (name, args) => {
    const result = await owner.call(name, { sandbox, ...args });
    expect(result.text).toMatch(/out of processes or memory[^]*cancel_run[^]*destroy_sandbox/);
  });
});

it("a sandbox without free processes can still read and write files", async () => {
  const call = (name: string, args: object) => owner.call(name, { sandbox, ...args });
  expect((await call("write_file", { path: "more", content: "new" })).isError).toBe(false);
  expect((await call("write_file", { path: "more", content: "er", append: true })).isError).toBe(false);
  expect((await call("read_file", { path: "more" })).structured.content).toBe("newer");
  expect((await call("list_files", {})).text).toContain("more");
});

it("a command that starts no process runs in a session with a running shell, or its result names the reason", async () => {
  const { text } = await owner.call("run_command", { sandbox, command: "echo hello" });
  expect(text).toMatch(/hello|out of processes or memory/);
});

describe("the run that took all processes", () => {
  it("can be read and cancelled, or ends with its sandbox if no process can start", async () => {
    expect((await owner.call("get_result", { id, wait_seconds: 0 })).text).toContain("state: running");
    const cancelled = await owner.call("cancel_run", { id });
    expect(cancelled.text).toMatch(/state: (cancelled|lost[^]*out of processes[^]*destroy_sandbox)/);
    await owner.call("destroy_sandbox", { sandbox });
    const write = await owner.call("write_file", { sandbox, path: "file", content: "more", append: true });
    expect(write.structured).toMatchObject({ size: 4 });
    expect((await owner.call("run_code", { sandbox, code: "1 + 1" })).text).toContain("2");
  });
});

describe("a command with children that use all processes", () => {
  it("keeps its exit code", async () => {
    const full = "exhausted-behind";
    const content = `import os, time
while True:
    try:
        child = os.fork()
    except OSError:
        break
    if child == 0:
        end = time.time() + 20
        while time.time() < end:
            try:
                os.fork()
            except OSError:
                # There are hundreds of these processes, so one of them tries within a millisecond.
                time.sleep(0.2)
        os._exit(0)
os._exit(5)
`;
    await owner.call("write_file", { sandbox: full, path: "/tmp/take.py", content });
    const { structured } = await owner.call("run_command", {
      sandbox: full,
      command: "exec python3 /tmp/take.py",
    });
    const read = await owner.call("run_code", { sandbox: full, code: "1" });
    await owner.call("destroy_sandbox", { sandbox: full });
    expect(structured).toMatchObject({ state: "failed", exit_code: 5 });
    // Without a run to cancel, the only advice is to destroy the sandbox.
    // On a busy machine the children may end before the command. Then the code runs.
    const advised = /^result: 1$|out of processes or memory.*There is no run that.*Use destroy_sandbox/s;
    expect(read.text).toMatch(advised);
  });
});
