/** The model's API fails during a task. */
import { describe, expect, it } from "vitest";
import { TaskClient } from "../e2e/task-client.ts";
import type { Block, Reply } from "../setup/messages-api.ts";
import { playScenarios, say } from "../setup/scripted-agent.ts";
import { endLater } from "../setup/end-later.ts";
import { startServer } from "../setup/server.ts";
import { until } from "../setup/until.ts";

/** How often each scenario was asked for a reply to its first turn. */
const asked = { broken: 0, hang: 0 };

const input = { command: "echo once >> /workspace/once.txt", description: "appends" };
const blocks: Block[] = [{ type: "tool_use", name: "Bash", input }];
/** What the API does with requests for the first turn: a break before the response, one in the middle of it, then a slow response. */
const REPLIES: Reply[] = ["disconnect", { blocks, delayMs: 100, cutAfter: 3 }, { blocks, delayMs: 1000 }];
const api = endLater(
  await playScenarios({
    broken: (_request, turn) =>
      (turn === 0 && REPLIES[Math.min(asked.broken++, 2)]) || say("All is written."),
    hang: () => {
      asked.hang++;
      return "hang";
    },
    write: [{ blocks }, say("All is written.")],
  }),
);
const env = { ANTHROPIC_API_KEY: "sk-ant-real", ANTHROPIC_UPSTREAM_URL: api.url };
const server = endLater(await startServer({ env }));
const client = new TaskClient(server.url);

// Each test has its own sandbox.
describe.concurrent("when the model's API closes a connection early, or is slow", () => {
  it("the agent retries after breaks before and in the middle of a response, waits, and performs each instruction of the model once", async () => {
    const sandbox = "broken";
    const { fields } = await client.call("execute_task", { task: "[[broken]] Write", sandbox });
    expect(asked.broken).toBeGreaterThan(2);
    expect(fields).toMatchObject({ state: "succeeded", answer: "All is written." });
    expect(await client.sh(sandbox, "cat /workspace/once.txt")).toBe("once\n");
  });

  it("the task and its processes end at the timeout if the API never responds, and the sandbox can be used", async () => {
    const sandbox = "hang";
    const hung = await client.call("execute_task", { task: "[[hang]] x", sandbox, timeout_seconds: 30 });
    expect(asked.hang).toBeGreaterThan(0);
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
