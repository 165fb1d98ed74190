/** The model's API fails during a task. */
import { describe, expect, it } from "vitest";
import { TaskClient } from "../e2e/task-client.ts";
import type { Block, Reply } from "../setup/messages-api.ts";
import { playScenarios, say } from "../setup/scripted-agent.ts";
import { endLater } from "../setup/end-later.ts";
import { startServer } from "../setup/server.ts";
import { until } from "../setup/until.ts";

/** How often each fault has happened. */
const faults = { cut: 0, gone: 0, hang: 0 };

/** @returns `broken` for the first request of a fault, and `working` for later ones */
function failOnce(fault: keyof typeof faults, broken: Reply, working: Reply): Reply {
  return faults[fault]++ === 0 ? broken : working;
}

const input = { command: "echo once >> /workspace/once.txt", description: "appends" };
const blocks: Block[] = [{ type: "tool_use", name: "Bash", input }];
const append: Reply = { blocks };
const api = endLater(
  await playScenarios({
    cut: (_request, turn) =>
      turn === 0 ? failOnce("cut", { blocks, delayMs: 100, cutAfter: 3 }, append) : say("All is written."),
    gone: (_request, turn) => (turn === 0 ? failOnce("gone", "disconnect", append) : say("All is written.")),
    slow: [{ blocks: [{ type: "text", text: "one two three" }], delayMs: 1000 }],
    hang: () => {
      faults.hang++;
      return "hang";
    },
    write: [append, say("All is written.")],
  }),
);
const env = { ANTHROPIC_API_KEY: "sk-ant-real", ANTHROPIC_UPSTREAM_URL: api.url };
const server = endLater(await startServer({ env }));
const client = new TaskClient(server.url);

// Each test has its own sandbox.
describe.concurrent("when the model's API closes a connection early", () => {
  it("the agent retries after a break in the middle of a stream, and performs each instruction of the model once", async () => {
    const sandbox = "cut";
    const { fields } = await client.call("execute_task", { task: "[[cut]] Write", sandbox });
    expect(faults.cut).toBeGreaterThan(1);
    expect(fields).toMatchObject({ state: "succeeded", answer: "All is written." });
    expect(await client.sh(sandbox, "cat /workspace/once.txt")).toBe("once\n");
  });

  it("the agent retries after a break before the response, and performs each instruction of the model once", async () => {
    const sandbox = "gone";
    const { fields } = await client.call("execute_task", { task: "[[gone]] Write", sandbox });
    expect(faults.gone).toBeGreaterThan(1);
    expect(fields).toMatchObject({ state: "succeeded", answer: "All is written." });
    expect(await client.sh(sandbox, "cat /workspace/once.txt")).toBe("once\n");
  });
});

describe.concurrent("when the model's API is slow", () => {
  it("the task waits and succeeds", async () => {
    const { fields } = await client.call("execute_task", { task: "[[slow]] Say it" });
    expect(fields).toMatchObject({ state: "succeeded", answer: "one two three" });
  });

  it("the task and its processes end at the timeout if the API never responds, and the sandbox can be used", async () => {
    const sandbox = "hang";
    const hung = await client.call("execute_task", { task: "[[hang]] x", sandbox, timeout_seconds: 30 });
    expect(faults.hang).toBeGreaterThan(0);
    expect(hung.fields.state).toBe("timed_out");
    expect(hung.fields.note).toMatch(/did not finish within 30 s.*timeout_seconds/);
    // On a busy machine, a killed process takes a moment to disappear.
    await until(async () => (await client.sh(sandbox, "pgrep -x claude || echo none")) === "none\n");
    const next = await client.call("execute_task", { task: "[[write]] y", sandbox });
    expect(next.fields.state, next.text).toBe("succeeded");
  });
});

describe("when the model's API is down", () => {
  it("the task ends at its timeout or earlier and names the API as the reason, and commands work", async () => {
    await api.close();
    const sandbox = "down";
    const { fields } = await client.call("execute_task", {
      task: "[[write]] x",
      sandbox,
      timeout_seconds: 20,
    });
    expect(fields.state).toMatch(/^(failed|timed_out)$/);
    expect(fields.note).toMatch(/status 502, "The API cannot be reached from the server"/);
    expect(await client.sh(sandbox, "echo on")).toBe("on\n");
  });
});
