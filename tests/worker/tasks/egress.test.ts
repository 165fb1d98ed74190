/** Requests from inside a sandbox to anthropic.internal, which only this server serves. */
import { env } from "cloudflare:workers";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { IN_FLIGHT_MS, MAX_IN_FLIGHT } from "../../../src/tasks/budget.ts";
import { OUTBOUND } from "../../../src/container/model-egress.ts";
import { RequestMeter } from "../../../src/container/model-request.ts";
import { UsageCounter } from "../../../src/container/model-usage.ts";
import type { Env } from "../../../src/shared/config.ts";
import { actorOf, encode, runInActor, owner, sh, until, sleep } from "../support.ts";

/** The status and body of a request from a sandbox. */
async function ask(sandbox: string, path: string, options = ""): Promise<[status: string, body: string]> {
  const output = await sh(
    sandbox,
    `curl -sS -w '\\n%{http_code}' ${options} http://anthropic.internal${path}`,
  );
  const at = output.lastIndexOf("\n");
  return [output.slice(at + 1), output.slice(0, at)];
}

/** Starts a task. Returns its id, and its placeholder once its first command has begun. */
async function startTask(sandbox: string, task = "[[work]] x"): Promise<{ id: unknown; key: string }> {
  // An earlier task of this sandbox may have left these files.
  await sh(sandbox, "rm -f /workspace/begun /workspace/go-on");
  const { structured } = await owner.call("execute_task", { task, sandbox, wait_seconds: 0 });
  await until(async () => (await sh(sandbox, "cat /workspace/begun 2>/dev/null || true")) !== "");
  const keys = await sh(
    sandbox,
    "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sed -n 's/^ANTHROPIC_API_KEY=//p' | sort -u",
  );
  return { id: structured.id, key: keys.trim() };
}

/** How many requests to the model are under way. */
function countModelCalls(sandbox: string): Promise<number> {
  return runInActor(
    sandbox,
    (_actor, { storage }) => storage.sql.exec("SELECT * FROM model_calls").toArray().length,
  );
}

/** The arguments of curl for a request with this key. */
function curlArguments(key: string, message: object): string {
  return `-X POST -H 'x-api-key: ${key}' -H 'content-type: application/json' -d '${JSON.stringify(message)}'`;
}

const POST = "-X POST -H 'content-type: application/json' -d '{}'";

