/** Requests to sandboxd: when the container is replaced or sandboxd does not respond, and how much input they hold. */
import { expect, it } from "vitest";
import { FileOperations } from "../../../src/container/file-operations.ts";
import { Sandboxd } from "../../../src/container/sandboxd.ts";
import { EndingError } from "../../../src/shared/errors.ts";
import { until } from "../../setup/until.ts";
import { actorOf, principal } from "../support.ts";

/** The storage of the token for sandboxd. */
const kv = { get: <T>() => "token" as T, put: () => undefined };

/** Sends requests to the sandboxd of a new sandbox. @param fetch responds as sandboxd */
function requestsTo(
  fetch: (request: Request) => Promise<Response>,
  lifecycle = { container: new AbortController().signal, waitUntilReady: async () => undefined },
) {
  const port = {
    isRunning: true,
    noteUse: () => undefined,
    fetch: (_port: number, request: Request) => fetch(request),
  };
  return new Sandboxd(port, kv, () => "tester").withWorkspace(lifecycle);
}

const { signal } = new AbortController();

it("a request is not repeated in the next container, and its error says that the container stopped", async () => {
  const [first, next] = [new AbortController(), new AbortController()];
  const lifecycle = { container: first.signal, waitUntilReady: async () => undefined };
  const requests: PromiseWithResolvers<Response>[] = [];
  const send = requestsTo(() => {
    const request = Promise.withResolvers<Response>();
    requests.push(request);
    return request.promise;
  }, lifecycle);
  const init = { method: "PUT", body: "more" };
  const failed = send("/files", init, signal, (response) => response.text()).catch((error) => error);
  await until(() => requests.length > 0);
  first.abort();
  lifecycle.container = next.signal;
  requests[0]?.reject(new Error("connection reset"));
  expect(await failed).toBeInstanceOf(EndingError);
  expect(requests).toHaveLength(1);
});

it("a long body is sent again when sandboxd responds again", async () => {
  const startedAt = Date.now();
  const send = requestsTo(async () => {
    if (Date.now() - startedAt < 1000) throw new Error("connection refused");
    return new Response("done");
  });
  const init = { method: "PUT", body: "x".repeat(1024 * 1024) };
  expect(await send("/files", init, signal, (response) => response.text())).toBe("done");
});

it("a listing that is longer than announced is refused", async () => {
  const json = JSON.stringify({ entries: [] }).padEnd(8_000_000);
  const headers = { "content-length": "100000" };
  const fetch = requestsTo(async () => new Response(json, { headers }));
  const files = new FileOperations(fetch, { noteChange: () => undefined });
  const listed = files.call("list", { path: "/", depth: 1, limit: 1 });
  await expect(listed).rejects.toThrow(/another program may be in its place/);
});

it("an actor refuses calls while others of their principal hold 32 MiB of input", async () => {
  const caller = await principal("held-input");
  const { principalID } = caller;
  const sandbox = "held-input";
  // Longer than the server lets a client wait.
  await caller.call("configure_sandbox", { sandbox, setup: "sleep 90" });
  const actor = await actorOf(sandbox, caller);
  const scopes = ["sandbox:read", "sandbox:write"] as const;
  const body = new Uint8Array(4 * 1024 * 1024);
  const writes = Array.from({ length: 12 }, () => {
    const input = { path: "/workspace/a", id: crypto.randomUUID(), body };
    return actor.operate({ principalID, sandbox, scopes, callerWaitMs: 3000 }, "write", input);
  });
  const codes = (await Promise.all(writes)).map((outcome) => outcome.ok || outcome.failure.code);
  expect(codes.filter((code) => code === "quota_exceeded")).toHaveLength(5);
  expect(codes.filter((code) => code === "no_answer")).toHaveLength(7);
  expect((await caller.call("destroy_sandbox", { sandbox })).isError).toBe(false);
});
