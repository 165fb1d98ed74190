/** The calls of a principal that the server works on at once. */
import { afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import type { Sandbox } from "../../../src/index.ts";
import {
  countFor,
  keepOpen,
  MAX_PACE_MS,
  mayWait,
  OpenRequest,
  paceLargeHead,
  paceOpenRequest,
} from "../../../src/shared/open-requests.ts";
import { RequestTurns } from "../../../src/shared/request-turns.ts";
import { Turns, TurnsByID } from "../../../src/shared/turns.ts";
import { messagesIn } from "../../setup/mcp-client.ts";
import { type Caller, ORIGIN, idIn, principal, runInActor, sleep, until } from "../support.ts";

const sandbox = "turns";
const BATCH = 100;

let flooding: Caller;
let neighbour: Caller;

beforeAll(async () => {
  [flooding, neighbour] = await Promise.all([principal("flooding"), principal("neighbour")]);
});

const list = (caller: Caller) => caller.call("list_runs", { sandbox });

/** Sends one request with many calls. Returns the number of their answers without an error. */
async function listInBatch(): Promise<number> {
  const calls = Array.from({ length: BATCH }, (_, id) => ({
    jsonrpc: "2.0",
    id,
    method: "tools/call",
    params: { name: "list_runs", arguments: { sandbox } },
  }));
  const messages = messagesIn(await (await flooding.fetch(JSON.stringify(calls))).text());
  return messages.flat().filter(({ result }) => result && !result.isError).length;
}

describe("when a principal makes hundreds of calls at once", () => {
  const CALLS = 400;

  afterEach(() => vi.restoreAllMocks());

  it.each([
    { how: "each in a request", requests: CALLS, send: async () => ((await list(flooding)).isError ? 0 : 1) },
    { how: "in batches", requests: CALLS / BATCH, send: listInBatch },
  ])(
    "another principal's later call is answered before most of them begin, and all are answered: $how",
    async ({ requests, send }) => {
      let begun = 0;
      const first = Promise.withResolvers<void>();
      await runInActor(
        sandbox,
        (actor) => {
          const prototype: Sandbox = Object.getPrototypeOf(actor);
          const { listRuns } = prototype;
          vi.spyOn(prototype, "listRuns").mockImplementation(function (this: Sandbox, caller, ...which) {
            if (caller.principalID === flooding.principalID) begun += 1;
            first.resolve();
            return listRuns.call(this, caller, ...which);
          });
        },
        flooding,
      );
      const flood = Array.from({ length: requests }, send);
      await first.promise;
      expect(await list(neighbour)).toMatchObject({ isError: false });
      expect(begun).toBeLessThan(CALLS / 2);
      const answered = await Promise.all(flood);
      expect(answered.reduce((sum, count) => sum + count)).toBe(CALLS);
      expect(begun).toBe(CALLS);
    },
  );
});

it("another principal's call is answered before most of the requests by one link begin", async () => {
  const REQUESTS = 400;
  await flooding.call("write_file", { sandbox, path: "linked.txt", content: "linked" });
  const { text } = await flooding.call("file_link", { sandbox, path: "linked.txt" });
  const [, path = ""] = /https:\/\/[^/ ]+(\/files\/[\w.-]+)/.exec(text) ?? [];
  let begun = 0;
  const first = Promise.withResolvers<void>();
  await runInActor(
    sandbox,
    (actor) => {
      const prototype: Sandbox = Object.getPrototypeOf(actor);
      const { findLink } = prototype;
      vi.spyOn(prototype, "findLink").mockImplementation(function (this: Sandbox, id) {
        begun += 1;
        first.resolve();
        return findLink.call(this, id);
      });
    },
    flooding,
  );
  onTestFinished(() => void vi.restoreAllMocks());
  const flood = Array.from({ length: REQUESTS }, async () => (await flooding.http(path)).text());
  await first.promise;
  expect(await list(neighbour)).toMatchObject({ isError: false });
  // The pace of open requests would let 200 begin at once.
  expect(begun).toBeLessThan(REQUESTS / 4);
  expect(new Set(await Promise.all(flood))).toEqual(new Set(["linked"]));
});

describe("when somebody repeats requests that take almost no time", () => {
  // The neighbour's call may take half as long as the pace of these requests allows: 0.6 s.
  const REQUESTS = 1200;

  it.each([
    ["of an unknown path", "/unknown", "", 404],
    [
      "of a preview that does not exist",
      `http://8000-x-${"a".repeat(16)}-${"0".repeat(19)}.localhost/`,
      "",
      404,
    ],
    ["of a foreign host", "http://other.example/tasks/x/result", "", 403],
    ["with a wrong token", "/tasks/x/result", "wrong", 401],
    ["for a file with an invalid name", "/sandboxes/A/files/x", "token-of-flooding", 400],
    ["with an invalid query", "/mcp?tools=x", "token-of-flooding", 400],
  ])("another principal's later call is answered before most of them: %s", async (_, path, token, status) => {
    const headers = { authorization: `Bearer ${token}` };
    const method = path.startsWith("/mcp") ? "POST" : "GET";
    const ended = new Set<number>();
    let responses = 0;
    const flood = Array.from({ length: REQUESTS }, async () => {
      ended.add((await flooding.http(new URL(path, ORIGIN).href, { method, headers })).status);
      responses += 1;
    });
    expect(await list(neighbour)).toMatchObject({ isError: false });
    expect(responses).toBeLessThan(REQUESTS / 2);
    await Promise.all(flood);
    expect([...ended]).toEqual([status]);
  });
});

it("a principal's calls are answered while many others of its calls wait for a run", async () => {
  const run = await flooding.call("run_command", { sandbox, command: "sleep 600", wait_seconds: 0 });
  const id = idIn(run);
  let returned = 0;
  const waiting = Array.from({ length: 60 }, async () => {
    await flooding.call("get_result", { id, wait_seconds: 50 });
    returned += 1;
  });
  expect(await list(flooding)).toMatchObject({ isError: false });
  expect(returned).toBe(0);
  await flooding.call("cancel_run", { id });
  await Promise.all(waiting);
});

/** Starts a call that lasts until `end`. */
function startCall(principalID: string, began: () => void = () => undefined) {
  const client = new AbortController();
  const { promise, resolve: end } = Promise.withResolvers<void>();
  const call = new RequestTurns(principalID, client.signal).run(() => {
    began();
    return promise;
  });
  // The test may end before the call.
  call.catch(() => undefined);
  return { client, end, call };
}

it("a call is refused if too many calls of its principal wait already, and accepted when they have ended", async () => {
  const start = (length: number) => Array.from({ length }, () => startCall(flooding.principalID));
  const calls = start(2100);
  // The first calls have passed the limit of calls in a second.
  await sleep(2200);
  calls.push(...start(1000));
  expect(await list(flooding)).toMatchObject({
    status: 429,
    text: expect.stringContaining("too many of your calls wait"),
  });
  expect(await list(neighbour)).toMatchObject({ isError: false });
  for (const { client } of calls) client.abort();
  expect(await list(flooding)).toMatchObject({ isError: false });
});

it("a principal's calls are refused beyond those that it may make in two seconds, even if each takes almost no time", async () => {
  // The clock stands still, so the number does not depend on the machine.
  vi.useFakeTimers({ toFake: ["performance"] });
  const { signal } = new AbortController();
  const call = () => new RequestTurns("makes-short-calls", signal).run(async () => undefined);
  const results = await Promise.allSettled(Array.from({ length: 2400 }, call));
  expect(results.filter(({ status }) => status === "rejected")).toHaveLength(200);
});

it("batches with more calls than a principal may make in two seconds are refused as a whole", async () => {
  const batching = await principal("batching");
  // The clock stands still, because on a slow machine the batches may take longer than the pace allows for them.
  vi.useFakeTimers({ toFake: ["performance"] });
  const calls = Array.from({ length: BATCH }, (_, id) => ({ jsonrpc: "2.0", id, method: "ping" }));
  const statuses = await Promise.all(
    Array.from({ length: 40 }, async () => {
      const response = await batching.fetch(JSON.stringify(calls));
      return { status: response.status, length: (await response.text()).length };
    }),
  );
  const served = statuses.filter(({ status }) => status === 200);
  const refused = statuses.filter(({ status }) => status === 429);
  expect([served.length > 10, refused.length > 5]).toEqual([true, true]);
  expect(served.length + refused.length).toBe(40);
  for (const { length } of refused) expect(length).toBeLessThan(1000);
});

describe("a request of a stranger waits for at most two seconds", () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));

  /** Whether an open request may be served after this time. */
  async function isServedAfter(ms: number): Promise<boolean> {
    let isServed = false;
    void paceOpenRequest(new AbortController().signal).then(() => (isServed = true));
    // The asynchronous method takes a millisecond for each timer.
    vi.advanceTimersByTime(ms);
    await vi.advanceTimersByTimeAsync(0);
    return isServed;
  }

  it("and not at all because of the refused calls of a principal", async () => {
    expect(await isServedAfter(0)).toBe(true);
    const calls = Array.from({ length: 3000 }, () => startCall("refused-often"));
    expect(await isServedAfter(0)).toBe(true);
    for (const { client, end } of calls) {
      client.abort();
      end();
    }
  });

  it("and not at all because of refused heads", async () => {
    for (let count = 0; count < 300; count++) void paceLargeHead(new AbortController().signal);
    expect(await isServedAfter(0)).toBe(true);
  });

  it("however many other clients have sent a request and disconnected", async () => {
    for (let count = 0; count < 3000; count++) void paceOpenRequest(new AbortController().signal);
    expect(await isServedAfter(MAX_PACE_MS)).toBe(true);
  });

  /** Starts requests of a sender, or without a token. Returns the function that counts those that still wait after a time. */
  function openMany(count: number, sender?: string) {
    let waiting = count;
    for (let index = 0; index < count; index++) {
      const { signal } = new AbortController();
      const request = new OpenRequest(signal);
      if (sender !== undefined) request.countFor(sender);
      void paceOpenRequest(signal).finally(() => {
        request.end();
        waiting--;
      });
    }
    return async (ms: number) => {
      vi.advanceTimersByTime(ms);
      await vi.advanceTimersByTimeAsync(0);
      return waiting;
    };
  }

  it.each([
    ["others", undefined],
    ["refused requests to a preview", "previews of opens-refused"],
  ])(
    "and few %s wait at once, because each keeps a connection, also if its client has left",
    async (_, sender) => {
      const countAfter = openMany(6000, sender);
      const waiting = await countAfter(100);
      expect(waiting).toBeGreaterThan(3500);
      expect(waiting).toBeLessThan(4200);
      expect(await countAfter(MAX_PACE_MS)).toBe(0);
    },
  );
});