describe("anthropic.internal", () => {
  it("is served by this server, and refuses requests without a task", async () => {
    const [status, body] = await ask("plain", "/v1/messages", POST);
    expect(status).toBe("403");
    expect(body).toContain("sandbox-mcp: No running task of this sandbox has this key.");
    for (const header of ["x-api-key: test-model-key", "authorization: Bearer test-model-key", "x-api-key;"])
      expect((await ask("plain", "/v1/messages", `${POST} -H '${header}'`))[0]).toBe("403");
  });

  it("accepts only its own task's placeholder, only for messages, and only while the task runs", async () => {
    const { id, key } = await startTask("egress");
    const header = `-H 'x-api-key: ${key}'`;
    const messages = [{ role: "user", content: "hi" }];
    const real = curlArguments(key, { model: "m", max_tokens: 5, messages });
    expect(await ask("egress", "/v1/messages", real)).toEqual([
      "200",
      expect.stringContaining('"text":"ok"'),
    ]);
    expect((await ask("egress", "/v1/messages?beta=true", real))[0]).toBe("200");
    expect((await ask("egress", "/v1/messages/count_tokens", real))[0]).toBe("200");
    await until(async () => (await countModelCalls("egress")) === 0);
    for (const path of ["/v1/files", "/v1/messages/batches", "/", "/v1/messages/../organizations"])
      expect((await ask("egress", path, `--path-as-is ${real}`))[0], path).toBe("403");
    expect((await ask("egress", "/v1/messages", header))[0]).toBe("403");
    expect((await ask("plain", "/v1/messages", real))[0]).toBe("403");
    expect((await ask("egress", "/v1/messages", real.replace("placeholder-", "placeholder-x")))[0]).toBe(
      "403",
    );
    const source = { type: "url", url: "https://elsewhere.example.com/?c2VjcmV0" };
    const fetching = curlArguments(key, {
      model: "m",
      messages: [{ role: "user", content: [{ type: "image", source }] }],
    });
    expect((await ask("egress", "/v1/messages", fetching))[0]).toBe("200");
    await owner.call("configure_sandbox", { sandbox: "egress", internet: "none" });
    expect(await ask("egress", "/v1/messages", fetching)).toEqual([
      "403",
      expect.stringContaining("may not connect to a source by URL"),
    ]);
    expect((await ask("egress", "/v1/messages", real))[0]).toBe("200");
    await sh("egress", "touch /workspace/go-on");
    expect((await owner.call("get_result", { id })).text).toContain("state: succeeded");
    expect((await ask("egress", "/v1/messages", real))[0]).toBe("403");
    // Nor is the placeholder valid during the next task of the sandbox.
    const next = await startTask("egress");
    expect((await ask("egress", "/v1/messages", real))[0]).toBe("403");
    await owner.call("cancel_run", { id: next.id });
  });

  it("limits a task's simultaneous requests, and tells the next one to retry", async () => {
    const sandbox = "egress";
    const { id, key } = await startTask(sandbox, "[[work]] [real]");
    const tools = [{ name: "Bash" }];
    const message = { stream: true, tools, messages: [{ role: "user", content: "[[silent]] x" }] };
    const hold = `for i in {1..${MAX_IN_FLIGHT}}; do
      curl -sN ${curlArguments(key, message)} http://anthropic.internal/v1/messages > /tmp/held.$i & done; wait`;
    const holding = await owner.call("run_command", {
      sandbox,
      command: hold,
      session: "h",
      wait_seconds: 0,
    });
    const startedCount = () =>
      sh(sandbox, "cat /tmp/held.* 2>/dev/null | grep -c '^event: message_start' || true");
    await until(async () => Number(await startedCount()) === MAX_IN_FLIGHT);
    const real = curlArguments(key, { messages: [{ role: "user", content: "hi" }] });
    const busy = async () => {
      const [status, response] = await ask(sandbox, "/v1/messages", `-i ${real}`);
      expect(status).toBe("429");
      expect(response).toMatch(/^retry-after: \d+\r$/im);
      expect(response).not.toMatch(/^x-should-retry/im);
      expect(JSON.parse(response.slice(response.indexOf("{")))).toEqual({
        type: "error",
        error: { type: "rate_limit_error", message: expect.stringContaining("under way") },
      });
    };
    await busy();
    // Requests count until their Worker reports their end.
    await runInActor(sandbox, (_actor, { storage }) => {
      storage.sql.exec("UPDATE model_calls SET began_at = began_at - ?", 2 * IN_FLIGHT_MS);
    });
    await until(() =>
      runInActor(sandbox, (_actor, { storage }) => {
        const oldest = storage.sql.exec<{ at: number }>("SELECT min(began_at) AS at FROM model_calls").one();
        return oldest.at > Date.now() - IN_FLIGHT_MS;
      }),
    );
    await busy();
    // The agent gets the same error. It retries until the pending requests have disconnected.
    await sh(sandbox, "touch /workspace/go-on");
    await sleep(1000);
    await busy();
    await owner.call("cancel_run", { id: holding.structured.id });
    await until(async () => (await ask(sandbox, "/v1/messages", real))[0] === "200");
    const { text } = await owner.call("get_result", { id });
    expect(text).toContain("state: succeeded");
  });
});

