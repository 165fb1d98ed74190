/** A process of the server is killed during a command and code. */
import { describe, expect, it } from "vitest";
import { waitForEnd } from "../setup/processes.ts";
import { endLater } from "../setup/end-later.ts";
import { idIn } from "../setup/mcp-client.ts";
import { sleep, until } from "../setup/until.ts";
import { sleepersIn, START_SLEEPERS, startFaultServer } from "./support.ts";

/** Prints ten increasing numbers a second. */
const COUNTING = "for ((i = 0; i < 3000; i++)); do echo $i; sleep 0.1; done";
const COUNTING_CODE = "import time\nfor i in range(3000):\n    print(i, flush=True)\n    time.sleep(0.1)";

/** The error of a call if its sandbox stopped. */
const GONE =
  /stopped during (this call|this run|its run)|The sandbox could not be started now|state: lost\nnote: The sandbox stopped before it began/;

const server = endLater(await startFaultServer());

/** Starts a command and code that print for minutes, after a command that has ended. @returns their ids */
async function startRuns(sandbox: string) {
  const ended = await server.call("run_command", { sandbox, command: "echo kept" });
  const command = await server.call("run_command", {
    sandbox,
    command: COUNTING,
    wait_seconds: 0,
    timeout_seconds: 600,
  });
  const code = await server.call("run_code", {
    sandbox,
    code: COUNTING_CODE,
    wait_seconds: 0,
    timeout_seconds: 600,
  });
  const ids = { command: idIn(command), code: idIn(code), ended: String(ended.structured.id) };
  for (const id of [ids.command, ids.code])
    await until(async () =>
      /\n12\n/.test((await server.call("get_result", { id, cursor: 0, wait_seconds: 0 })).text),
    );
  return ids;
}

/** The numbers in a run's log. They must count up from 0, without a repeated or missing one. */
async function countOutput(id: string): Promise<number> {
  const { text } = await server.call("get_result", { id, cursor: 0, wait_seconds: 0 });
  const numbers = text.slice(text.indexOf("[stdout]")).match(/^\d+$/gm) ?? [];
  expect(numbers).toEqual(numbers.map((_, index) => String(index)));
  return numbers.length;
}

describe.concurrent("when a sandbox is killed during a command and code", () => {
  it("its runs are lost within seconds but keep their output, and the next call and other sandboxes work", async () => {
    await server.sh("echo mine > file", { sandbox: "other" });
    await server.call("run_code", { sandbox: "other", code: "x = 1" });
    const ids = await startRuns("victim");
    const other = await server.call("run_command", {
      sandbox: "other",
      command: "sleep 8; echo done",
      wait_seconds: 0,
    });
    const runs = [
      { id: ids.command, countBefore: await countOutput(ids.command) },
      { id: ids.code, countBefore: await countOutput(ids.code) },
    ];
    process.kill(await server.firstPID("victim"), "SIGKILL");
    for (const { id, countBefore } of runs) {
      const { text } = await server.call("get_result", { id, wait_seconds: 20 });
      expect(text).toContain("state: lost");
      expect(text).toMatch(/stopped during (this call|this run|its run)/);
      expect(countBefore).toBeGreaterThan(0);
      expect(await countOutput(id)).toBeGreaterThanOrEqual(countBefore);
    }
    const next = await server.call("run_command", { sandbox: "victim", command: "ls -A; echo works" });
    expect(next.structured).toMatchObject({ state: "succeeded", stdout: "works\n" });
    expect(next.text).toContain("The sandbox was restarted");
    expect((await server.call("get_result", { id: idIn(other), wait_seconds: 30 })).text).toContain("done");
    expect(await server.sh("cat file", { sandbox: "other" })).toBe("mine\n");
    expect((await server.call("run_code", { sandbox: "other", code: "x" })).text).toContain("result: 1");
  });

  it("every other call returns its result, or an error that gives the reason", async () => {
    const sandbox = "calls";
    await server.sh("mkdir -p d && touch d/{1..2000} && head -c 3000000 /dev/zero > big", { sandbox });
    const calls: [string, Record<string, unknown>][] = [
      ["run_command", { command: "touch command; sleep 30" }],
      ["run_code", { code: "open('code', 'w'); import time; time.sleep(30)" }],
      ["write_file", { path: "out", content: "x".repeat(2_000_000) }],
      ["read_file", { path: "big", encoding: "base64" }],
      ["list_files", { path: "d" }],
    ];
    const first = await server.firstPID(sandbox);
    const begin = ([name, args]: (typeof calls)[number]) => server.call(name, { sandbox, ...args });
    const answers = calls.slice(0, 2).map(begin);
    // Waits until both runs have started, because a run that starts later would use the next sandbox.
    await until(async () =>
      (await server.sh("ls", { sandbox, session: "look" })).includes("code\ncommand\n"),
    );
    answers.push(...calls.slice(2).map(begin));
    await sleep(20);
    process.kill(first, "SIGKILL");
    const texts: string[] = [];
    for (const [index, { status, isError, text }] of (await Promise.all(answers)).entries()) {
      const [name = ""] = calls[index] ?? [];
      expect({ name, status }).toEqual({ name, status: 200 });
      texts.push(text);
      // A run of half a minute cannot have ended. The server repeats the read in the next sandbox, which has no such
      // file.
      const expected = /^(read|list)_/.test(name)
        ? new RegExp(`${GONE.source}|There is no /workspace/`)
        : GONE;
      if (isError || name.startsWith("run_")) expect(text, name).toMatch(expected);
    }
    const next = await server.call("run_command", { sandbox, command: "echo works" });
    expect(next.structured).toMatchObject({ state: "succeeded", stdout: "works\n" });
    expect([...texts, next.text].join("\n")).toContain("The sandbox was restarted");
  });
});