describe("open requests", () => {
  const files = 20_000;

  /** Opens requests of a sender until one may not wait. Returns their clients. */
  function openAll(sender: string): AbortController[] {
    const clients: AbortController[] = [];
    for (;;) {
      const client = new AbortController();
      clients.push(client);
      new OpenRequest(client.signal, files).countFor(sender);
      if (!mayWait(sender) || clients.length > files) return clients;
    }
  }

  it("of many senders take at most half of the server's files, and another sender may still open some", () => {
    const clients = Array.from({ length: 50 }, (_, n) => openAll(`opens-many-${n}`));
    const later = openAll("opens-later");
    for (const client of clients.flat()) client.abort();
    for (const client of later) client.abort();
    const atFirst = openAll("opens-later");
    for (const client of atFirst) client.abort();
    expect(clients[0]?.length).toBe(atFirst.length);
    expect(atFirst.length).toBeGreaterThan(2000);
    // Each takes two files.
    expect(2 * (clients.flat().length + later.length)).toBeLessThan(0.6 * files);
    expect(later.length).toBeGreaterThan(10);
  });

  it("count for their sender until they end, their client disconnects, or it has read a long response", () => {
    const clients = Array.from({ length: 18 }, () => new AbortController());
    const requests = clients.map(({ signal }) => new OpenRequest(signal, 0));
    const isFull = () => !mayWait("opens-18");
    expect(isFull()).toBe(false);
    for (const { signal } of clients) countFor(signal, "opens-18");
    expect(isFull()).toBe(true);
    const ends = clients.map(({ signal }) => keepOpen(signal));
    for (const request of requests) request.end();
    expect(isFull()).toBe(true);
    clients[0]?.abort();
    expect(isFull()).toBe(true);
    ends[1]?.();
    expect(isFull()).toBe(false);
    for (const end of ends) end();
    expect(openAll("opens-18").length).toBeGreaterThan(2000);
  });
});