describe("a request of a running task", () => {
  const sandbox = "egress";
  let task: Awaited<ReturnType<typeof startTask>>;
  let containerID: string;
  beforeAll(async () => {
    task = await startTask(sandbox);
    containerID = (await actorOf(sandbox)).id.toString();
  });
  afterAll(() => owner.call("cancel_run", { id: task.id }));

  /** The tokens that the task is charged for requests with its placeholder. */
  async function chargedTokens(work: () => Promise<unknown>): Promise<number> {
    const spent = () =>
      runInActor(
        sandbox,
        (_actor, { storage }) =>
          storage.sql.exec<{ tokens: number }>("SELECT tokens FROM task_budgets").one().tokens,
      );
    const before = await spent();
    await work();
    await until(async () => (await spent()) > before);
    return (await spent()) - before;
  }

  /** Sends a request as the sandbox's proxy does. */
  function send(path: string, body: BodyInit, length: number | undefined, signal?: AbortSignal) {
    const headers = {
      "x-api-key": task.key,
      "content-type": "application/json",
      ...(length !== undefined && { "content-length": `${length}` }),
    };
    const request = new Request(`http://anthropic.internal${path}`, {
      method: "POST",
      headers,
      body,
      signal: signal ?? null,
    });
    return OUTBOUND["anthropic.internal"]?.(request, env as Env, containerID);
  }

  it("that its agent ends in the middle of a stream is charged for all tokens that it requested", async () => {
    const messages = [{ role: "user", content: "[[silent]] x" }];
    const message = { max_tokens: 7000, stream: true, messages, tools: [{ name: "Bash" }] };
    const request = curlArguments(task.key, message);
    const tokens = await chargedTokens(() =>
      sh(sandbox, `curl -sN -m 1 ${request} http://anthropic.internal/v1/messages || true`),
    );
    expect(tokens).toBe(7010);
  });

  it("that its agent ends before the response begins is charged for all tokens that it requested", async () => {
    const messages = [{ role: "user", content: "[[hang]] x" }];
    const message = { max_tokens: 7000, messages, tools: [{ name: "Bash" }] };
    const request = curlArguments(task.key, message);
    const tokens = await chargedTokens(() =>
      sh(sandbox, `curl -sN -m 1 ${request} http://anthropic.internal/v1/messages || true`),
    );
    expect(tokens).toBe(7000 + Math.ceil(JSON.stringify(message).length / 3));
  });

  it.each([
    ["that its agent sends in pieces and ends before the response begins", 3000, false],
    // Two bodies of this size exceed the rate limit, which delays the end of the second one.
    ["that its agent ends while the rate limit delays it", 33_000_000, true],
  ])("%s is also charged for the size of the request", async (_when, size, isAnnounced) => {
    const messages = [{ role: "user", content: `[[hang]] ${"x".repeat(size)}` }];
    const bytes = encode(JSON.stringify({ max_tokens: 7000, messages, tools: [{ name: "Bash" }] }));
    const length = isAnnounced ? bytes.length : undefined;
    const tokens = await chargedTokens(async () => {
      const agent = new AbortController();
      expect((await send("/v1/messages/count_tokens", bytes, length))?.status).toBe(200);
      const half = bytes.length / 2;
      const pieces = [bytes.subarray(half), bytes.subarray(0, half)];
      let isSent = false;
      const body = new ReadableStream<Uint8Array>({
        pull(controller) {
          const piece = pieces.pop();
          if (piece) controller.enqueue(piece);
          else controller.close();
          // The API knows an announced length, so it need not wait for the end.
          isSent = isAnnounced ? pieces.length === 0 : !piece;
        },
      });
      const response = send("/v1/messages", body, length, agent.signal);
      await until(() => isSent);
      agent.abort();
      expect((await response)?.status).toBe(502);
    });
    expect(tokens).toBe(7000 + Math.ceil(bytes.length / 3));
  });

  it("that is larger than the API accepts is refused, with or without a Content-Length", async () => {
    // The requests of the other tests have used up the task's tokens.
    await runInActor(sandbox, (_actor, { storage }) => {
      storage.sql.exec("UPDATE task_budgets SET tokens = 0");
    });
    const large = encode(`{"messages":["${"x".repeat(34_000_000)}"]}`);
    // No stream can have the last length. Such a request counted as under way until the server was restarted.
    for (const length of [undefined, large.length, 2 ** 53]) {
      const response = await send("/v1/messages", new Blob([large]).stream(), length);
      expect(response?.status).toBe(413);
      expect(await response?.json()).toMatchObject({ error: { type: "request_too_large" } });
    }
    await until(async () => (await countModelCalls(sandbox)) === 0);
  });

  it("is delayed if its many values take the server much time", async () => {
    const values = encode(`{"messages":[${"1,".repeat(3_000_000)}1]}`);
    const startedAt = performance.now();
    expect((await send("/v1/messages/count_tokens", values, values.length))?.status).toBe(200);
    expect(performance.now() - startedAt).toBeGreaterThan(2000);
  });

  it("gets at most 256 KiB of an error", async () => {
    const messages = [{ role: "user", content: "[[long-error]] x" }];
    const body = encode(JSON.stringify({ max_tokens: 1, messages, tools: [{ name: "Bash" }] }));
    const response = await send("/v1/messages", body, body.length);
    expect(response?.status).toBe(400);
    expect(await response?.text()).toBe("");
  });
});

