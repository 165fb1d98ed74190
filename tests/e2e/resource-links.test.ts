/** A result that links to a resource, by every kind of client. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AGENT_CLIENTS } from "../clients/agent-clients.ts";
import { type Server, startServer, TOKEN } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";

let server: Server;

beforeAll(async () => {
  server = await startServer();
  const command = "printf 'PK\\003\\004\\000' >b.zip; echo hello >notes.txt";
  await callTool(server.url, "run_command", { command });
});
afterAll(() => server?.stop());

describe.each(Object.keys(AGENT_CLIENTS))("%s", (name) => {
  it("shows a model the URL in a result with a link", async () => {
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