describe("after more characters of answers than the server makes for a principal in a second", () => {
  const MEBIBYTE = 1024 * 1024;
  beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] }));

  it.each([
    { waits: "for a time in proportion", mebibytes: 24, startsAfterMs: 2000 },
    { waits: "for five seconds at most", mebibytes: 1024, startsAfterMs: 5000 },
  ])("the principal's next call waits $waits, and a neighbour's not", async (answers) => {
    const id = `reads-${answers.mebibytes}`;
    const { signal } = new AbortController();
    new RequestTurns(id, signal).countAnswer(answers.mebibytes * MEBIBYTE);
    const begun: string[] = [];
    const begin = (who: string) => void new RequestTurns(who, signal).run(async () => void begun.push(who));
    begin(id);
    begin("reads-nothing");
    await vi.advanceTimersByTimeAsync(answers.startsAfterMs - 100);
    expect(begun).toEqual(["reads-nothing"]);
    await vi.advanceTimersByTimeAsync(100);
    expect(begun).toEqual(["reads-nothing", id]);
  });

  it("a call whose client disconnects during its wait does not begin, and the next one does", async () => {
    const id = "reads-and-leaves";
    new RequestTurns(id).countAnswer(16 * MEBIBYTE);
    const begun: string[] = [];
    const calls = ["a", "b", "c", "d", "next"].map((name) => startCall(id, () => void begun.push(name)));
    await vi.advanceTimersByTimeAsync(500);
    for (const { client } of calls.slice(0, 4)) client.abort();
    await vi.advanceTimersByTimeAsync(6000);
    expect(begun).toEqual(["next"]);
    for (const { end } of calls) end();
  });

  it("further calls that wait in vain let no others begin", async () => {
    const id = "reads-very-much";
    new RequestTurns(id).countAnswer(1024 * MEBIBYTE);
    let begun = 0;
    const outcomes: string[] = [];
    for (let count = 0; count < 190; count++)
      void new RequestTurns(id)
        .run(async () => void (begun += 1))
        .then(
          () => outcomes.push("begun"),
          () => outcomes.push("refused"),
        );
    await vi.advanceTimersByTimeAsync(60_000);
    expect(begun).toBeLessThan(50);
    expect(outcomes).toHaveLength(190);
  });

  it("a call begins at once if its principal has received few", async () => {
    const { signal } = new AbortController();
    new RequestTurns("reads-little", signal).countAnswer(7 * MEBIBYTE);
    let isBegun = false;
    void new RequestTurns("reads-little", signal).run(async () => void (isBegun = true));
    await vi.advanceTimersByTimeAsync(0);
    expect(isBegun).toBe(true);
  });
});

