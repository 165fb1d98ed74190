/** The requests of a sandbox that pass through the Worker. On Cloudflare, no engine limits them before. */
import { describe, expect, it, vi } from "vitest";
import { SERVER_HOST } from "../../container/sandboxd/protocol.ts";
import { Sandbox } from "../../src/actors/sandbox.ts";
import { inTurn } from "../../src/actors/platform/outbound-turns.ts";

/** Calls a handler as the SDK does, in an environment whose actors never respond. Returns how many calls the actors got. */
function flood(count: number, handler: "policy" | "model" | "ending", containerId: string) {
  let calls = 0;
  const called = () => {
    calls++;
    return new Promise(() => undefined);
  };
  const actor = { connectionMade: called, admitModelCall: called, containerEnding: called };
  const env = { Sandbox: { idFromString: (id: string) => id, get: () => actor } };
  const [url, handle] = {
    policy: ["http://refused.example/", Sandbox.outboundHandlers?.policy],
    model: ["http://anthropic.internal/v1/messages", Sandbox.outboundByHost?.["anthropic.internal"]],
    ending: [`http://${SERVER_HOST}/ending`, Sandbox.outboundByHost?.[SERVER_HOST]],
  }[handler] as [string, (request: Request, ...more: unknown[]) => Promise<Response>];
  for (let sent = 0; sent < count; sent++)
    void handle(new Request(url, { method: "POST" }), env, { containerId, className: "Sandbox" });
  return () => calls;
}

describe("the Worker handles 16 requests of a sandbox at once", () => {
  it.each(["policy", "model"] as const)("by the handler %s", async (handler) => {
    const calls = flood(100, handler, handler);
    const ofNeighbour = flood(1, handler, `neighbour of ${handler}`);
    await expect.poll(ofNeighbour).toBe(1);
    expect(calls()).toBe(16);
  });

  it("and the report of its container's end is not behind them", async () => {
    flood(100, "policy", "ends");
    await expect.poll(flood(1, "ending", "ends")).toBe(1);
  });

  it.each([
    ["of unknown length", {}],
    ["of known length", { "content-length": "3" }],
    ["of a length that is not a number", { "content-length": "abc" }],
    ["compressed", { "content-length": "3", "content-encoding": "gzip" }],
  ])("until each response has been sent, or its client has disconnected: %s", async (kind, headers) => {
    const bodies: WritableStream[] = [];
    const leave = new AbortController();
    const handle = async () => {
      const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
      bodies.push(writable);
      return new Response(readable, { headers, encodeBody: "manual" });
    };
    const responses = Array.from({ length: 18 }, async (_, number) => {
      const signal = number === 1 ? leave.signal : null;
      return await inTurn(new Request("http://a.example/", { signal }), kind, "x", handle);
    });
    await expect.poll(() => bodies.length).toBe(16);
    const writer = bodies[0]!.getWriter();
    const text = responses[0]!.then((response) => response.text());
    await writer.write(new TextEncoder().encode("all"));
    expect(bodies.length).toBe(16);
    await writer.close();
    expect(await text).toBe("all");
    await expect.poll(() => bodies.length).toBe(17);
    leave.abort();
    await expect.poll(() => bodies.length).toBe(18);
  });

  it("and a request that fails ends its turn", async () => {
    const attempt = (handle: () => Promise<Response>) =>
      inTurn(new Request("http://a.example/"), "failing", "x", handle);
    const fail = () => Promise.reject(new Error("failed"));
    for (let count = 0; count < 17; count++) await expect(attempt(fail)).rejects.toThrow("failed");
    const headers = { "content-length": "3" };
    const response = await attempt(async () => new Response("all", { headers }));
    expect(response.headers.get("content-length")).toBe("3");
    expect(await response.text()).toBe("all");
  });
});

it("ten sandboxes of a principal have one rate together, and another principal does not wait for them", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  let handled = 0;
  const handle = async () => {
    handled++;
    return new Response(null);
  };
  const leave = new AbortController();
  const send = (sandbox: string, principal: string) =>
    inTurn(new Request("http://a.example/", { signal: leave.signal }), sandbox, "rate", handle, principal);
  for (let sandbox = 0; sandbox < 10; sandbox++)
    for (let count = 0; count < 260; count++) void send(`sandbox-${sandbox}`, "many").catch(() => undefined);
  await vi.advanceTimersByTimeAsync(1000);
  expect(handled).toBeGreaterThanOrEqual(2000);
  await send("other", "another");
  // Without the common rate, all 2,600 are handled at once.
  expect(handled).toBeLessThan(2500);
  leave.abort();
});

it("requests whose clients disconnect before their turn comes do not make the principal's other sandboxes wait", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  const handle = async () => new Response(null);
  const send = (sandbox: string, signal: AbortSignal | null) =>
    inTurn(new Request("http://a.example/", { signal }), sandbox, "left", handle, "left");
  for (let batch = 0; batch < 400; batch++) {
    const leave = new AbortController();
    for (let count = 0; count < 16; count++) void send("leaving", leave.signal).catch(() => undefined);
    await vi.advanceTimersByTimeAsync(0);
    leave.abort();
  }
  let status = 0;
  void send("other", null).then((response) => void (status = response.status));
  await vi.advanceTimersByTimeAsync(5000);
  // Without this, the requests that have left count, so this takes 20 s.
  expect(status).toBe(200);
});

it("further requests than 256 that wait are refused after a moment", async () => {
  const never = () => new Promise<Response>(() => undefined);
  const send = () => inTurn(new Request("http://a.example/"), "refused", "x", never);
  for (let count = 0; count < 16 + 256; count++) void send();
  const from = Date.now();
  expect((await send()).status).toBe(429);
  expect(Date.now() - from).toBeGreaterThan(1900);
});
