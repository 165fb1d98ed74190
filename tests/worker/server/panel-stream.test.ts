/** `/panel/stream` sends changes to a page of the panel. */
import { env } from "cloudflare:workers";
import { createExecutionContext } from "cloudflare:test";
import { McpServer } from "@modelcontextprotocol/server";
import { createParser, type EventSourceMessage } from "eventsource-parser";
import { beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { z } from "zod";
import worker from "../../../src/index.ts";
import type { MCPParts } from "../../../src/server/mcp-endpoint.ts";
import type { Env } from "../../../src/shared/config.ts";
import { MAX_MEMORY_BYTES, RequestMemory } from "../../../src/shared/request-memory.ts";
import { type App, Browser, panelBrowser, panelBrowserOfGitHub } from "../auth/support.ts";
import { idIn, owner, sleep, until } from "../support.ts";
import { appWith, ORIGIN, TOKEN, type Variables, recordEachLog } from "./support.ts";

const logs = recordEachLog();

/** The results of the tools, and the calls that they received. */
let answers: { sandboxes(): object; log(cursor: number): object | Promise<object> };
let calls: { name: string; principal: string; cursor?: number; wait?: number }[];
/** A browser with a session of the owner. Tests that sign out use another one. */
let signedIn: Browser;
beforeAll(async () => {
  signedIn = await panelBrowser(app);
});

beforeEach(() => {
  calls = [];
  answers = {
    sandboxes: () => ({ sandboxes: [] }),
    log: (cursor) => page("", cursor, { state: "succeeded" }),
  };
});

/** A page of a log as a result of `get_result`. `bytes` is the size of the whole log. */
function page(text: string, cursor: number, { state = "running", bytes = cursor + text.length } = {}) {
  return { state, log: [{ stream: "stdout", text }], next_cursor: cursor + text.length, log_bytes: bytes };
}

const product: Partial<MCPParts> = {
  createMCPServer: ({ principal: { id: principal } }) => {
    const server = new McpServer({ name: "watched", version: "1.0.0" });
    const answer = async (value: object | Promise<object>) => {
      const data = await value;
      return { content: [{ type: "text" as const, text: "text" }], structuredContent: { ...data } };
    };
    const nothing = z.object({});
    server.registerTool("list_sandboxes", { description: "Lists", inputSchema: nothing }, () => {
      calls.push({ name: "list_sandboxes", principal });
      return answer({ principal, ...answers.sandboxes() });
    });
    const log = z.object({ id: z.string(), cursor: z.number(), wait_seconds: z.number() });
    server.registerTool("get_result", { description: "Reads", inputSchema: log }, (args) => {
      calls.push({ name: "get_result", principal, cursor: args.cursor, wait: args.wait_seconds });
      if (args.id === "unknown")
        return { content: [{ type: "text" as const, text: "There is no such run." }], isError: true };
      return answer(answers.log(args.cursor));
    });
    return server;
  },
  requiredScopes: (name) => (name === "get_result" ? ["sandbox:exec"] : ["sandbox:read"]),
};

/** The app with these tools, with OAuth on. */
function watchedApp(variables: Variables = {}): App {
  return appWith(
    { PUBLIC_ORIGIN: ORIGIN, OAUTH_KV: env.OAUTH_KV, Attempts: env.Attempts, ...variables },
    product,
  );
}
const app = watchedApp();

const SANDBOXES = { name: "list_sandboxes" };
const log = (id = "a-run", cursor = 0) => ({ name: "get_result", arguments: { id, cursor } });

function cookieOf(browser: Browser): string {
  return Array.from(browser.cookies, ([name, value]) => `${name}=${value}`).join("; ");
}

/** Opens a stream as the page does. */
async function open(browser: Browser, body: unknown, { headers = {}, through = app } = {}): Promise<Stream> {
  const response = await through(`${ORIGIN}/panel/stream`, {
    method: "POST",
    headers: { origin: ORIGIN, cookie: cookieOf(browser), "content-type": "application/json", ...headers },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
  return new Stream(response);
}

/** How many bytes the requests of a principal use, rounded up to KiB. */
function usedMemory(principal: string): number {
  const memory = new RequestMemory(principal, new AbortController().signal);
  let free = 0;
  while (memory.hasRoomFor(free + 1024)) free += 1024;
  return MAX_MEMORY_BYTES - free;
}

const watchRequest = (watch: unknown[], name = "a-page-of-a-test") => ({ page: name, watch });

class Stream {
  readonly status: number;
  readonly #reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  readonly #events: EventSourceMessage[] = [];
  readonly #parser = createParser({ onEvent: (event) => void this.#events.push(event) });
  readonly #decoder = new TextDecoder();

  constructor(response: Response) {
    this.status = response.status;
    this.#reader = response.body?.getReader();
  }

  /** The next event: its type and its data; undefined at the end. */
  async next(): Promise<{ type: string; [name: string]: unknown } | undefined> {
    for (;;) {
      const event = this.#events.shift();
      if (event) return { type: event.event ?? "message", ...JSON.parse(event.data) };
      const { done, value } = (await this.#reader?.read()) ?? { done: true };
      if (done) return undefined;
      this.#parser.feed(this.#decoder.decode(value, { stream: true }));
    }
  }

  async text(): Promise<string> {
    let text = "";
    for (;;) {
      const { done, value } = (await this.#reader?.read()) ?? { done: true };
      if (done) return text;
      text += this.#decoder.decode(value, { stream: true });
    }
  }

  cancel(): Promise<void> | undefined {
    return this.#reader?.cancel();
  }
}

/** The first events of two watched calls, in the order of the calls. */
async function firstTwo(stream: Stream): Promise<unknown[]> {
  const events = [await stream.next(), await stream.next()];
  return events.toSorted((a, b) => Number(a?.watch) - Number(b?.watch));
}

describe("the stream of a page", () => {
  it("continues a log at the page's position, waits for more, and stops at its end", async () => {
    const fullLog = "one two three";
    answers.log = (cursor) =>
      page(fullLog.slice(cursor, cursor + 4), cursor, {
        state: cursor < 8 ? "running" : "succeeded",
        bytes: fullLog.length,
      });
    const stream = await open(signedIn, watchRequest([log("a-run", 4)]));
    const texts: string[] = [];
    for (let read = 4; read < fullLog.length;) {
      const event = (await stream.next()) as unknown as { data: ReturnType<typeof page> };
      texts.push(event.data.log[0]?.text ?? "");
      read = event.data.next_cursor;
    }
    expect(texts).toEqual(["two ", "thre", "e"]);
    expect(calls.map(({ cursor, wait }) => [cursor, wait])).toEqual([
      [4, 0],
      [8, 20],
      [12, 20],
    ]);
    await stream.cancel();
  });

  it("skips output for a reader that is far behind, and continues near the end", async () => {
    const bytes = 100 * 1024 * 1024;
    answers.log = (cursor) =>
      page("x", cursor, { state: "succeeded", bytes: cursor === 0 ? bytes : cursor + 1 });
    const stream = await open(signedIn, watchRequest([log()]));
    await stream.next();
    await stream.next();
    expect(calls.map(({ cursor }) => cursor)).toEqual([0, bytes - 256 * 1024]);
    await stream.cancel();
  });

  it("reports a tool's refusal, and does not request that run again", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const stream = await open(signedIn, watchRequest([log("unknown")]));
    expect(await stream.next()).toEqual({ type: "message", watch: 0, problem: "There is no such run." });
    const later = stream.next().catch(() => undefined);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(calls).toHaveLength(1);
    await stream.cancel();
    expect(await later).toBeUndefined();
  });

  it("ends after five minutes, or after a limited number of polls", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const quiet = await open(signedIn, watchRequest([SANDBOXES]));
    const all = quiet.text();
    await vi.advanceTimersByTimeAsync(300_000);
    expect(await all).toMatch(/event: end\ndata: {"reason":"again"}\n\n$/);
    calls = [];
    let printed = 0;
    answers.log = (cursor) => page(String(printed++ % 10), cursor, { bytes: cursor + 2 });
    const busy = (await open(signedIn, watchRequest([log()]))).text();
    await vi.advanceTimersByTimeAsync(10_000);
    expect(await busy).toMatch(/event: end\ndata: {"reason":"again"}\n\n$/);
    expect(calls).toHaveLength(150);
  });
});

describe("watching", () => {
  it("needs the panel's session and the panel's origin", async () => {
    const watch = watchRequest([SANDBOXES]);
    expect((await open(new Browser(app), watch)).status).toBe(401);
    const bearer = { authorization: `Bearer ${TOKEN}` };
    expect((await open(new Browser(app), watch, { headers: bearer })).status).toBe(401);
    for (const origin of ["https://evil.example", "null", ""])
      expect((await open(signedIn, watch, { headers: { origin } })).status).toBe(403);
    const got = await app(`${ORIGIN}/panel/stream`, { headers: { cookie: cookieOf(signedIn) } });
    expect(got.status).toBe(405);
    expect(calls).toEqual([]);
  });

  it("is possible only for tools that do not write", async () => {
    for (const name of ["run_command", "cancel_run", "constructor"]) {
      const stream = await open(signedIn, watchRequest([SANDBOXES, { name, arguments: {} }]));
      expect([stream.status, await stream.text()]).toEqual([400, expect.stringContaining("watch.1.name")]);
    }
    expect(calls).toEqual([]);
  });

  it("needs the scopes that were ticked", async () => {
    const browser = await panelBrowser(app, ["sandbox:read"]);
    const stream = await open(browser, watchRequest([SANDBOXES, log()]));
    expect(await firstTwo(stream)).toEqual([
      { type: "message", watch: 0, data: { principal: "owner", sandboxes: [] } },
      { type: "message", watch: 1, refused: expect.stringContaining("sandbox:exec") },
    ]);
    expect(calls.map(({ name }) => name)).toEqual(["list_sandboxes"]);
    await stream.cancel();
  });

  it("shows the sandboxes of the person who signed in", async () => {
    const through = watchedApp({
      GITHUB_CLIENT_ID: "id",
      GITHUB_CLIENT_SECRET: "s",
      GITHUB_ALLOWED_USERS: "id:7",
    });
    const other = await open(await panelBrowserOfGitHub(), watchRequest([SANDBOXES]), { through });
    const own = await open(signedIn, watchRequest([SANDBOXES]), { through });
    expect(await other.next()).toMatchObject({ data: { principal: "github:7" } });
    expect(await own.next()).toMatchObject({ data: { principal: "owner" } });
    await Promise.all([other.cancel(), own.cancel()]);
  });

  it("ends with a sign-out in another window, and sends nothing that happened later", async () => {
    const browser = await panelBrowser(app);
    const secret = Promise.withResolvers<object>();
    answers.log = (cursor) => (cursor === 0 ? page("before", 0, { bytes: 1000 }) : secret.promise);
    const stream = await open(browser, watchRequest([log()]));
    expect(await stream.next()).toMatchObject({ data: { log: [{ text: "before" }] } });
    await until(() => calls.length === 2);
    const headers = { origin: ORIGIN, cookie: cookieOf(browser) };
    const out = await app(`${ORIGIN}/panel/sign-out`, { method: "POST", headers });
    expect(out.status).toBe(204);
    secret.resolve(page("after", 6));
    expect(await stream.text()).toBe('event: end\ndata: {"reason":"signed_out"}\n\n');
    expect((await open(browser, watchRequest([log()]))).status).toBe(401);
  });

  it("ends with its session, also without events", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const browser = await panelBrowser(app);
    const stream = await open(browser, watchRequest([SANDBOXES]));
    await stream.next();
    const headers = { origin: ORIGIN, cookie: cookieOf(browser) };
    await app(`${ORIGIN}/panel/sign-out`, { method: "POST", headers });
    const rest = stream.text();
    await vi.advanceTimersByTimeAsync(5000);
    expect(await rest).toBe('event: end\ndata: {"reason":"signed_out"}\n\n');
  });
});

describe("the limits of streams:", () => {
  it.each([
    ["a body that is not JSON", "{", "The body is not JSON."],
    ["an empty list", watchRequest([]), "watch"],
    ["more than 8 calls", watchRequest(Array.from({ length: 9 }, () => SANDBOXES)), "watch"],
    ["a log without a cursor", watchRequest([{ name: "get_result", arguments: { id: "x" } }]), "cursor"],
    ["a cursor before the beginning", watchRequest([log("x", -1)]), "cursor"],
    ["an unknown argument", watchRequest([{ ...SANDBOXES, more: 1 }]), "more"],
    ["a missing page id", { watch: [SANDBOXES] }, "page"],
    ["an invalid page id", watchRequest([SANDBOXES], "<page>"), "page"],
    [
      "an argument that is too long",
      watchRequest([{ name: "list_runs", arguments: { sandbox: "x".repeat(9000) } }]),
      "too long",
    ],
  ])("a stream is refused for %s", async (_what, body, words) => {
    const stream = await open(signedIn, body);
    expect(stream.status).toBe(400);
    expect(JSON.parse(await stream.text()).message).toContain(words);
    expect(calls).toEqual([]);
    expect(logs.entries().at(-1)).toMatchObject({ event: "refusal", reason: "bad_body", principal: "owner" });
  });

  it("a page has one stream, and the next stream replaces it", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const first = await open(signedIn, watchRequest([SANDBOXES]));
    await first.next();
    const second = await open(signedIn, watchRequest([SANDBOXES]));
    await second.next();
    const rest = first.text();
    const more = second.next().catch(() => undefined);
    await vi.advanceTimersByTimeAsync(5000);
    expect(await rest).toBe('event: end\ndata: {"reason":"replaced"}\n\n');
    calls = [];
    await vi.advanceTimersByTimeAsync(8000);
    expect(calls).toHaveLength(2);
    await second.cancel();
    expect(await more).toBeUndefined();
  });

  it("a principal has a limited number of streams, and abandoned streams soon stop counting", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    const streams = [];
    for (let count = 0; count < 20; count++)
      streams.push(await open(signedIn, watchRequest([SANDBOXES], `page-number-${count}`)));
    expect(streams.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200));
    const openAnother = () => open(signedIn, watchRequest([SANDBOXES], "one-page-more"));
    expect((await openAnother()).status).toBe(429);
    await streams[0]?.cancel();
    const freed = await openAnother();
    expect(freed.status).toBe(200);
    // The other streams have no reader.
    await vi.advanceTimersByTimeAsync(60_000);
    for (let count = 0; count < 20; count++)
      expect((await open(signedIn, watchRequest([SANDBOXES], `later-page-${count}`))).status).toBe(200);
    await vi.advanceTimersByTimeAsync(60_000);
  });

  it("each poll counts as a call", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    let remaining = Infinity;
    const RATE_LIMITER: RateLimit = {
      limit: async ({ key }) => ({ success: key !== "owner" || remaining-- > 0 }),
    };
    const through = watchedApp({ RATE_LIMITER });
    const browser = await panelBrowser(through);
    remaining = 3;
    const stream = await open(browser, watchRequest([SANDBOXES, SANDBOXES]), { through });
    const all = stream.text();
    await vi.advanceTimersByTimeAsync(4000);
    expect(await all).toContain('event: end\ndata: {"reason":"busy"}\n\n');
    expect(calls).toHaveLength(3);
    expect((await open(browser, watchRequest([SANDBOXES]), { through })).status).toBe(429);
  });
});

