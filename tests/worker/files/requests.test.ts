/** Requests to sandboxd: when the container is replaced, and when they are many. */
import { expect, it, vi } from "vitest";
import { FileOperations } from "../../../src/container/file-operations.ts";
import { Sandboxd } from "../../../src/container/sandboxd.ts";
import { sleep, until } from "../../setup/until.ts";
import { EndingError } from "../../../src/shared/errors.ts";
import { readBounded } from "../../../src/shared/stream-bytes.ts";

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

it.each(["8000000", "many", "-8000000"])(
  "a long listing of the size %s waits for the pace of the principal's answers before it is read, because a call may show almost nothing of it",
  async (announced) => {
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
    let read = 0;
    for (let lists = 0; lists < 2; lists++)
      void listLong(`lister of ${announced}`, announced).then(() => (read += 1));
    const isRead = async () => {
      for (let rounds = 0; rounds < 200; rounds++) await vi.advanceTimersByTimeAsync(0);
      return read;
    };
    expect(await isRead()).toBe(1);
    vi.advanceTimersByTime(1100);
    expect(await isRead()).toBe(2);
  },
);

it("a listing that is longer than announced is refused", async () => {
  await expect(listLong("lister of 100000", "100000")).rejects.toThrow(/another program may be in its place/);
});

it("few uploads of a sandbox and of a principal are open at once, and leave places for other requests", async () => {
  const uploading = Promise.withResolvers<void>();
  let [open, most] = [0, 0];
  const createSandbox = (principal: string) => {
    const send = requestsTo(
      async ({ method, url }) => {
        if (method === "GET" || url.includes("/snapshot/")) return new Response("sandboxd");
        most = Math.max(most, ++open);
        await uploading.promise;
        open -= 1;
        return new Response("stored");
      },
      { principal },
    );
    const stream = (path: string) =>
      send(path, { method: "PUT", body: new IdentityTransformStream().readable });
    return { send, upload: () => stream("/store"), restore: () => stream("/snapshot/data") };
  };
  const first = createSandbox("uploader");
  const uploads = Array.from({ length: 100 }, first.upload);
  await until(() => open === 32);
  await sleep(20);
  expect(most).toBe(32);
  for (let count = 0; count < 3; count++)
    uploads.push(...Array.from({ length: 30 }, createSandbox("uploader").upload));
  await until(() => open === 64);
  await sleep(20);
  expect(most).toBe(64);
  expect(await first.send("/list", {})).toBe("sandboxd");
  expect(await createSandbox("uploader").restore()).toBe("sandboxd");
  uploads.push(createSandbox("another uploader").upload());
  await until(() => open === 65);
  uploading.resolve();
  expect(new Set(await Promise.all(uploads))).toEqual(new Set(["stored"]));
});

it("a long body is not sent again and again to a program that breaks each connection", async () => {
  let sent = 0;
  const send = requestsTo(async (request) => {
    if (request.method === "GET") return new Response("sandboxd");
    sent += (await request.arrayBuffer()).byteLength;
    throw new Error("connection reset");
  });
  const body = new Uint8Array(1024 * 1024);
  const failed = send("/files", { method: "PUT", body });
  await expect(failed).rejects.toMatchObject({ code: "no_answer" });
  expect(sent).toBeLessThanOrEqual(3 * body.length);
});

it("a long body is sent again when sandboxd responds again", async () => {
  const startedAt = Date.now();
  const calls: string[] = [];
  const send = requestsTo(async ({ method }) => {
    if (calls.at(-1) !== method) calls.push(method);
    if (Date.now() - startedAt < 1000) throw new Error("connection refused");
    return new Response("done");
  });
  const init = { method: "PUT", body: "x".repeat(1024 * 1024) };
  expect(await send("/files", init)).toBe("done");
  expect(calls).toEqual(["PUT", "GET", "PUT"]);
});

