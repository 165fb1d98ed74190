/** The bridge of `sandbox-mcp stdio`, and the client library: servers that refuse a token, redirect, or never end a response. */
import type { RequestListener, ServerResponse } from "node:http";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { JSONRPCMessage } from "@modelcontextprotocol/client";
import { expect, it } from "vitest";
import { connect, type Files } from "../../client/index.ts";
import { Bridge } from "../../cli/bridge.ts";
import { type ServerAddress, VARIABLES_FILE } from "../../cli/server-address.ts";
import { identify } from "../../local/engine/identity.ts";
import { runCLI, runHere } from "../setup/cli.ts";
import { serve } from "../setup/serve.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const PING = { jsonrpc: "2.0", id: 1, method: "ping" } as const;

/** @returns the URL of a server with these responses */
const serverWith = (respond: RequestListener) => serve(respond, "/mcp");

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
  const forward = (message: JSONRPCMessage) => {
    bridge.forward(message);
    return bridge.waitUntilSettled();
  };
  return { sent, forward };
}

/** Sends a ping to a server that accepts only the token "new". `tokens` are the results of reading the token, in order. */
async function ping(tokens: string[], tokenSource: string) {
  const presented: unknown[] = [];
  const url = await serverWith(({ headers }, response) => {
    presented.push(headers.authorization);
    const isAccepted = headers.authorization === "Bearer new";
    response.writeHead(isAccepted ? 200 : 401, { "content-type": "application/json" });
    response.end(
      JSON.stringify(
        isAccepted
          ? { jsonrpc: "2.0", id: 1, result: {} }
          : { error: "Unauthorized", message: "The token is not valid for this server." },
      ),
    );
  });
  const { forward, sent } = startBridge(() => ({ url, token: tokens.shift(), tokenSource }));
  await forward(PING);
  return { presented, sent };
}

/** With this header a server claims that its response is a file. */
const CLAIM = { "content-disposition": "attachment" };

/** @param line the text that the response repeats @returns the URL of a server whose response never ends */
async function endlessServer(type: string, line = " ", more: Record<string, string> = CLAIM) {
  const mebibyte = Buffer.alloc(1024 * 1024, line);
  return await serverWith((_request, response) => {
    response.writeHead(200, { "content-type": type, ...more }).write("data: ");
    const send = () =>
      void (response.destroyed || (response.write(mebibyte) ? setImmediate(send) : undefined));
    response.on("drain", send);
    send();
  });
}

it.each([
  ["application/json", "white space", " "],
  ["text/event-stream", "white space", " "],
  ["text/event-stream", "lines of one character, which end no event", `\ndata: ${"more ".repeat(20_000)}\nx`],
])("the bridge refuses a response that never ends: %s of %s", async (type, _content, line) => {
  const url = await endlessServer(type, line);
  const { forward, sent } = startBridge(() => ({ url }));
  await forward(PING);
  expect(sent).toMatchObject([{ id: 1, error: { message: "The server's response is larger than 64 MiB." } }]);
});

it.each([
  ["application/json", (message: string) => message],
  ["text/event-stream", (message: string) => `data: ${message}\n\n`],
])(
  "the bridge answers a request whose response is nested too deeply to be sent: %s",
  async (type, encode) => {
    const depth = 100_000;
    const result = `${"[".repeat(depth)}${"]".repeat(depth)}`;
    const url = await serverWith((_request, response) => {
      response.writeHead(200, { "content-type": type });
      response.end(encode(`{"jsonrpc":"2.0","id":1,"result":{"deep":${result}}}`));
    });
    const { forward, sent } = startBridge(() => ({ url }));
    await forward(PING);
    expect(sent).toMatchObject([{ id: 1, error: {} }]);
  },
);

it("the client refuses a list that never ends", async () => {
  const url = await endlessServer("application/json", " ", {});
  const listing = connect({ url, token: "any" }).sandbox().files.list();
  await expect(listing).rejects.toMatchObject({
    code: "too_large",
    message: expect.stringContaining("64 MiB"),
  });
});