describe("a reader", () => {
  it("that does not read causes one poll of each watched call, and is disconnected", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    answers.log = (cursor) => page("x".repeat(40_000), cursor, { bytes: cursor + 100_000 });
    const stream = await open(signedIn, watchRequest([log()]));
    await vi.advanceTimersByTimeAsync(25_000);
    expect(calls).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(10_000);
    await expect(stream.text()).rejects.toThrow();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(calls).toHaveLength(1);
  });

  it("that has disconnected causes no more work", async () => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date"] });
    answers.log = (cursor) => page("x", cursor, { bytes: cursor + 100 });
    const stream = await open(signedIn, watchRequest([log(), SANDBOXES]));
    await stream.next();
    await stream.next();
    await stream.cancel();
    await vi.advanceTimersByTimeAsync(10_000);
    calls = [];
    await vi.advanceTimersByTimeAsync(600_000);
    expect(calls).toEqual([]);
  });
});

it("a principal's polls are made one after the other, in all streams", async () => {
  const first = Promise.withResolvers<object>();
  const ended = page("", 0, { state: "succeeded" });
  answers.log = () => (calls.length === 1 ? first.promise : ended);
  const openPage = (name: string) => open(signedIn, watchRequest([log(), log("another-run")], name));
  const streams = [await openPage("a-first-page"), await openPage("a-second-page")];
  await until(() => calls.length > 0);
  await sleep(200);
  expect(calls).toHaveLength(1);
  first.resolve(ended);
  await until(() => calls.length === 4);
  await Promise.all(streams.map((stream) => stream.cancel()));
});

