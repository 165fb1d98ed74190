/** Requests to sandboxd: when the container is replaced, and when they are many. */
import { expect, it, vi } from "vitest";
import { FileOperations } from "../../../src/container/file-operations.ts";
import { Sandboxd } from "../../../src/container/sandboxd.ts";
import { sleep, until } from "../../setup/until.ts";
import { EndingError } from "../../../src/shared/errors.ts";

/** The storage of the token for sandboxd. */
const kv = { get: <T>() => "token" as T, put: () => undefined };

/** Returns a function that sends requests to the sandboxd of a new sandbox. @param fetch responds as sandboxd */
function requestsTo(
  fetch: (request: Request) => Promise<Response>,
  {
    lifecycle = { container: new AbortController().signal, waitUntilReady: async () => undefined },
    principal = "tester",
  } = {},
) {
  const port = {
    isRunning: true,
    noteUse: () => undefined,
    fetch: (_port: number, request: Request) => fetch(request),
  };
  const request = new Sandboxd(port, kv, () => principal).withWorkspace(lifecycle);
  const { signal } = new AbortController();
  return (path: string, init: RequestInit) => request(path, init, signal, (response) => response.text());
}

it("a request is not repeated in the next container, and its error says that the container stopped", async () => {
  const [first, next] = [new AbortController(), new AbortController()];
  const lifecycle = { container: first.signal, waitUntilReady: async () => undefined };
  const requests: PromiseWithResolvers<Response>[] = [];
  const send = requestsTo(
    () => {
      const request = Promise.withResolvers<Response>();
      requests.push(request);
      if (requests.length > 1) request.resolve(new Response("from the next container"));
      return request.promise;
    },
    { lifecycle },
  );
  const failed = send("/files", { method: "PUT", body: "more" }).then(
    (text) => text,
    (error: unknown) => error,
  );
  await until(() => requests.length > 0);
  first.abort();
  lifecycle.container = next.signal;
  requests[0]?.reject(new Error("connection reset"));
  expect(await failed).toBeInstanceOf(EndingError);
  expect(requests).toHaveLength(1);
});

it("few requests are open at once, the others wait for their turn, and all get a response", async () => {
  let [open, most] = [0, 0];
  const send = requestsTo(async () => {
    most = Math.max(most, ++open);
    await sleep(5);
    open -= 1;
    return new Response("found");
  });
  const responses = await Promise.all(Array.from({ length: 1000 }, () => send("/list", {})));
  expect(new Set(responses)).toEqual(new Set(["found"]));
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThan(100);
});

/** Lists a directory in a sandbox whose sandboxd announces 8 MB like this. */
function listLong(principal: string, announced = "8000000"): Promise<unknown> {
  const json = JSON.stringify({ entries: [] }).padEnd(8_000_000);
  const headers = { "content-length": announced };
  const lifecycle = { container: new AbortController().signal, waitUntilReady: async () => undefined };
  const port = {
    isRunning: true,
    noteUse: () => undefined,
    fetch: async () => new Response(json, { headers }),
  };
  const fetch = new Sandboxd(port, kv, () => principal).withWorkspace(lifecycle);
  const files = new FileOperations(fetch, { noteChange: () => undefined });
  return files.call("list", { path: "/", depth: 1, limit: 1 });
}

it("a listing that is longer than announced is refused", async () => {
  await expect(listLong("lister of 100000", "100000")).rejects.toThrow(/another program may be in its place/);
});

it("a long body is not sent again and again to a program that breaks each connection", async () => {
  let sent = 0;
  const send = requestsTo(async (request) => {
    sent += (await request.arrayBuffer()).byteLength;
    throw new Error("connection reset");
  });
  const body = new Uint8Array(1024 * 1024);
  const failed = send("/files", { method: "PUT", body });
  await expect(failed).rejects.toMatchObject({ code: "no_answer" });
  expect(sent).toBeLessThanOrEqual(6 * body.length);
});

it("a long body is sent again when sandboxd responds again", async () => {
  const startedAt = Date.now();
  const send = requestsTo(async () => {
    if (Date.now() - startedAt < 1000) throw new Error("connection refused");
    return new Response("done");
  });
  const init = { method: "PUT", body: "x".repeat(1024 * 1024) };
  expect(await send("/files", init)).toBe("done");
});

it("an upload to which sandboxd does not respond fails after a day, and its request is aborted", async () => {
  const read = Promise.withResolvers<string>();
  let given: AbortSignal | undefined;
  const files = new FileOperations(
    async (_path, { body }, signal) => {
      given = signal;
      new Response(body).text().then(read.resolve, read.reject);
      return await new Promise<never>(() => {});
    },
    { noteChange: () => undefined },
  );
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const failed = files
    .call("store", { path: "/workspace/a", max: 10, length: 4, body: new Response("text").body! })
    .catch((error: unknown) => error);
  expect(await read.promise).toBe("text");
  await vi.advanceTimersByTimeAsync(86_399_000);
  expect(given?.aborted).toBe(false);
  await vi.advanceTimersByTimeAsync(1000);
  expect(await failed).toMatchObject({ code: "no_answer" });
  expect(given?.aborted).toBe(true);
});
