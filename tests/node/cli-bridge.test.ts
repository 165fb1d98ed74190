/** The bridge of `sandbox-mcp stdio`, and the client library: servers that refuse a token, redirect, or never end a response. */
import type { RequestListener, ServerResponse } from "node:http";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { JSONRPCMessage } from "@modelcontextprotocol/client";
import { expect, it } from "vitest";
import { connect, type Sandbox } from "../../client/index.ts";
import { Bridge } from "../../cli/bridge.ts";
import { type ServerAddress, VARIABLES_FILE } from "../../cli/server-address.ts";
import { identify } from "../../local/engine/identity.ts";
import { runCLI, runHere } from "../setup/cli.ts";
import { serve } from "../setup/serve.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const PING = { jsonrpc: "2.0", id: 1, method: "ping" } as const;
const JSON_TYPE = { "content-type": "application/json" };
const INITIALIZED = {
  protocolVersion: "2025-11-25",
  capabilities: { tools: {} },
  serverInfo: { name: "a server", version: "1" },
};

/** @returns the URL of a server with these responses */
const serverWith = (respond: RequestListener) => serve(respond, "/mcp");

const BROKEN = { name: "ConnectionError" };
const WRONG_FORM = { code: "wrong_address" };
const TOO_LARGE = { code: "too_large" };

const sandboxAt = (url: string) => connect({ url, token: "any" }).sandbox();

/** A bridge, and its messages to the client. */
function startBridge(address: () => Partial<ServerAddress>, isCurrent?: (address: ServerAddress) => boolean) {
  const sent: JSONRPCMessage[] = [];
  const bridge = new Bridge({
    locate: async () => ({ url: "", token: "any", tokenSource: "any", isLocal: true, ...address() }),
    isCurrent,
    // As for a client, a message must have a form as JSON.
    send: async (message) => void sent.push(JSON.parse(JSON.stringify(message))),
    log: () => undefined,
  });
  const forward = (message: JSONRPCMessage = PING) => {
    bridge.forward(message);
    return bridge.waitUntilSettled();
  };
  return { sent, forward };
}

async function messagesOfBridge(url: string): Promise<JSONRPCMessage[]> {
  const { forward, sent } = startBridge(() => ({ url }));
  await forward();
  return sent;
}

/** @returns the URL of a server that responds like this to requests about files and, with an event stream, to calls of tools */
const serverOfTools = (respond: (response: ServerResponse) => void) =>
  serverWith(async (request, response) => {
    if (request.url?.startsWith("/mcp") !== true) return respond(response);
    if (request.method !== "POST") return response.writeHead(405).end();
    const call = JSON.parse(Buffer.concat(await request.toArray()).toString());
    if (call.id === undefined) return response.writeHead(202).end();
    if (call.method === "initialize")
      return response
        .writeHead(200, JSON_TYPE)
        .end(JSON.stringify({ jsonrpc: "2.0", id: call.id, result: INITIALIZED }));
    respond(response.writeHead(200, { "content-type": "text/event-stream" }));
  });

/** Sends this text without end. */
function sendWithoutEnd(response: ServerResponse, text: string): void {
  const mebibyte = Buffer.alloc(1024 * 1024, text);
  const send = () => void (response.destroyed || (response.write(mebibyte) ? setImmediate(send) : undefined));
  response.on("drain", send);
  send();
}

/** The server claims that its response is a file. */
const AS_FILE = { ...JSON_TYPE, "content-disposition": "attachment" };

it("the bridge, the client and diagnose refuse a response that never ends", async () => {
  const url = await serverWith((_request, response) => sendWithoutEnd(response.writeHead(200, AS_FILE), " "));
  expect(JSON.stringify(await messagesOfBridge(url))).toContain(
    "The server's response is larger than 64 MiB.",
  );
  await expect(sandboxAt(url).files.write("a", "b")).rejects.toThrow("64 MiB");
  const words = ["diagnose", "--output", "-", "--url", url, "--token", "any-token"];
  const { stdout } = await runCLI([...words, "--state-dir", temporaryDirectory()]);
  expect(JSON.parse(stdout)).toMatchObject({ server: { error: expect.stringContaining("64 MiB") } });
});

it("the client refuses a list with an endless number of pages", async () => {
  const entries = Array.from({ length: 20_000 }, () => ({ name: "a" }));
  const page = JSON.stringify({ entries, next_cursor: "again" });
  const url = await serverWith((_request, response) => response.end(page));
  const error = { code: "too_large", message: expect.stringContaining("/tmp") };
  await expect(sandboxAt(url).files.list("/tmp")).rejects.toMatchObject(error);
});

const command = (sandbox: Sandbox): Promise<unknown> => sandbox.runCommand("true");

it.each<[string, typeof command, Parameters<typeof serverOfTools>[0], object]>([
  ["ends before its event", command, (response) => response.end(": nothing\n\n"), BROKEN],
  [
    "breaks in a file",
    ({ files }) => files.read("a"),
    (response) =>
      response.writeHead(200, { ...AS_FILE, "content-length": 8 }).write("half", () => response.destroy()),
    BROKEN,
  ],
  ["is not JSON", ({ files }) => files.write("a", "b"), (response) => response.end("<html>"), BROKEN],
  ["has no entries", ({ files }) => files.list(), (response) => response.end("null"), WRONG_FORM],
  ["has an event that never ends", command, (response) => sendWithoutEnd(response, "data: "), TOO_LARGE],
])("the client reports a response that %s", async (_what, call, respond, error) => {
  await expect(call(sandboxAt(await serverOfTools(respond)))).rejects.toMatchObject(error);
});

