/** Fast clients for our Worker and the bare Worker: both send JSON over HTTP on connections that stay open. */
import { readFileSync } from "node:fs";
import { Agent, request } from "node:http";
import type { BareCall } from "./bare-call.ts";

/** The text of the baseline server for commands and files. */
const serverProgram = () =>
  ["../tests/setup/take-place.cjs", "bare-server.cjs"]
    .map((path) => readFileSync(new URL(path, import.meta.url), "utf8"))
    .join("\n");

export interface WorkerClient {
  url: string;
  token: string;
  /** Calls a tool and returns the text of its result. @throws Error if the result is an error */
  tool(name: string, args: Record<string, unknown>): Promise<string>;
  list(): Promise<string>;
}

export interface Bare {
  url: string;
  /** Makes a call and returns its value. @throws Error with the response if the call failed */
  call(call: BareCall): Promise<unknown>;
  /** Starts the baseline server for commands and files in that sandbox. */
  serve(sandbox: string): Promise<void>;
}

const agent = new Agent({ keepAlive: true, maxSockets: Infinity, noDelay: true });

export function closeClients(): void {
  agent.destroy();
}

export function workerClient(url: string, token: string): WorkerClient {
  const headers = {
    authorization: `Bearer ${token}`,
    "content-type": "application/json",
    accept: "application/json, text/event-stream",
    "mcp-protocol-version": "2025-11-25",
  };
  let id = 0;
  const rpc = (method: string, params: object) =>
    post(url, headers, JSON.stringify({ jsonrpc: "2.0", id: ++id, method, params }));
  return {
    url,
    token,
    list: () => rpc("tools/list", {}),
    async tool(name, args) {
      const response = await rpc("tools/call", { name, arguments: args });
      const json = response.startsWith("{") ? response : dataOf(response);
      const { result }: { result?: { isError?: boolean; content: { text?: string }[] } } = JSON.parse(json);
      if (!result || result.isError) throw new Error(`${name}: ${response.slice(0, 500)}`);
      return result.content.map(({ text }) => text ?? "").join("\n");
    },
  };
}

export function bareClient(url: string): Bare {
  const headers = { "content-type": "application/json" };
  const call = async (bareCall: BareCall): Promise<unknown> =>
    JSON.parse(await post(url, headers, JSON.stringify(bareCall)));
  return {
    url,
    call,
    async serve(sandbox) {
      await call({ sandbox, method: "serve", program: serverProgram() });
    },
  };
}

/** The message of a response that is an event stream: its last event. */
function dataOf(stream: string): string {
  const start = stream.lastIndexOf("\ndata: ");
  const from = start >= 0 ? start + 7 : stream.indexOf("data: ") + 6;
  const end = stream.indexOf("\n", from);
  return end < 0 ? stream.slice(from) : stream.slice(from, end);
}

function post(url: string, headers: Record<string, string>, body: string): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const sent = request(
    url,
    { method: "POST", agent, headers: { ...headers, "content-length": Buffer.byteLength(body) } },
    (response) => {
      const parts: Buffer[] = [];
      response.on("data", (part: Buffer) => parts.push(part));
      response.on("error", reject);
      response.on("end", () => {
        const text = Buffer.concat(parts).toString();
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`${url} responded with ${response.statusCode}: ${text.slice(0, 500)}`));
      });
    },
  );
  sent.on("error", reject);
  sent.end(body);
  return promise;
}