it("the client refuses a response that never ends, even if the server claims that it is a file", async () => {
  const url = await endlessServer("application/json");
  const { files } = connect({ url, token: "any" }).sandbox();
  await expect(files.write("a", "b")).rejects.toThrow("64 MiB");
});

it("diagnose reports a server whose health never ends", async () => {
  const url = await endlessServer("application/json", " ", {});
  const words = ["diagnose", "--output", "-", "--url", url, "--token", "any-token"];
  const { stdout } = await runCLI([...words, "--state-dir", temporaryDirectory()]);
  expect(JSON.parse(stdout)).toMatchObject({ server: { error: expect.stringContaining("64 MiB") } });
});

/** A client of a server that answers each call of a tool with this beginning of an event stream, and the server's end. */
async function streamingServer(
  respond: (response: ServerResponse, call: { id: unknown; params: { name: string } }) => void,
  open: (response: ServerResponse) => void = (response) => response.writeHead(405).end(),
) {
  const url = await serverWith(async (request, response) => {
    if (request.method === "GET") return open(response);
    const call = JSON.parse(Buffer.concat(await request.toArray()).toString() || "{}");
    const { id, method } = call;
    if (method !== "tools/call") {
      const initialized = { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: INFO };
      return response
        .writeHead(id === undefined ? 202 : 200, { "content-type": "application/json" })
        .end(id === undefined ? "" : JSON.stringify({ jsonrpc: "2.0", id, result: initialized }));
    }
    respond(response.writeHead(200, { "content-type": "text/event-stream" }), call);
  });
  return connect({ url, token: "any" }).sandbox();
}

const INFO = { name: "a server", version: "1" };

it.each<[string, (response: ServerResponse) => void]>([
  ["ends", (response) => response.end(": nothing\n\n")],
  ["breaks", (response) => response.write('event: message\ndata: {"jsonrpc"', () => response.destroy())],
])("the client reports an event stream that %s before its response", async (_how, respond) => {
  const sandbox = await streamingServer(respond);
  await expect(sandbox.runCommand("true")).rejects.toMatchObject({ name: "ConnectionError" });
});

it.each<[string, (files: Files) => Promise<unknown>, (response: ServerResponse) => void]>([
  ["read, breaks", (files) => files.read("a"), halfFile],
  ["readText, breaks", (files) => files.readText("a"), halfFile],
  ["write, is not JSON", (files) => files.write("a", "b"), (response) => response.end("<html>")],
  ["list, is not JSON", (files) => files.list("a"), (response) => response.end("<html>")],
])(
  "the client reports a response about files that breaks or is not JSON: %s",
  async (_how, call, respond) => {
    const url = await serverWith((_request, response) => respond(response));
    const { files } = connect({ url, token: "any" }).sandbox();
    await expect(call(files)).rejects.toMatchObject({ name: "ConnectionError" });
  },
);

function halfFile(response: ServerResponse): void {
  response.writeHead(200, { ...CLAIM, "content-length": 8 }).write("half", () => response.destroy());
}

it("the client refuses an event that never ends", async () => {
  const mebibyte = Buffer.alloc(1024 * 1024, "x");
  const sandbox = await streamingServer((response) => {
    const send = () => {
      while (!response.destroyed && response.write(mebibyte));
    };
    response.on("drain", send).write("data: ", send);
  });
  await expect(sandbox.runCommand("true")).rejects.toMatchObject({ code: "too_large" });
});

it("the client opens no stream again, even if the server asks for that without a pause", async () => {
  let opened = 0;
  const sandbox = await streamingServer(
    (response) => setTimeout(() => response.end(), 1000),
    (response) => {
      opened += 1;
      response.writeHead(200, { "content-type": "text/event-stream" }).end("retry: 0\nid: 1\ndata:\n\n");
    },
  );
  await expect(sandbox.runCommand("true")).rejects.toMatchObject({ name: "ConnectionError" });
  expect(opened).toBe(1);
});

