/** A command in a terminal, as the clients of both SDKs use it against the server that `npm start` started. */
import {
  Client as NewClient,
  StreamableHTTPClientTransport as NewTransport,
} from "@modelcontextprotocol/client";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { idIn } from "../setup/mcp-client.ts";
import { type Server, startServer, TOKEN } from "../setup/server.ts";

const requestInit = { headers: { authorization: `Bearer ${TOKEN}` } };
const INFO = { name: "test", version: "1" };

const CLIENTS = {
  "the SDK's client": async (url: URL) => {
    const client = new Client(INFO);
    await client.connect(new StreamableHTTPClientTransport(url, { requestInit }));
    return client;
  },
  "the new SDK's client": async (url: URL) => {
    const client = new NewClient(INFO);
    await client.connect(new NewTransport(url, { requestInit }));
    return client;
  },
};

let server: Server;

beforeAll(async () => {
  server = await startServer();
});
afterAll(() => server?.stop());

describe.each(Object.entries(CLIENTS))("%s", (name, connect) => {
  it("answers what an installer asks, and computes in a REPL", async () => {
    const client = await connect(new URL(server.url));
    const sandbox = name.startsWith("the new") ? "new" : "old";
    const call = async (tool: string, args: Record<string, unknown>): Promise<string> => {
      const { content } = (await client.callTool({ name: tool, arguments: args })) as {
        content: { text?: string }[];
      };
      return content.map(({ text }) => text ?? "").join("\n");
    };
    const installer = await call("run_command", {
      sandbox,
      interactive: true,
      command:
        'read -p "Install? [y/n] " a; read -rsp "Key: " k; echo; [[ $a$k == yhush-hush ]] && echo installed',
    });
    expect(installer).toContain("Install? [y/n]");
    const id = idIn({ text: installer });
    expect(await call("send_input", { id, text: "y\n" })).toContain("Key:");
    const done = await call("send_input", { id, text: "hush-hush\n" });
    expect(done).toMatch(/state: succeeded[^]*installed/);
    expect(done).not.toContain("hush");

    const python = await call("run_command", { sandbox, interactive: true, command: "python3 -q" });
    const repl = idIn({ text: python });
    expect(await call("send_input", { id: repl, text: "6 * 7\n" })).toMatch(/\n42\n/);
    expect(await call("send_input", { id: repl, text: "\u0004" })).toContain("state: succeeded");
    await client.close();
    expect(server.stdout() + server.stderr()).not.toContain("hush");
  });
});