it("requests to several sandboxes of a principal that do not respond are repeated at a common rate", async () => {
  // With real timers, a busy machine repeats too few of them until all have failed, 10 s later.
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "Date", "performance"] });
  const counts = { many: 0, other: 0 };
  const ending = new AbortController();
  const requestOf = (principal: "many" | "other") => {
    const fetch = async () => {
      counts[principal]++;
      throw new Error("connection reset");
    };
    const port = { isRunning: true, noteUse: () => undefined, fetch };
    const sandboxd = new Sandboxd(port, kv, () => principal);
    return () => sandboxd.request("/list", {}, ending.signal, async () => undefined).catch(() => undefined);
  };
  const requests = Array.from({ length: 10 }, () => requestOf("many")).flatMap((request) =>
    Array.from({ length: 16 }, request),
  );
  requests.push(requestOf("other")());
  await vi.advanceTimersByTimeAsync(1200);
  expect(counts.other).toBeGreaterThanOrEqual(20);
  // Otherwise each of the others would be repeated as often.
  expect(counts.many).toBeLessThan(160 * 10);
  expect(counts.many).toBeGreaterThan(160);
  ending.abort();
  await Promise.all(requests);
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

const MAX_BYTES = 8 * 1024 * 1024;

/** Reads a response of a new sandbox of a principal, as file operations do. @param signal prevents another try after a failure */
function readFrom(
  principal: string,
  response: Response,
  { signal = new AbortController().signal, ms }: { signal?: AbortSignal; ms?: number } = {},
) {
  const port = { isRunning: true, noteUse: () => undefined, fetch: async () => response };
  const sandboxd = new Sandboxd(port, kv, () => principal);
  return sandboxd.request("/list", {}, signal, (given, turns) =>
    readBounded(given, { maxBytes: MAX_BYTES, ms, turns: turns.plain }),
  );
}

/** Large responses that do not end. `readCount` is the number of responses that the server reads beyond the first 64 KiB. */
function createUnfinished() {
  const writers: WritableStreamDefaultWriter<Uint8Array>[] = [];
  const ending = new AbortController();
  let readCount = 0;
  return {
    readCount: () => readCount,
    /** Reads one more. Fails at the end, or after `ms`. */
    readBy(principal: string, ms?: number) {
      const { readable, writable } = new IdentityTransformStream();
      const writer = writable.getWriter();
      writers.push(writer);
      void writer.write(new Uint8Array(200_000)).then(
        () => (readCount += 1),
        () => undefined,
      );
      return readFrom(principal, new Response(readable), { signal: ending.signal, ms }).catch(
        () => undefined,
      );
    },
    async end() {
      ending.abort();
      await Promise.all(writers.map((writer) => writer.abort()));
    },
  };
}

it("large responses that three principals do not finish delay no read of 8 MB by a fourth one", async () => {
  const unfinished = createUnfinished();
  let ended = 0;
  const attack = ["first", "second", "third"].flatMap((principal) =>
    Array.from({ length: 5 }, () => unfinished.readBy(principal).finally(() => (ended += 1))),
  );
  await until(() => unfinished.readCount() >= 6);
  expect(await readFrom("fourth", new Response(new Uint8Array(MAX_BYTES)))).toHaveLength(MAX_BYTES);
  expect(ended).toBe(0);
  await unfinished.end();
  await Promise.all(attack);
});

it("large responses that a principal does not finish delay none of its reads of 700 KB", async () => {
  const unfinished = createUnfinished();
  let ended = 0;
  const attack = Array.from({ length: 10 }, () => unfinished.readBy("own").finally(() => (ended += 1)));
  await until(() => unfinished.readCount() === 2);
  const headers = { "content-length": "700000" };
  const response = new Response(new Uint8Array(700_000), { headers });
  expect(await readFrom("own", response)).toHaveLength(700_000);
  expect(ended).toBe(0);
  await unfinished.end();
  await Promise.all(attack);
});

it("a read that gets no turn in time does not let its principal read more at once", async () => {
  const unfinished = createUnfinished();
  const read = (ms?: number) => unfinished.readBy("patient", ms);
  const first = Array.from({ length: 2 }, () => read());
  await until(() => unfinished.readCount() === 2);
  expect(await read(100)).toBeUndefined();
  const later = Array.from({ length: 5 }, () => read());
  await sleep(200);
  expect(unfinished.readCount()).toBe(2);
  await unfinished.end();
  await Promise.all([...first, ...later]);
});