/** What the server reads from a request that arrives in pieces. */
function meterOf(json: string | Uint8Array, size: number): RequestMeter {
  const meter = new RequestMeter();
  const bytes = typeof json === "string" ? encode(json) : json;
  for (let at = 0; at < bytes.length; at += size) meter.add(bytes.subarray(at, at + size));
  return meter;
}

describe("the token limit of a request", () => {
  it.each([
    ['{"max_tokens":5}', 5],
    ['{"messages":[{"content":"\\"max_tokens\\": 1"},{"max_tokens":1}], "max_tokens" : 3.2e3 }', 3200],
    ['{"max_tokens":70,"messages":{"max_tokens":1},"metadata":{"max_tokens":2}}', 70],
    [String.raw`{"max\u005ftokens":70,"messages":{"max_tokens":1}}`, 70],
    ['{"max_tokens":70,"max_tokens":1}', 70],
    [`{"max_tokens"${" ".repeat(500)}:${" ".repeat(500)}70}`, 70],
    ['{"max_tokens":null}', 128_000],
    ['{"max_tokens":""}', 128_000],
    ['{"messages":[]}', 128_000],
    ['{"max_tokens":1e400}', 128_000],
    ["]]}}{", 128_000],
  ])("is read from %s", (json, tokens) => {
    for (const size of [1, 1000]) expect(meterOf(json, size).maxTokens).toBe(tokens);
  });
});

describe("the work of a request", () => {
  it("is more if it has many values, and its pace with it", () => {
    const text = meterOf(JSON.stringify({ messages: ["x".repeat(1_000_000)] }), 64 * 1024);
    expect(text.work / text.inputTokens).toBeLessThan(4);
    const ordinary = { role: "user", content: [{ type: "text", text: "x".repeat(500) }] };
    const conversation = meterOf(
      JSON.stringify({ messages: Array.from({ length: 2000 }, () => ordinary) }),
      64 * 1024,
    );
    expect(conversation.work / conversation.inputTokens).toBeLessThan(8);
    for (const part of ["1,", '"",', "{},", '{"a":1},', " "]) {
      const many = meterOf(`[${part.repeat(500_000)}1]`, 64 * 1024);
      expect(many.work / many.inputTokens, part).toBeGreaterThan(20);
    }
  });
});

describe("a request of a confined sandbox", () => {
  const utf16 = new Uint8Array(
    new Uint16Array(Array.from('{"mcp_servers":[1]}', (c) => c.charCodeAt(0))).buffer,
  );

  it.each<[string, string | Uint8Array, string]>([
    [
      "an image by its URL",
      '{"messages":[{"content":[{"type":"image","source":{"type":"url","url":"https://a.test/"}}]}]}',
      "a source by URL",
    ],
    [
      "a document in a tool's result, with its type escaped and repeated",
      String.raw`{"messages":[{"content":[{"content":[{"s\u006furce":{"type":"url","t\u0079pe":"text"}}]}]}]}`,
      "a source by URL",
    ],
    [
      "a document in a document",
      '{"messages":[{"content":[{"source":{"type":"content","content":[{"source":{"type":"uri"}}]}}]}]}',
      "a source by URL",
    ],
    ["an MCP server", '{"mcp_servers":[{"url":"https://a.test/"}]}', "mcp_servers"],
    [
      "the API's own search",
      '{"tools":[{"name":"x"},{"type":"web_search_20250305"}]}',
      "the tool web_search_20250305",
    ],
    ["an unknown tool of the API", '{"tools":[{"type":"fetch me"}]}', "the tool fetch?me"],
    ["another encoding", utf16, "invalid JSON"],
    ["names without quotes", "{mcp_servers:[1]}", "invalid JSON"],
    ["deeply nested lists", "[".repeat(300), "invalid JSON"],
  ])("is recognized if it makes the API connect to another host by %s", (_what, json, reached) => {
    for (const size of [1, 1000]) expect(meterOf(json, size).reachedHost).toBe(reached);
  });

  it("may have the agent's tools, inline sources, and text that looks like other sources", () => {
    const long = "x".repeat(500);
    const body = {
      max_tokens: 5,
      mcp_servers: [],
      system: [{ type: "text", text: '"source":{"type":"url"}' }],
      tools: [
        { name: "Bash", input_schema: { properties: { type: { type: "string" }, source: { type: "url" } } } },
        { type: "bash_20250124", name: "bash" },
      ],
      messages: [
        {
          role: "assistant",
          content: [
            { type: "tool_use", input: { source: { type: "url", url: "x" }, [long]: [long, 1.5, null] } },
          ],
        },
        { role: "user", content: [{ type: "image", source: { type: "base64", data: long } }] },
        { role: "user", content: [{ type: "search_result", source: "https://a.test/" }] },
      ],
    };
    expect(meterOf(JSON.stringify(body), 7).reachedHost).toBeUndefined();
    expect(meterOf(JSON.stringify(body, undefined, 2), 1000).reachedHost).toBeUndefined();
  });
});