it("a principal's streams count until their calls have ended, even if other streams have replaced them", async () => {
  const ended = Promise.withResolvers<void>();
  answers.log = (cursor) => ended.promise.then(() => page("", cursor, { state: "succeeded" }));
  const streams: Stream[] = [];
  const openNext = async () => {
    const stream = await open(signedIn, watchRequest([log()]));
    streams.push(stream);
    return stream.status;
  };
  for (let count = 0; count < 64; count++) expect(await openNext()).toBe(200);
  expect(await openNext()).toBe(429);
  ended.resolve();
  await Promise.all(streams.map((stream) => stream.cancel()));
  await until(async () => (await openNext()) === 200);
  await streams.at(-1)?.cancel();
});

it("a stream that the server ends releases the memory of its calls in progress", async () => {
  const ended = Promise.withResolvers<object>();
  answers.log = () => ended.promise;
  const before = usedMemory("owner");
  const first = await open(signedIn, watchRequest([log()]));
  await until(() => calls.length === 1);
  expect(usedMemory("owner")).toBeGreaterThan(before);
  const second = await open(signedIn, watchRequest([SANDBOXES]));
  expect(await first.text()).toContain('{"reason":"replaced"}');
  await second.cancel();
  await until(() => usedMemory("owner") <= before, 5000);
  ended.resolve(page("", 0, { state: "succeeded" }));
});

