/** Requests to sandboxd: when the container is replaced, and when they are many. */
import { expect, it, vi } from "vitest";
import { FileOperations } from "../../../src/container/file-operations.ts";
import { Sandboxd } from "../../../src/container/sandboxd.ts";
import { sleep, until } from "../../setup/until.ts";
import { EndingError } from "../../../src/shared/errors.ts";

it("a request is not repeated in the next container, and its error says that the container stopped", async () => {
  const [first, next] = [new AbortController(), new AbortController()];
  const lifecycle = { container: first.signal, waitUntilReady: async () => undefined };
  const requests: PromiseWithResolvers<Response>[] = [];
  const port = {
    isRunning: true,
    noteUse: () => undefined,
    fetch: () => {
      const request = Promise.withResolvers<Response>();
      requests.push(request);
      if (requests.length > 1) request.resolve(new Response("from the next container"));
      return request.promise;
    },
  };
  const sandboxd = new Sandboxd(port, { get: <T>() => "token" as T, put: () => undefined });
  const request = sandboxd.withWorkspace(lifecycle);
  const { signal } = new AbortController();
  const sending = request("/files", { method: "PUT", body: "more" }, signal, (response) => response.text());
  const failed = sending.then(
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
  const lifecycle = { container: new AbortController().signal, waitUntilReady: async () => undefined };
  let [open, most] = [0, 0];
  const port = {
    isRunning: true,
    noteUse: () => undefined,
    fetch: async () => {
      most = Math.max(most, ++open);
      await sleep(5);
      open -= 1;
      return new Response("found");
    },
  };
  const sandboxd = new Sandboxd(port, { get: <T>() => "token" as T, put: () => undefined });
  const request = sandboxd.withWorkspace(lifecycle);
  const { signal } = new AbortController();
  const responses = await Promise.all(
    Array.from({ length: 1000 }, () => request("/list", {}, signal, (response) => response.text())),
  );
  expect(new Set(responses)).toEqual(new Set(["found"]));
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThan(100);
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
  try {
    const failed = files
      .call("store", { path: "/workspace/a", max: 10, length: 4, body: new Response("text").body! })
      .catch((error: unknown) => error);
    expect(await read.promise).toBe("text");
    await vi.advanceTimersByTimeAsync(86_399_000);
    expect(given?.aborted).toBe(false);
    await vi.advanceTimersByTimeAsync(1000);
    expect(await failed).toMatchObject({ code: "no_answer" });
    expect(given?.aborted).toBe(true);
  } finally {
    vi.useRealTimers();
  }
});
