import { describe, expect, it } from "vitest";
import { log, type LogEvent } from "../../../src/shared/log.ts";
import { createMCPServer } from "../../../src/server/mcp.ts";
import { requiredScopes } from "../../../src/tools/index.ts";
import { appWith, LIST, post, recordEachLog } from "./support.ts";

const logs = recordEachLog();

const call: LogEvent = {
  event: "call",
  request_id: "r",
  principal: "owner",
  via: "token",
  scope: "sandbox:exec",
  tool: "run_code",
  sandbox: "default",
  duration_ms: 12,
  outcome: "ok",
};
const refusal: LogEvent = { event: "refusal", request_id: "r", status: 401, reason: "no_token" };
const failure: LogEvent = { event: "error", ref: "r", where: "mcp", error: new Error("x\n    at home") };

describe("a log line", () => {
  it("is one line of JSON with the event's fields, a time and a level", () => {
    log({ logLevel: "info" }, call);
    expect(logs.text()).not.toContain("\n");
    expect(logs.entries()).toEqual([{ ...call, level: "info", time: expect.stringMatching(/^\d{4}-.*Z$/) }]);
  });

  it.each([
    ["debug", ["call", "refusal", "error"]],
    ["info", ["call", "refusal", "error"]],
    ["warn", ["refusal", "error"]],
    ["error", ["error"]],
  ] as const)("at the log level %s is written for the events %j", (logLevel, events) => {
    for (const event of [call, refusal, failure]) log({ logLevel }, event);
    expect(logs.entries().map(({ event }) => event)).toEqual(events);
  });
});

describe("the log records the use of a token", () => {
  const OLD = { "mcp-protocol-version": "1999-01-01" };
  const add = (args: unknown, more = {}) => ({
    jsonrpc: "2.0",
    method: "tools/call",
    params: { name: "read_file", arguments: args },
    ...more,
  });
  const about = { principal: "owner", via: "token" };

  it.each([
    [
      "arguments that the schema refuses",
      post(add({ sandbox: "NO NAME" }, { id: 1 })),
      { event: "call", tool: "read_file", outcome: "error", error_code: "invalid_argument" },
    ],
    ["a call without an id", post(add({ path: "x" })), { event: "token", action: "use" }],
    [
      "a version of the protocol that does not exist",
      post(add({ path: "x" }, { id: 1 }), OLD),
      { event: "token", action: "use" },
    ],
    [
      "another type of body",
      post(add({ path: "x" }, { id: 1 }), { "content-type": "text/plain" }),
      { event: "refusal", status: 415, reason: "bad_body" },
    ],
  ])("with %s", async (_what, init, expected) => {
    const send = appWith({}, { createMCPServer, requiredScopes });
    await (await send("/mcp", init)).text();
    expect([...logs.entries(), ...logs.tokens()]).toMatchObject([{ ...expected, ...about }]);
    expect(logs.text()).not.toContain("NO NAME");
  });
});

describe("the trace of the caller", () => {
  const TRACE = "0af7651916cd43dd8448eb211c80319c";
  const SPAN = "b7ad6b7169203331";

  it.each([
    [`00-${TRACE}-${SPAN}-01`, { trace_id: TRACE, parent_span_id: SPAN }],
    [`cc-${TRACE}-${SPAN}-01-more`, { trace_id: TRACE, parent_span_id: SPAN }],
    [`00-${TRACE}-${SPAN}-01-more`, {}],
    [`ff-${TRACE}-${SPAN}-01`, {}],
    [`00-${"0".repeat(32)}-${SPAN}-01`, {}],
    [`00-${TRACE.toUpperCase()}-${SPAN}-01`, {}],
    ["a secret", {}],
    [{ a: "secret" }, {}],
  ])("%j is logged as %j", async (traceparent, expected) => {
    const send = appWith({}, { createMCPServer, requiredScopes });
    const params = { name: "read_file", arguments: { sandbox: "NO NAME" }, _meta: { traceparent } };
    await (await send("/mcp", post({ jsonrpc: "2.0", id: 1, method: "tools/call", params }))).text();
    const [entry] = logs.entries();
    const logged = Object.entries(entry ?? {}).filter(([name]) => /trace|span/.test(name));
    expect(Object.fromEntries(logged)).toEqual(expected);
    expect(logs.text()).not.toContain("secret");
  });

  it("is taken from the HTTP headers if the message has none", async () => {
    const headers = { traceparent: `00-${TRACE}-${SPAN}-00` };
    await (await appWith()("/mcp", post(LIST, headers))).text();
    expect(logs.tokens()).toMatchObject([{ trace_id: TRACE, parent_span_id: SPAN }]);
  });
});

describe("an unexpected error", () => {
  it.each([
    [Object.assign(new RangeError("command: rm -rf secret"), { code: "E_RANGE" }), "RangeError", "E_RANGE"],
    ["secret", "string", undefined],
    [undefined, "undefined", undefined],
    [{ secret: 1 }, "object", undefined],
    [Object.assign(new Error("x"), { code: { secret: 1 } }), "Error", undefined],
    [Object.assign(new Error("x"), { code: "the secret" }), "Error", undefined],
    [new Error("x\n    at secret (secret:1:1)\n at secret"), "Error", undefined],
  ])("%o is logged with its place and without its message", (error, name, code) => {
    log({ logLevel: "info" }, { event: "error", ref: "r", where: "run_code", error });
    expect(logs.entries()).toMatchObject([{ error_name: name, ref: "r", where: "run_code" }]);
    expect(logs.entries()[0]?.error_code).toBe(code);
    expect(logs.text()).not.toContain("secret");
  });

  it.each(["info", "debug"] as const)(
    "at the level %s takes a short line, whatever its message",
    (logLevel) => {
      const error = new Error("\n    at forged".repeat(100_000));
      log({ logLevel }, { event: "error", ref: "r", where: "run", error });
      expect(logs.text().length).toBeLessThan(20_000);
      expect(logs.entries()[0]?.error_stack).toEqual(
        expect.arrayContaining([expect.stringMatching(/^at .*log\.test/)]),
      );
    },
  );
});