it.each([
  ["no data", undefined, undefined],
  ["output that is not text", { id: "a", state: "succeeded", stdout: 1 }, undefined],
  [
    "a log that is no list",
    { id: "a", state: "running" },
    { state: "succeeded", next_cursor: 0, log_bytes: 0 },
  ],
])("the client reports a run with %s", async (_what, ...[first, page]) => {
  const sandbox = await streamingServer((response, { id, params }) => {
    const structuredContent = params.name === "run_command" ? first : page;
    const message = { jsonrpc: "2.0", id, result: { content: [], structuredContent } };
    response.end(`data: ${JSON.stringify(message)}\n\n`);
  });
  await expect(sandbox.runCommand("true")).rejects.toMatchObject({
    code: "wrong_address",
    message: expect.stringContaining("form of"),
  });
});

it("the client reports a list without entries", async () => {
  const url = await serverWith((_request, response) => response.end("null"));
  const listing = connect({ url, token: "any" }).sandbox().files.list("/tmp");
  await expect(listing).rejects.toMatchObject({ code: "wrong_address" });
});

it("the client and the command line read a list whose page has more entries than a call may have arguments", async () => {
  const [type, modified] = ["file", ""];
  const entries = Array.from({ length: 200_000 }, () => ({ path: "a", type, size: 1, modified }));
  const url = await serverWith((_request, response) => response.end(JSON.stringify({ entries })));
  expect(await connect({ url, token: "any" }).sandbox().files.list("/tmp")).toHaveLength(200_000);
  const { stdout } = await runHere(["files", "ls", "--url", url, "--token", "any"]);
  expect(stdout.trimEnd().split("\n")).toHaveLength(200_000);
});

it("the client refuses a list with an endless number of pages", async () => {
  const entries = Array.from({ length: 20_000 }, () => ({ name: "a" }));
  const page = JSON.stringify({ entries, next_cursor: "again" });
  const url = await serverWith((_request, response) => response.end(page));
  const listing = connect({ url, token: "any" }).sandbox().files.list("/tmp");
  await expect(listing).rejects.toMatchObject({
    code: "too_large",
    message: expect.stringContaining("/tmp"),
  });
});

it("the bridge reads the stored token again after the server refused it", async () => {
  const { presented, sent } = await ping(["old", "new"], VARIABLES_FILE);
  expect(presented).toEqual(["Bearer old", "Bearer new"]);
  expect(sent).toEqual([{ jsonrpc: "2.0", id: 1, result: {} }]);
});

it.each([
  ["SANDBOX_MCP_TOKEN", /sandbox-mcp connect <client>.*start the client again\.$/],
  [VARIABLES_FILE, /start the server again\.\n.*start the client again\.$/],
])(
  "if the server refuses the token of %s twice, the bridge sends it only once and reports what to do",
  async (tokenSource, remedy) => {
    const { presented, sent } = await ping(["old", "old"], tokenSource);
    expect(presented).toEqual(["Bearer old"]);
    const [response] = sent as { error: { message: string } }[];
    expect(response?.error.message).toMatch(remedy);
    expect(response?.error.message).toContain(
      `does not accept the token of ${tokenSource}: Unauthorized: The token is not valid for this server.`,
    );
  },
);

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

it("a redirect is an error that names the other address, and the bridge sends no call to that address", async () => {
  const received: unknown[] = [];
  const other = await serverWith(({ url }, response) => {
    received.push(url);
    response.end("{}");
  });
  const url = await serverWith((_request, response) => response.writeHead(307, { location: other }).end());
  const { forward, sent } = startBridge(() => ({ url, isLocal: false }));
  await forward({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "run_code" } });
  const message = `${url} redirects to ${other}. If you trust that address, use it.`;
  expect(sent).toMatchObject([{ id: 1, error: { message } }]);
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

it("the bridge sends no token to the address of a server that was killed while the bridge ran", async () => {
  const urls = await Promise.all(
    ["first", "second"].map((name) =>
      serverWith((_request, response) => {
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify({ jsonrpc: "2.0", id: 1, result: { name } }));
      }),
    ),
  );
  const [, second] = urls;
  const { forward, sent } = startBridge(
    () => ({ url: urls.shift() }),
    ({ url }) => url === second,
  );
  for (let number = 0; number < 3; number++) await forward(PING);
  const names = ["first", "second", "second"];
  expect(sent).toMatchObject(names.map((name) => ({ result: { name } })));
});