it("a stream reports another principal's run as missing, even by its id", async () => {
  const id = idIn(
    await owner.call("run_command", {
      sandbox: "streamed",
      command: "echo secret; sleep 0.1",
      wait_seconds: 0,
    }),
  );
  const variables = { GITHUB_CLIENT_ID: "id", GITHUB_CLIENT_SECRET: "s", GITHUB_ALLOWED_USERS: "id:7" };
  const all = { ...env, ...variables, PUBLIC_ORIGIN: ORIGIN, SERVER_AUTH_TOKEN: TOKEN, LOG_LEVEL: "error" };
  const through: App = (url, init) =>
    worker.fetch(new Request(new URL(url, ORIGIN), init), all as Env, createExecutionContext());
  const watch = watchRequest([log(id), { name: "list_runs", arguments: { sandbox: "streamed" } }]);
  const [others, own] = [
    await open(await panelBrowserOfGitHub(), watch, { through }),
    await open(signedIn, watch, { through }),
  ];
  expect(await firstTwo(others)).toEqual([
    { type: "message", watch: 0, problem: expect.stringContaining("no run") },
    { type: "message", watch: 1, data: { runs: [] } },
  ]);
  await others.cancel();
  const read = await until(async () => {
    const event = await own.next();
    return JSON.stringify(event).includes('"text":"secret') && event;
  });
  expect(read).toMatchObject({ watch: 0 });
  await own.cancel();
});
