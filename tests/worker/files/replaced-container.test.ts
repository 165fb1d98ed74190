/** A request to sandboxd whose container is replaced before the connection to it breaks. */
import { expect, it } from "vitest";
import { Sandboxd } from "../../../src/container/sandboxd.ts";
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
  const answer = request("/files", { method: "PUT", body: "more" }, signal, (response) => response.text());
  const failed = answer.then(
    (text) => text,
    (error: unknown) => error,
  );
  first.abort();
  lifecycle.container = next.signal;
  requests[0]?.reject(new Error("connection reset"));
  expect(await failed).toBeInstanceOf(EndingError);
  expect(requests).toHaveLength(1);
});
