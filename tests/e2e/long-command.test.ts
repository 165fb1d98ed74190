/**
 * Each client with its default time limits: a command that runs longer than a call may wait, and a result that links
 * to a file. If a client gives up, it has no id of the run, so its model runs the command again. All commands run at
 * the same time.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AGENT_CLIENTS, type Script } from "../clients/agent-clients.ts";
import { type Server, startServer, TOKEN } from "../setup/server.ts";
import { idIn } from "../setup/mcp-client.ts";
import { callTool, tool } from "../setup/tool.ts";

/** The tools' default and the longest wait that they accept, in seconds. */
const WAITS = [undefined, 50];

/**
 * All commands run in one sandbox, each in its own session. With a sandbox for each command, so many would start at once that the
 * calls would exceed the clients' limits.
 */
const CASES = Object.keys(AGENT_CLIENTS).flatMap((name, index) =>
  WAITS.map((wait_seconds) => ({
    name,
    wait_seconds,
    session: `c${index}-${wait_seconds ?? "default"}`,
    command: `echo begun; sleep 53; echo all over # ${name}, ${wait_seconds ?? "default"}`,
  })),
);
type Case = (typeof CASES)[number];

/** The results that one client's model saw, and the client's error if it gave up. */
interface Outcome {
  answers: string[];
  error?: unknown;
}

let server: Server;
const outcomes = new Map<string, Promise<Outcome>>();

beforeAll(async () => {
  server = await startServer();
  for (const one of CASES) outcomes.set(one.command, outcome(one));
});
afterAll(() => server?.stop());

async function outcome({ name, command, session, wait_seconds }: Case): Promise<Outcome> {
  const answers: string[] = [];
  const script: Script = (answer) => {
    if (answer !== undefined) answers.push(answer);
    if (answers.length > 9 || answer?.includes("all over")) return undefined;
    const wait = wait_seconds === undefined ? {} : { wait_seconds };
    if (answer?.includes("get_result"))
      return { name: "get_result", args: { id: idIn({ text: answer }), ...wait } };
    // A model without the run's id runs the command again.
    return { name: "run_command", args: { command, session, ...wait } };
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

describe.each(CASES)("$command", ({ command }) => {
  it("follows the command to its end, and runs it once", async () => {
    const { answers, error } = (await outcomes.get(command)) ?? { answers: [] };
    expect(error).toBeUndefined();
    expect(answers).toEqual([
      expect.stringMatching(/begun[^]*get_result/),
      expect.stringContaining("all over"),
    ]);
    const { structured } = await tool(server.url, "list_runs", { limit: 100 });
    const runs = structured.runs as { title: string; state: string }[];
    expect(runs.filter(({ title }) => title === command)).toMatchObject([{ state: "succeeded" }]);
  });
});
