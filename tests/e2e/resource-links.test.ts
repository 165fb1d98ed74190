/** A result that links to a resource, and resources themselves, by every kind of client. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  Client as NewClient,
  StreamableHTTPClientTransport as NewTransport,
} from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { AGENT_CLIENTS } from "../setup/agent-clients.ts";
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

const requestInit = { headers: { authorization: `Bearer ${TOKEN}` } };
const info = { name: "e2e", version: "1" };

async function old() {
  const client = new Client(info);
  await client.connect(new StreamableHTTPClientTransport(new URL(server.url), { requestInit }));
  return client;
}

async function recent(mode: "legacy" | { pin: string }) {
  const client = new NewClient(info, { versionNegotiation: { mode } });
  await client.connect(new NewTransport(new URL(server.url), { requestInit }));
  return client;
}

describe.each([
  ["the SDK 1.x", old],
  ["the SDK 2.x in the 2025 era", () => recent("legacy")],
  ["the SDK 2.x in the 2026-07-28 era", () => recent({ pin: "2026-07-28" })],
] as const)("%s", (_name, connect) => {
  it("lists, reads and completes resources, and takes links to them", async () => {
    const client = await connect();
    const { resources } = await client.listResources();
    expect(resources.map(({ uri }) => uri)).toContain("sandbox://default/notes.txt");
    const { contents } = await client.readResource({ uri: "sandbox://default/notes.txt" });
    expect(contents).toEqual([
      { uri: "sandbox://default/notes.txt", mimeType: "text/plain", text: "hello\n" },
    ]);
    const { resourceTemplates } = await client.listResourceTemplates();
    expect(resourceTemplates).toHaveLength(2);
    const { completion } = await client.complete({
      ref: { type: "ref/resource", uri: "sandbox://{sandbox}/{+path}" },
      argument: { name: "path", value: "no" },
    });
    expect(completion.values).toEqual(["notes.txt"]);
    await expect(client.readResource({ uri: "sandbox://default/missing" })).rejects.toThrow(
      "There is no /workspace/missing",
    );
    const { content } = await client.callTool({ name: "read_file", arguments: { path: "b.zip" } });
    expect(content).toContainEqual(
      expect.objectContaining({ type: "resource_link", uri: "sandbox://default/b.zip" }),
    );
    await client.close();
  });
});