const ACCEPTED = { jsonrpc: "2.0", id: 1, result: {} };

/** Sends a ping to a server that accepts only the token "new". `tokens` are the results of reading the token, in order. */
async function ping(tokens: string[], tokenSource: string) {
  const presented: unknown[] = [];
  const url = await serverWith(({ headers }, response) => {
    presented.push(headers.authorization);
    const isAccepted = headers.authorization === "Bearer new";
    const refusal = { error: "Unauthorized", message: "It is not valid." };
    response
      .writeHead(isAccepted ? 200 : 401, JSON_TYPE)
      .end(JSON.stringify(isAccepted ? ACCEPTED : refusal));
  });
  const { forward, sent } = startBridge(() => ({ url, token: tokens.shift(), tokenSource }));
  await forward();
  return { presented, sent };
}

it("the bridge reads the stored token again after the server refused it", async () => {
  const presented = ["Bearer old", "Bearer new"];
  expect(await ping(["old", "new"], VARIABLES_FILE)).toEqual({ presented, sent: [ACCEPTED] });
});

it.each([
  ["SANDBOX_MCP_TOKEN", /sandbox-mcp connect <client>.*start the client again\.$/],
  [VARIABLES_FILE, /start the server again\.\n.*start the client again\.$/],
])("the bridge sends a refused token of %s only once, and reports what to do", async (source, remedy) => {
  const { presented, sent } = await ping(["old", "old"], source);
  expect(presented).toEqual(["Bearer old"]);
  const said = `does not accept the token of ${source}: Unauthorized: It is not valid.`;
  expect(sent).toMatchObject([{ error: { message: expect.stringContaining(said) } }]);
  expect(sent).toMatchObject([{ error: { message: expect.stringMatching(remedy) } }]);
});

it("a killed server's address gets no token, because another program may listen there", async () => {
  const stateDir = temporaryDirectory();
  const tokens: unknown[] = [];
  const url = await serverWith(({ headers }, response) => {
    tokens.push(headers.authorization);
    response.end(JSON.stringify({ entries: [] }));
  });
  const call = (running: object) => {
    writeFileSync(join(stateDir, "server.json"), JSON.stringify({ url, pid: process.pid, ...running }));
    const env = { SERVER_AUTH_TOKEN: "the-token-of-the-owner" };
    return runHere(["files", "ls", "--state-dir", stateDir], { env });
  };
  // Another process now has the process id of the killed server.
  const { code, stderr } = await call({ process: `${process.pid} 1 an-earlier-boot` });
  expect([code, stderr, tokens]).toEqual([69, expect.stringContaining("No local server is running"), []]);
  expect((await call({ process: identify(process.pid) })).code).toBe(0);
  expect(tokens).toEqual(["Bearer the-token-of-the-owner"]);
});

it("the bridge sends no token to the address of a server that was killed while the bridge ran", async () => {
  const [first = "", second = ""] = await Promise.all(
    ["first", "second"].map((name) =>
      serverWith((_request, response) => {
        response.writeHead(200, JSON_TYPE).end(JSON.stringify({ jsonrpc: "2.0", id: 1, result: { name } }));
      }),
    ),
  );
  const urls = [first, second];
  const { forward, sent } = startBridge(
    () => ({ url: urls.shift() }),
    ({ url }) => url === second,
  );
  for (let number = 0; number < 3; number++) await forward();
  expect(sent).toMatchObject(["first", "second", "second"].map((name) => ({ result: { name } })));
});

it("a redirect is an error that names the other address, and nothing is sent to that address", async () => {
  const received: unknown[] = [];
  const other = await serverWith(({ url }, response) => {
    received.push(url);
    response.end("{}");
  });
  const url = await serverWith((_request, response) => response.writeHead(307, { location: other }).end());
  const message = `${url} redirects to ${other}. If you trust that address, use it.`;
  expect(await messagesOfBridge(url)).toMatchObject([{ id: 1, error: { message } }]);
  for (const words of [["runs"], ["files", "ls"]]) {
    const { code, stderr } = await runHere([...words, "--url", url, "--token", "secret"]);
    expect([code, stderr]).toEqual([69, expect.stringContaining(` redirects to ${other}. If you trust`)]);
  }
  expect(received).toEqual([]);
});

it("doctor --deploy does not send wrangler's token to an address from .env of the working directory", async () => {
  const cwd = temporaryDirectory();
  const tokens: unknown[] = [];
  const url = await serverWith(({ headers }, response) => {
    tokens.push(headers.authorization);
    response.end("{}");
  });
  writeFileSync(join(cwd, ".env"), `CLOUDFLARE_API_BASE_URL=${new URL(url).origin}`);
  // No proxy listens there, so wrangler cannot send the token to Cloudflare either.
  const env = { CLOUDFLARE_API_TOKEN: "the-token-of-cloudflare", HTTPS_PROXY: "http://127.0.0.1:1" };
  const { stdout } = await runCLI(["doctor", "--deploy", "--state-dir", join(cwd, "state")], { cwd, env });
  expect(stdout).toContain("wrangler and its login");
  expect(tokens).toEqual([]);
});