describe("the count of tokens", () => {
  const counterOf = (text: string, size: number) => {
    const counter = new UsageCounter();
    const bytes = encode(text);
    for (let at = 0; at < bytes.length; at += size) counter.add(bytes.subarray(at, at + size));
    return counter;
  };
  const stream = [
    'event: message_start\ndata: {"type":"message_start","message":{"usage":{"input_tokens":100,"cache_read_input_tokens":50,"cache_creation_input_tokens":7,"output_tokens":1}}}',
    'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"\\"usage\\""}}',
    'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":20}}',
    "",
  ].join("\n\n");

  it.each([1, 7, 1000])("is read from the end of a stream, in pieces of %i bytes", (size) => {
    expect(counterOf(stream, size).tokens).toBe(100 + 20 + 7 + 5);
  });

  it.each([
    ["the name of a tool", 'data: {"type":"content_block_start","content_block":{"name":"message_stop"}}'],
    ["a stop sequence", 'data: {"type":"message_delta","delta":{"stop_sequence":"event: message_stop"}}'],
    ["a text", String.raw`data: {"type":"content_block_delta","delta":{"text":"\nevent: message_stop\n"}}`],
  ])("does not become final at %s that looks like the end of the stream", (_what, event) => {
    const request = meterOf('{"max_tokens":7000}', 1000);
    const start = 'data: {"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}';
    const charge = (size: number, ...events: string[]) =>
      counterOf(`${[start, ...events].join("\n\n")}\n\n`, size).charge(request, false);
    for (const size of [1, 7, 1000]) {
      expect(charge(size, event)).toBe(7010);
      expect(charge(size, event, 'data: {"type":"message_stop"}')).toBe(11);
      expect(charge(size, event, 'event: message_stop\ndata: { "type": "message_stop" }')).toBe(11);
      expect(charge(size, event, 'data: { "type": "message_stop" }')).toBe(11);
    }
  });

  it("includes the longest context for a cut response to a request that lets the API read from hosts", () => {
    const request = meterOf('{"max_tokens":7000,"tools":[{"type":"web_fetch_20250910"}]}', 1000);
    const start =
      'data: {"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}\n\n';
    for (const text of ["", start]) expect(counterOf(text, 1000).charge(request, false)).toBe(200_000 + 7000);
    const whole = `${start}data: {"type":"message_stop"}\n\n`;
    expect(counterOf(whole, 1000).charge(request, true)).toBe(11);
  });

  it("includes the whole input for a cut response without streaming, also if a tool looks like a report", () => {
    const json = `{"max_tokens":7000,"messages":["${"x".repeat(300_000)}"]}`;
    const tool = '{"content":[{"type":"tool_use","name":"usage","input":{"input_tokens": 0}}';
    for (const text of ["", tool])
      expect(counterOf(text, 1000).charge(meterOf(json, 1000), false)).toBe(
        7000 + Math.ceil(json.length / 3),
      );
  });

  it("is read from a response of any length, with any line breaks", () => {
    const content = [{ type: "text", text: `"usage": {"input_tokens": 999} ${"y".repeat(600_000)}` }];
    const response = { content, usage: { input_tokens: 4000, output_tokens: 200 } };
    for (const text of [JSON.stringify(response), JSON.stringify(response, undefined, 2)])
      expect(counterOf(text, 999).tokens).toBe(4200);
  });

  /** A report as the API sends it for a request whose advisor, or a compaction, has sampled a model too. */
  const report = {
    input_tokens: 3,
    cache_creation_input_tokens: 70,
    cache_read_input_tokens: 2000,
    output_tokens: 491,
    iterations: [
      { type: "message", input_tokens: 1, output_tokens: 45, cache_read_input_tokens: 900 },
      { type: "advisor_message", model: "m", input_tokens: 159_000, output_tokens: 7800 },
      {
        cache_creation: { ephemeral_5m_input_tokens: 70 },
        cache_creation_input_tokens: 70,
        cache_read_input_tokens: 1100,
        input_tokens: 2,
        output_tokens: 446,
        type: "message",
      },
      { type: "compaction", input_tokens: 180_000, output_tokens: 3500, cache_read_input_tokens: 50 },
    ],
  };
  const reportedTokens = 3 + 70 + 491 + 159_000 + 7800 + 180_000 + 3500 + 205;
  const eventsOf = (...events: object[]) =>
    events.map((event) => `event: x\ndata: ${JSON.stringify(event)}\n\n`).join("");

  it.each<[string, string]>([
    ["a response", JSON.stringify({ content: [], usage: report })],
    ["a response with line breaks", JSON.stringify({ usage: report, content: [] }, undefined, 2)],
    [
      "a stream whose events repeat the totals",
      eventsOf(
        { type: "message_start", message: { usage: { input_tokens: 1, output_tokens: 1 } } },
        { type: "message_delta", usage: { ...report, iterations: report.iterations.slice(0, 2) } },
        { type: "message_delta", usage: report },
        { type: "message_stop" },
      ),
    ],
    ["a response with a name twice", `{"usage":${JSON.stringify(report)},"usage":{"input_tokens":1}}`],
  ])("includes once what the iterations of %s have used", (_what, text) => {
    for (const size of [1, 7, 100_000]) expect(counterOf(text, size).tokens).toBe(reportedTokens);
  });

  it.each<[string, object, number]>([
    [
      "message iterations that the sums include only in part",
      {
        input_tokens: 10,
        output_tokens: 7,
        iterations: [
          { type: "message", input_tokens: 10, output_tokens: 3 },
          { type: "message", input_tokens: 20, output_tokens: 4 },
        ],
      },
      37,
    ],
    [
      "the attempts before a fallback",
      {
        input_tokens: 12,
        output_tokens: 5,
        iterations: [
          { type: "message", input_tokens: 10, output_tokens: 3 },
          { type: "fallback_message", input_tokens: 12, output_tokens: 5 },
        ],
      },
      30,
    ],
    [
      "only a compaction",
      { input_tokens: 6, output_tokens: 1, iterations: [{ type: "compaction", input_tokens: 100 }] },
      107,
    ],
    [
      "iterations of unknown types",
      { input_tokens: 6, iterations: [{ type: "later_message", input_tokens: 5 }, { output_tokens: 2 }] },
      13,
    ],
    [
      "unusual numbers",
      { input_tokens: "40", output_tokens: 1.5, cache_read_input_tokens: null, iterations: null },
      42,
    ],
    ["negative numbers", { input_tokens: -5, output_tokens: 3, iterations: [] }, 3],
  ])("includes %s", (_what, usage, tokens) => {
    expect(counterOf(JSON.stringify({ usage }), 1000).tokens).toBe(tokens);
  });

  it("is not raised by the input of a tool, nor ended by a number too large", () => {
    const fake = { usage: report, message: { usage: report } };
    const content = [{ type: "tool_use", input: fake }];
    const response = JSON.stringify({ content, usage: { input_tokens: 4, output_tokens: 2 } });
    expect(counterOf(response, 1000).tokens).toBe(6);
    expect(counterOf('{"usage":{"input_tokens":1e999}}', 1000).tokens).toBe(1e12);
  });

  it("is read from a stream with other lines, line breaks and spaces", () => {
    const usage = { input_tokens: 4, output_tokens: 2 };
    const events = [
      ": comment",
      "data: not JSON",
      `event:message_start\ndata:{"type":"message_start","message":${JSON.stringify({ usage })}}`,
      `data: ${JSON.stringify({ type: "message_delta", usage: { output_tokens: 9 } }, undefined, 1).replaceAll("\n", "\ndata: ")}`,
    ];
    const text = `${events.join("\n\n")}\n\n`;
    for (const size of [1, 7, 1000]) {
      expect(counterOf(text, size).tokens).toBe(13);
      expect(counterOf(text.replaceAll("\n", "\r\n"), size).tokens).toBe(13);
    }
  });
});
