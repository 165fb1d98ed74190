import { describe, expect, it } from "vitest";
import { owner, sh, until } from "../support.ts";

const sandbox = "stopping";

async function run(command: string, more: Record<string, unknown> = {}) {
  return owner.call("run_command", { sandbox, command, ...more });
}

/** The number of remaining processes with this command line. */
const countRemaining = async (line: string) =>
  Number(await sh(sandbox, `pgrep -fc '^${line}$' || true`, { session: "look" }));

describe.concurrent("a command that takes too long", () => {
  it("is stopped, and its output is kept", async () => {
    // A command's time limit includes the start of its sandbox, so this command starts the sandbox first.
    await run("true", { session: "prints" });
    const result = await run("echo before; echo err >&2; sleep 100; echo after", {
      timeout_seconds: 3,
      session: "prints",
    });
    expect(result.structured).toMatchObject({ state: "timed_out", stdout: "before\n", stderr: "err\n" });
    expect(result.isError).toBe(false);
    expect(result.text).toContain("state: timed_out");
    expect(result.text).toContain("Stopped after 3 s, with all its known processes. Raise timeout_seconds");
  });

  it.each([
    ["children and grandchildren", "sleep 3002 & bash -c 'bash -c \"sleep 3002\" & wait' & wait"],
    ["a process that left its group", "setsid sleep 3003 & setsid -w bash -c 'sleep 3003; :'"],
    ["a disowned process", "(setsid nohup sleep 3005 >/dev/null 2>&1 &) ; sleep 3005"],
    ["a process that ignores TERM", "trap '' TERM; bash -c 'trap \"\" TERM; while :; do sleep 3006; done'"],
    ["a process without variables", "env -i setsid sleep 3008 >/dev/null 2>&1 & sleep 3008"],
    [
      "a process without variables and without its parent",
      "(env -i setsid -f bash -c 'sleep 3009; :' >/dev/null 2>&1); sleep 3009",
    ],
    ["a stopped process", "sleep 3007 & kill -STOP $!; wait"],
  ])("is stopped together with %s", async (_what, command) => {
    const number = /sleep (30\d\d)/.exec(command)?.[1] ?? "";
    const { structured } = await run(command, { timeout_seconds: 1, session: `sleeps-${number}` });
    expect(structured).toMatchObject({ state: "timed_out" });
    await until(async () => (await countRemaining(`(bash -c .*)?sleep ${number}.*`)) === 0);
  });

  it("gets the signal once, so that it interrupts no clean-up", async () => {
    const counting = `import signal, time
counts = []
signal.signal(signal.SIGTERM, lambda *_: counts.append(1))
while not counts: time.sleep(0.01)
time.sleep(0.5)
print(len(counts))`;
    const command = `exec python3 -c '${counting}'`;
    expect((await run(command, { timeout_seconds: 3, session: "counts" })).structured).toMatchObject({
      state: "timed_out",
      stdout: "1\n",
    });
  });

  it("may clean up after itself", async () => {
    const command = "trap 'echo cleaned; exit 7' TERM; while :; do sleep 0.05; done";
    expect((await run(command, { timeout_seconds: 3, session: "cleans" })).structured).toMatchObject({
      state: "timed_out",
      exit_code: 7,
      stdout: "cleaned\n",
    });
  });

  it("does not block its session for the next command", async () => {
    await run("sleep 100", { timeout_seconds: 1, session: "tab" });
    expect((await run("echo next", { session: "tab" })).structured).toMatchObject({ stdout: "next\n" });
  });

  it("has a timeout that does not include its wait for an earlier command", async () => {
    const [, queued] = await Promise.all([
      run("sleep 3.5", { session: "line" }),
      run("sleep 0.2; echo done", { session: "line", timeout_seconds: 3 }),
    ]);
    expect(queued.structured).toMatchObject({ state: "succeeded", stdout: "done\n" });
  });
});

it("a command that replaces its output with a pipe still ends", async () => {
  const command =
    "file=/var/lib/sandbox-mcp/runs/$SANDBOX_MCP_RUN/stdout; rm -f $file; mkfifo $file; echo hi; sleep 0.1";
  expect((await run(command, { session: "pipe" })).structured).toMatchObject({ exit_code: 0 });
  expect((await run("echo next", { session: "pipe" })).structured).toMatchObject({ stdout: "next\n" });
});

describe("a command that kills", () => {
  it.each([
    ["its session's shell", "kill -9 $(ps -o ppid= -p $PPID); sleep 0.3; echo here", { exit_code: 0 }],
    [
      "its parent",
      "kill -9 $PPID; sleep 0.3; echo here",
      { exit_code: 137, notice: expect.stringContaining("exit status is unknown") },
    ],
  ])("%s is followed to its end", async (_what, command, end) => {
    const { structured } = await run(command, { session: "kills" });
    expect(structured).toMatchObject({ ...end, stdout: "here\n" });
    expect((await run("echo next", { session: "kills" })).structured).toMatchObject({
      state: "succeeded",
      stdout: "next\n",
    });
  });

  it("its parent is still stopped at its timeout", async () => {
    const result = await run("kill -9 $PPID; sleep 3010", { session: "kills", timeout_seconds: 2 });
    expect(result.structured).toMatchObject({ state: "timed_out" });
    await until(async () => (await countRemaining("sleep 3010")) === 0);
  });

  it("every shell has a result, and later calls work", async () => {
    const result = await run("pkill -9 -x sbx-sh; sleep 0.1; echo unreachable");
    expect(result.structured).toMatchObject({ state: "failed", exit_code: 137, stdout: "" });
    expect((await run("echo next")).structured).toMatchObject({ stdout: "next\n" });
    await run("pkill -9 -x sbx-sh");
    const written = await owner.call("write_file", { sandbox, path: "after", content: "a", append: true });
    expect(written.structured).toMatchObject({ size: 1 });
    await run("pkill -9 -x sbx-sh");
    expect((await owner.call("read_file", { sandbox, path: "after" })).structured.content).toBe("a");
  });

  it("every shell with SIGTERM has a result too, although its session's shell survives", async () => {
    const result = await run("pkill -TERM -x sbx-sh; sleep 0.1; echo unreachable");
    expect(result.structured).toMatchObject({ state: "failed", stdout: "" });
    expect([137, 143]).toContain(result.structured.exit_code);
    expect((await run("echo next")).structured).toMatchObject({ state: "succeeded", stdout: "next\n" });
  });
});
