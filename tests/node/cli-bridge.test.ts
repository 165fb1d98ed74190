/** The bridge of `sandbox-mcp stdio`, if the server refuses its token. */
import { createServer } from "node:http";
import type { JSONRPCMessage } from "@modelcontextprotocol/client";
import { expect, it } from "vitest";
import { Bridge } from "../../cli/bridge.ts";
import { VARIABLES_FILE } from "../../cli/server-address.ts";
import { listen } from "../setup/listen.ts";

const PING = { jsonrpc: "2.0", id: 1, method: "ping" } as const;

/** Sends a ping to a server that accepts only the token "new". `tokens` are the results of reading the token, in order. */
async function ping(tokens: string[], tokenSource: string) {
  const presented: unknown[] = [];
  const server = createServer(({ headers }, response) => {
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
  const url = `http://127.0.0.1:${await listen(server)}/mcp`;
  const sent: JSONRPCMessage[] = [];
  const bridge = new Bridge({
    locate: async () => ({ url, token: tokens.shift() ?? "", tokenSource, isLocal: true }),
    send: async (message) => void sent.push(message),
    log: () => undefined,
  });
  bridge.forward(PING);
  await bridge.waitUntilSettled();
  server.closeAllConnections();
  server.close();
  return { presented, sent };
}

it("the bridge reads the stored token again after the server refused it", async () => {
  const { presented, sent } = await ping(["old", "new"], VARIABLES_FILE);
  expect(presented).toEqual(["Bearer old", "Bearer new"]);
  expect(sent).toEqual([{ jsonrpc: "2.0", id: 1, result: {} }]);
});

it.each([
  ["SANDBOX_MCP_TOKEN", /sandbox-mcp connect <client>.*start the client again\.$/],
  [VARIABLES_FILE, /start it again\.\n.*start the client again\.$/],
])(
  "the bridge says what to do if the server still refuses the token of %s, and sends it once",
  async (tokenSource, remedy) => {
    const { presented, sent } = await ping(["old", "old"], tokenSource);
    expect(presented).toEqual(["Bearer old"]);
    const [answer] = sent as { error: { message: string } }[];
    expect(answer?.error.message).toMatch(remedy);
    expect(answer?.error.message).toContain(
      `does not accept the token of ${tokenSource}: Unauthorized: The token is not valid for this server.`,
    );
  },
);
