/**
 * Each client with its default time limits: a command that takes longer than one call waits, and a result that links
 * to a file. If a client gives up, it has no id of the run, so its model runs the command again. All commands run at
 * the same time.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AGENT_CLIENTS, type Script } from "../clients/agent-clients.ts";
import { type Server, startServer, TOKEN } from "../setup/server.ts";
import { idIn } from "../setup/mcp-client.ts";
import { callTool, tool } from "../setup/tool.ts";

const COMMAND = "echo begun; sleep 53; echo all over";

/** The tools' default and the longest wait that they accept, in seconds. */
const WAITS = [undefined, 50];

const CASES = Object.keys(AGENT_CLIENTS).flatMap((name, index) =>
  WAITS.map((wait_seconds) => ({ name, wait_seconds, sandbox: `c${index}-${wait_seconds ?? "default"}` })),
);

/** The results that one client's model saw, and the client's error if it gave up. */
interface Outcome {
  answers: string[];
  error?: unknown;
}

let server: Server;
const outcomes = new Map<string, Promise<Outcome>>();

beforeAll(async () => {
  server = await startServer();
  for (const { name, sandbox, wait_seconds } of CASES)
    outcomes.set(sandbox, outcome(name, sandbox, wait_seconds));
});
afterAll(() => server?.stop());

async function outcome(name: string, sandbox: string, wait_seconds: number | undefined): Promise<Outcome> {
  const answers: string[] = [];
  const script: Script = (answer) => {
    if (answer !== undefined) answers.push(answer);
    if (answers.length > 9 || answer?.includes("all over")) return undefined;
    const wait = wait_seconds === undefined ? {} : { wait_seconds };
    if (answer?.includes("get_result"))
      return { name: "get_result", args: { id: idIn({ text: answer }), ...wait } };
    // A model without the run's id runs the command again.
    return { name: "run_command", args: { command: COMMAND, sandbox, ...wait } };
  };
  try {
    await AGENT_CLIENTS[name]?.({ url: server.url, token: TOKEN }, script);
    return { answers };
  } catch (error) {
    return { answers, error };
  }
}

// These tests run while the long commands are in progress.
describe.each(Object.keys(AGENT_CLIENTS))("%s", (name) => {
  it("shows its model the URL of a linked file", async () => {
    await callTool(server.url, "run_command", { command: "printf 'PK\\003\\004\\000' >b.zip" });
    const answers: string[] = [];
    await AGENT_CLIENTS[name]?.({ url: server.url, token: TOKEN }, (answer) => {
      if (answer !== undefined) answers.push(answer);
      return answers.length === 0 ? { name: "read_file", args: { path: "b.zip" } } : undefined;
    });
    const [url = ""] = /http:[^\s\]"\\]+\/files\/[\w.-]+/.exec(answers[0] ?? "") ?? [];
    const response = await fetch(url);
    expect([response.status, await response.text()]).toEqual([200, "PK\u0003\u0004\0"]);
  });
});

describe.each(CASES)("$name, in sandbox $sandbox", ({ sandbox }) => {
  it("follows the command to its end, and runs it once", async () => {
    const { answers, error } = (await outcomes.get(sandbox)) ?? { answers: [] };
    expect(error).toBeUndefined();
    expect(answers).toHaveLength(2);
    expect(answers[0]).toMatch(/begun[^]*get_result/);
    expect(answers[1]).toContain("all over");
    const { structured } = await tool(server.url, "list_runs", { sandbox });
    expect(structured.runs).toMatchObject([{ title: COMMAND, state: "succeeded" }]);
  });
});