describe("an answer or a body counts in this pace", () => {
  const file = "many-characters.txt";
  const chars = 20_000;
  it.each<{ of: string; send: () => Promise<unknown>; least: number }>([
    { of: "a tool", send: () => neighbour.call("read_file", { sandbox, path: file }), least: chars },
    {
      of: "a resource",
      send: () =>
        neighbour.result({ method: "resources/read", params: { uri: `sandbox://${sandbox}/${file}` } }),
      least: chars,
    },
    { of: "the list of resources", send: () => neighbour.result({ method: "resources/list" }), least: 100 },
    {
      of: "a listing over HTTP",
      send: async () => (await neighbour.http(`/sandboxes/${sandbox}/files/`)).text(),
      least: file.length,
    },
    {
      of: "a message that is refused for its length",
      send: () => neighbour.post({ method: "x".repeat(100_000) }),
      least: 100_000,
    },
    {
      of: "a call that is refused for an argument",
      send: () => neighbour.call("list_sandboxes", { unknown: "x".repeat(100_000) }),
      least: 100_000,
    },
  ])("of $of", async ({ send, least }) => {
    await neighbour.call("write_file", { sandbox, path: file, content: "a".repeat(chars) });
    const counted = vi.spyOn(RequestTurns.prototype, "countAnswer");
    onTestFinished(() => counted.mockRestore());
    await send();
    expect(Math.max(0, ...counted.mock.calls.map(([each]) => each))).toBeGreaterThanOrEqual(least);
  });
});