describe("when workerd is killed during a command and code", () => {
  const sandbox = "workerd";

  it("the server starts it again at the same address, the command continues, and only the code is lost", async () => {
    const ids = await startRuns(sandbox);
    await server.sh(`${START_SLEEPERS} echo unsaved >file`, { sandbox, session: "sleepers" });
    const countBefore = await countOutput(ids.command);
    const killed = server.pid("workerd");
    process.kill(killed, "SIGKILL");
    await until(() => server.server.stderr().includes("workerd stopped unexpectedly, and was started again"));
    expect(server.pid("workerd")).not.toBe(killed);
    expect(await server.sh("cat file", { sandbox, session: "sleepers" })).toBe("unsaved\n");
    expect(sleepersIn(server.all())).toHaveLength(3);
    await until(async () => (await countOutput(ids.command)) > countBefore + 50);
    // The server first frees the kernel.
    const { text } = await server.call("get_result", { id: ids.code });
    expect(text).toContain("state: lost");
    expect(text).toContain("The server was restarted while the code ran");
    expect((await server.call("cancel_run", { id: ids.command })).text).toContain("state: cancelled");
    await server.call("destroy_sandbox", { sandbox });
  });

  it("too often, the server prints why and ends", async () => {
    let hasEnded = false;
    void server.server.exited.then(() => (hasEnded = true));
    const countRestarts = () => server.server.stderr().split("was started again").length;
    while (!hasEnded) {
      const before = countRestarts();
      process.kill(server.pid("workerd"), "SIGKILL");
      await until(() => hasEnded || countRestarts() > before);
    }
    expect(await server.server.exited).toBe(1);
    expect(server.server.stderr()).toMatch(/workerd stopped unexpectedly too often/);
    await server.restart();
  });
});

describe("when the engine is killed during a command and code", () => {
  it("the server prints why and ends all its processes, and after its restart the runs are lost, with all output except that of the last second", async () => {
    const sandbox = "engine";
    const ids = await startRuns(sandbox);
    const countsBefore = {
      command: await countOutput(ids.command),
      code: await countOutput(ids.code),
    };
    await server.sh(START_SLEEPERS, { sandbox, session: "sleepers" });
    // Output from more than a second before the kill is kept.
    await sleep(1500);
    const all = server.all();
    expect(sleepersIn(all)).toHaveLength(3);
    process.kill(server.pid("engine"), "SIGKILL");
    expect(await waitForEnd(all)).toEqual([]);
    expect(await server.server.exited).toBe(1);
    expect(server.server.stderr()).toMatch(/The sandbox engine stopped unexpectedly \(SIGKILL\)/);

    await server.restart();
    for (const kind of ["command", "code"] as const) {
      const { text } = await server.call("get_result", { id: ids[kind], wait_seconds: 0 });
      expect(text).toContain("state: lost");
      expect(text).toMatch(/stopped while the server was down/);
      expect(await countOutput(ids[kind])).toBeGreaterThanOrEqual(countsBefore[kind]);
    }
    expect((await server.call("get_result", { id: ids.ended, cursor: 0 })).text).toContain("kept");
    const { structured } = await server.call("list_runs", { sandbox });
    expect((structured.runs as { state: string }[]).map(({ state }) => state)).toEqual([
      "succeeded",
      "lost",
      "lost",
      "succeeded",
    ]);
    // The next call works in a fresh sandbox, and its result says that the sandbox is fresh.
    const next = await server.call("run_command", { sandbox, command: "echo works" });
    expect(next.structured).toMatchObject({ state: "succeeded", stdout: "works\n" });
    expect(next.text).toMatch(/processes, variables and any later changes are gone/i);
  });
});
