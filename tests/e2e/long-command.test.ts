/**
 * Each real client, with its default time limits, reads a result that links to a file, and runs a command for longer than a call
 * may wait. A client that gives up on the call never gets the run's id, so its model would run the command again.
 */
import { beforeAll, describe, expect, inject, it } from "vitest";
import { AGENT_CLIENTS, type Script } from "../clients/agent-clients.ts";
import { TOKEN } from "../setup/server.ts";
import { idIn } from "../setup/mcp-client.ts";
import { callTool, tool } from "../setup/tool.ts";

/**
 * Each client waits as long as the tools accept; one client is also tested with the default wait. All commands run in one sandbox,
 * each in its own session: if every command started a sandbox, the calls would take longer than the clients' limits.
 */
const CASES = [
  ...Object.keys(AGENT_CLIENTS).map((name) => ({ name, wait: { wait_seconds: 50 } })),
  { name: "the SDK 1.x", wait: { wait_seconds: undefined } },
].map(({ name, wait }, index) => ({
  name,
  wait,
  session: `long${index}`,
  command: `echo begun; sleep 53; echo all over # ${name}, ${wait.wait_seconds ?? "default"}`,
}));
type Case = (typeof CASES)[number];

const { url } = inject("server");
const sandbox = "long-commands";

/** The results that each client's model saw. */
const outcomes = new Map<string, Promise<string[]>>();

beforeAll(async () => {
  await callTool(url, "run_command", { sandbox, command: "printf 'PK\\003\\004\\000' >b.zip" });
  for (const one of CASES) {
    const seen = outcome(one);
    // The test awaits the promise and reports the error. This only prevents an unhandled rejection.
    seen.catch(() => undefined);
    outcomes.set(one.command, seen);
  }
});

/** @throws Error if the client gave up */
async function outcome({ name, command, session, wait }: Case): Promise<string[]> {
  const answers: string[] = [];
  const script: Script = (answer) => {
    if (answer === undefined) return { name: "read_file", args: { path: "b.zip", sandbox } };
    answers.push(answer);
    if (answers.length > 9 || answer.includes("all over")) return undefined;
    if (answer.includes("get_result"))
      return { name: "get_result", args: { id: idIn({ text: answer }), ...wait } };
    // A model without the run's id runs the command again.
    return { name: "run_command", args: { command, session, sandbox, ...wait } };
  };
  await AGENT_CLIENTS[name]?.({ url, token: TOKEN }, script);
  return answers;
}

describe.each(CASES)("$command", ({ command }) => {
  it("shows its model the URL of a linked file, follows the command to its end, and runs it once", async () => {
    const [file = "", ...answers] = (await outcomes.get(command)) ?? [];
    expect(answers).toEqual([
      expect.stringMatching(/begun[^]*get_result/),
      expect.stringContaining("all over"),
    ]);
    const [link = ""] = /http:[^\s\]"\\]+\/files\/[\w.-]+/.exec(file) ?? [];
    const response = await fetch(link);
    expect([response.status, await response.text()]).toEqual([200, "PK\u0003\u0004\0"]);
    const { structured } = await tool(url, "list_runs", { sandbox, limit: 100 });
    const runs = structured.runs as { title: string; state: string }[];
    expect(runs.filter(({ title }) => title === command)).toMatchObject([{ state: "succeeded" }]);
  });
});