describe("the turns of a principal", () => {
  it("are given in the order of the calls", async () => {
    const begun: number[] = [];
    const calls = Array.from({ length: 50 }, (_, n) => startCall("in-order", () => begun.push(n)));
    await until(() => begun.length > 1);
    expect(begun.length).toBeLessThan(calls.length);
    for (const { end } of calls) end();
    await Promise.all(calls.map(({ call }) => call));
    expect(begun).toEqual(calls.map((_, n) => n));
  });

  it("are few, so that a neighbour's call waits for few others, and each turn ends if its call only waits", async () => {
    vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
    let begun = 0;
    const calls = Array.from({ length: 50 }, () => startCall("waiting", () => (begun += 1)));
    await until(() => begun > 1);
    await sleep(50);
    expect(begun).toBeLessThan(5);
    vi.advanceTimersByTime(30);
    await until(() => begun > 5);
    for (const { end } of calls) end();
    await Promise.all(calls.map(({ call }) => call));
  });

  it("are given to the next calls when clients disconnect, whether their calls have begun or wait", async () => {
    const begun: number[] = [];
    const calls = Array.from({ length: 50 }, (_, n) => startCall("disconnecting", () => begun.push(n)));
    await until(() => begun.length > 1);
    const last = calls.length - 1;
    // The runtime may end the requests of these clients, so their calls do not return.
    for (const { client } of calls.slice(0, last)) client.abort();
    await until(() => begun.includes(last));
    expect(begun.length).toBeLessThan(calls.length);
  });
});

it("calls that never end make only one later call wait in vain", async () => {
  const turns = new TurnsByID(() => new Turns(1));
  const take = () => turns.take("principal", 50, new AbortController().signal);
  // The platform ended the request of the first call, so this turn never ends.
  expect(await take()).toBeTypeOf("function");
  expect(await take()).toBeUndefined();
  expect(await take()).toBeTypeOf("function");
});

it("the end of old turns gives them to the next calls, and ends no others", async () => {
  const turns = new Turns(2);
  await Promise.all([turns.take(1000), turns.take(1000)]);
  const waiting = Array.from({ length: 5 }, () => turns.take(1000));
  turns.endOlderThan(0);
  expect(turns.waiting).toBe(3);
  expect(await Promise.all(waiting.slice(0, 2))).toEqual([expect.any(Function), expect.any(Function)]);
});

it("a turn can be ended although the call that got it has not continued", async () => {
  const turns = new Turns(1);
  const endFirst = await turns.take(1000);
  const second = turns.take(1000);
  endFirst?.();
  // Nothing has run since then. If the platform has ended the second call, it never continues.
  turns.endOlderThan(0);
  expect(turns.isUnused).toBe(true);
  expect(await second).toBeUndefined();
});

describe.each(["/mcp", "/execute"])("a body for %s", (path) => {
  /** `calls` starts more calls of a principal than it has turns. `send` sends a body for it. `begun` counts the calls that have begun. */
  async function flood() {
    const name = `bodies-for-${path.slice(1)}`;
    const caller = await principal(name, ["tasks:run"]);
    let begun = 0;
    const calls = () => Array.from({ length: 100 }, () => startCall(caller.principalID, () => (begun += 1)));
    const send = (pull: (controller: ReadableByteStreamController) => void | Promise<void>) => {
      const headers = { authorization: `Bearer ${caller.token}`, "content-type": "application/json" };
      return caller.http(path, {
        method: "POST",
        headers,
        body: new ReadableStream({ type: "bytes", pull }),
      });
    };
    return { calls, send, begun: () => begun };
  }

  function endWith(controller: ReadableByteStreamController, text: string) {
    controller.enqueue(new TextEncoder().encode(text));
    controller.close();
  }

  it("is not read before it is the request's turn", async () => {
    const { calls, send, begun } = await flood();
    const waiting = calls();
    let begunBefore = 0;
    const response = await send((controller) => {
      begunBefore = begun();
      endWith(controller, "{");
    });
    expect(begunBefore).toBe(waiting.length);
    expect(response.status).toBe(400);
    for (const { end } of waiting) end();
  });

  it("that was slow is not parsed before it is the request's turn again", async () => {
    const { calls, send, begun } = await flood();
    let waiting: ReturnType<typeof calls> = [];
    const response = await send(async (controller) => {
      await sleep(200);
      waiting = calls();
      endWith(controller, "{");
    });
    expect(response.status).toBe(400);
    expect(begun()).toBe(waiting.length);
    for (const { end } of waiting) end();
  });
});
