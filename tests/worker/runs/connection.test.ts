/** The WebSocket to sandboxd. On Cloudflare, no engine limits what a program in sandboxd's place sends. */
import { describe, it } from "vitest";
import { Connection } from "../../../src/container/connection.ts";
import { containerGone } from "../../../src/container/texts.ts";
import { sleep } from "../../setup/until.ts";

/** A container that is ready. */
const lifecycle = () => ({
  isRunning: true,
  container: new AbortController().signal,
  waitUntilReady: async () => undefined,
  waitUntilReadyForRun: async () => undefined,
});

/**
 * A connection, by its own socket if there is one, whose other ends are `opened`, and which counts what a follower gets.
 * @param refused makes the responses to the first two attempts
 */
async function connect(own?: WebSocket, refused?: () => Response) {
  let attempts = 0;
  const opened: { at: number; server: WebSocket; signal: AbortSignal }[] = [];
  const fetch = async ({ signal }: Request) => {
    if (refused && attempts++ < 2) return refused();
    const { 0: webSocket, 1: server } = new WebSocketPair();
    server.accept();
    opened.push({ at: Date.now(), server, signal });
    return { webSocket: own ?? webSocket } as unknown as Response;
  };
  const connection = new Connection({ isRunning: true, fetch, noteUse: () => undefined }, lifecycle());
  const got = { events: 0, breaks: 0 };
  connection.follow("run1", {
    onEvent: () => void got.events++,
    onPiece: () => undefined,
    onBreak: () => void got.breaks++,
  });
  await connection.send({ type: "ping" });
  const [{ server, signal }] = opened as [(typeof opened)[0]];
  return { connection, opened, server, signal, got };
}

const EVENT = JSON.stringify({ type: "running", id: "run1" });

describe.concurrent("the connection to sandboxd", () => {
  it("stays open longer than it may take to connect", async ({ expect }) => {
    const { signal, got, server } = await connect();
    await sleep(10_500);
    server.send(EVENT);
    await expect.poll(() => got).toEqual({ events: 1, breaks: 0 });
    expect(signal.aborted).toBe(false);
  });

  it("reads no response without a WebSocket, and leaves none open", async ({ expect }) => {
    let cancelled = 0;
    const refused = () => new Response(new ReadableStream({ cancel: () => void cancelled++ }));
    const { opened } = await connect(undefined, refused);
    expect({ opened: opened.length, cancelled }).toEqual({ opened: 1, cancelled: 2 });
  });

  it("ends at once with an invalid message, although its other end goes on sending", async ({ expect }) => {
    const { signal, got, server } = await connect();
    for (const message of [EVENT, "invalid", EVENT]) server.send(message);
    await expect.poll(() => signal.aborted).toBe(true);
    expect(got).toEqual({ events: 1, breaks: 1 });
  });

  it("does not wait for ever for a confirmation of typed text, and does not claim that nothing was typed", async ({
    expect,
  }) => {
    const { connection, got, server } = await connect();
    const typing = connection.type("run1", { text: "x" });
    await expect(typing).rejects.toMatchObject({ code: "connection_lost" });
    server.send(EVENT);
    await expect.poll(() => got).toEqual({ events: 1, breaks: 0 });
  });

  it.for([
    ["confirms that it has read them", true],
    ["only sends pongs", false],
  ] as const)("sends few long calls ahead to an end that %s", async ([, confirms], { expect }) => {
    const { connection, signal, server } = await connect();
    const command = "x".repeat(200_000);
    let [starts, ahead, most] = [0, 0, 0];
    server.addEventListener("message", ({ data }) => {
      const call = JSON.parse(String(data));
      if (call.type === "start") starts++;
      ahead += String(data).length;
      most = Math.max(most, ahead);
      if (call.type !== "input") return server.send('{"type":"pong"}');
      if (!confirms) return;
      ahead = 0;
      server.send(JSON.stringify({ type: "typed", id: call.id, key: call.key, bytes: 0 }));
    });
    const call = { type: "start", id: "run1", session: "main", command, timeoutMs: 1000 } as const;
    const begin = () => connection.beginAgain(call, () => signal.aborted);
    const begun = await Promise.allSettled(Array.from({ length: 20 }, begin));
    const sent = begun.filter(({ status }) => status === "fulfilled").length;
    expect({ isAborted: signal.aborted, hasAll: sent === 20 }).toEqual({
      isAborted: !confirms,
      hasAll: confirms,
    });
    await expect.poll(() => starts).toBe(sent);
    expect(most).toBeLessThan(1_500_000);
  });

  it("is opened again for calls that wait for its confirmation while it ends", async ({ expect }) => {
    const { connection, opened, server } = await connect();
    server.addEventListener("message", ({ data }) => {
      if (JSON.parse(String(data)).type === "input") server.close();
    });
    const command = "x".repeat(200_000);
    const call = { type: "start", id: "run1", session: "main", command, timeoutMs: 1000 } as const;
    const begin = () => connection.beginAgain(call, () => false);
    await Promise.all(Array.from({ length: 8 }, begin));
    expect(opened.length).toBe(2);
  });

  it("starts no command that ended while it was opened", async ({ expect }) => {
    const started: string[] = [];
    const opening = Promise.withResolvers<void>();
    const fetch = async () => {
      const { 0: webSocket, 1: server } = new WebSocketPair();
      server.accept();
      server.addEventListener("message", ({ data }) => started.push(JSON.parse(String(data)).id));
      await opening.promise;
      return { webSocket } as unknown as Response;
    };
    const connection = new Connection({ isRunning: true, fetch, noteUse: () => undefined }, lifecycle());
    const hasEnded = new Set<string>();
    const begin = (id: string) =>
      connection.begin(
        { type: "start", id, session: "main", command: "true", timeoutMs: 1000 },
        () => hasEnded.has(id),
        () => undefined,
      );
    const begun = Promise.allSettled([begin("ended"), begin("wanted")]);
    hasEnded.add("ended");
    opening.resolve();
    expect((await begun).map(({ status }) => status)).toEqual(["rejected", "fulfilled"]);
    await expect.poll(() => started).toEqual(["wanted"]);
  });

  it("waits for no further container for a command that ended with its container", async ({ expect }) => {
    let waits = 0;
    let hasEnded = false;
    const { isRunning, waitUntilReady } = lifecycle();
    const waitUntilReadyForRun = async () => void waits++;
    const gone = { isRunning, container: undefined, waitUntilReady, waitUntilReadyForRun };
    const fetch = async () => {
      hasEnded = true;
      const { 0: webSocket, 1: server } = new WebSocketPair();
      server.accept();
      return { webSocket } as unknown as Response;
    };
    const connection = new Connection({ isRunning, fetch, noteUse: () => undefined }, gone);
    const call = { type: "start", id: "run1", session: "main", command: "true", timeoutMs: 1000 } as const;
    const begun = connection.begin(
      call,
      () => hasEnded,
      () => undefined,
    );
    await expect(begun).rejects.toThrow(containerGone().message);
    expect(waits).toBe(1);
  });

  it.for([
    ["does not confirm its end", WebSocket.CLOSING],
    ["has closed it too, and may have read nothing", WebSocket.CLOSED],
  ] as const)("is aborted if its other end %s", async ([, readyState], { expect }) => {
    const methods = { accept() {}, send() {}, close() {} };
    const closed = Object.assign(new EventTarget(), methods, { readyState });
    const { connection, signal } = await connect(closed as unknown as WebSocket);
    connection.close();
    expect(signal.aborted).toBe(false);
    await expect.poll(() => signal.aborted).toBe(true);
  });
});
