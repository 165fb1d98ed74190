/** What the server reads in requests to the model and in its responses. */
import { describe, expect, it } from "vitest";
import { RequestMeter } from "../../../src/container/model-request.ts";
import { UsageCounter } from "../../../src/container/model-usage.ts";
import { encode } from "../support.ts";

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

  describe("for a cut response", () => {
    const start =
      'data: {"type":"message_start","message":{"usage":{"input_tokens":10,"output_tokens":1}}}\n\n';
    const block = (type: string) =>
      `data: {"type":"content_block_start","content_block":{"type":"${type}"}}\n\n`;
    const charge = (request: string, text: string) =>
      counterOf(text, 1000).charge(meterOf(`{"max_tokens":7000,${request}}`, 1000), false);
    const context = 1_000_000;

    it.each([
      ["the API's own tools", '"tools":[{"type":"web_fetch_20250910"}]'],
      ["an advisor", '"tools":[{"name":"Bash"},{"type":"advisor_20260301","model":"m"}]'],
      ["tool search", '"tools":[{"type":"tool_search_tool_regex_20251119"}]'],
      ["MCP servers", '"mcp_servers":[{"url":"https://a.test/"}]'],
      [
        "compaction",
        '"context_management":{"edits":[{"trigger":{"value":50000},"type":"compact_20260112"}]}',
      ],
      ["a summary", '"compaction":{"type":"summarize"}'],
    ])("includes the longest context for each time that %s may use it", (_what, request) => {
      // Without streaming, nothing shows how often.
      for (const text of ["", '{"content":[']) expect(charge(request, text)).toBe(10 * (context + 7000));
      for (const streams of ["false", 'true,"stream":false', 'false,"stream":true'])
        expect(charge(`${request},"stream":${streams}`, "")).toBe(10 * (context + 7000));
      expect(charge(`${request},"stream":true`, "")).toBe(context + 7000);
      expect(charge(request, start)).toBe(context + 7000);
      const own = block("thinking") + block("text") + block("tool_use");
      expect(charge(request, start + own)).toBe(context + 7000);
      const others = block("server_tool_use") + block("web_fetch_tool_result");
      expect(charge(request, start + own + others)).toBe(3 * (context + 7000));
      expect(charge(request, start + others.repeat(50))).toBe(10 * (context + 7000));
      const whole = `${start + others}data: {"type":"message_stop"}\n\n`;
      expect(counterOf(whole, 1000).charge(meterOf(`{${request}}`, 1000), false)).toBe(11);
    });

    it("includes the input and the tokens of each fallback", () => {
      const request = '"fallbacks":[{"model":"m","max_tokens":20000}]';
      const input = Math.ceil(`{"max_tokens":7000,${request}}`.length / 3);
      expect(charge(request, "")).toBe(4 * (input + 20_000));
      expect(charge('"fallbacks":"default"', start + block("text"))).toBe(7010);
      expect(charge('"fallbacks":"default"', start + block("text") + block("fallback"))).toBe(2 * 7010);
    });

    it.each([
      ["a document", '{"type":"base64","media_type":"application/pdf","data":"eA=="}', context],
      ["a file", '{"type":"file","file_id":"f"}', context],
      ["a URL", '{"type":"url","url":"https://a.test/"}', context],
      ["an image", '{"type":"base64","media_type":"image/png","data":"eA=="}', 5000],
    ])(
      "includes the tokens of %s, although the request's size says nothing about them",
      (_what, source, tokens) => {
        const request = `"messages":[{"content":[{"source":${source}}]}]`;
        const input = Math.ceil(`{"max_tokens":7000,${request}}`.length / 3);
        expect(charge(request, "")).toBe(7000 + (tokens === context ? context : input + tokens));
        expect(charge(request, start)).toBe(7010);
      },
    );

    it("includes no more than the input and the requested tokens of other requests", () => {
      const request = JSON.stringify({
        mcp_servers: [],
        fallbacks: null,
        thread: null,
        context_management: {
          edits: [{ type: "clear_thinking_20251015", keep: { type: "thinking_turns" } }],
        },
        tools: [{ name: "Bash" }, { type: "memory_20250818", name: "memory" }],
        messages: [{ role: "user", content: [{ source: { type: "text", media_type: "text/plain" } }] }],
      }).slice(1, -1);
      const input = Math.ceil(`{"max_tokens":7000,${request}}`.length / 3);
      expect(charge(request, "")).toBe(input + 7000);
      expect(charge(request, start + block("thinking") + block("tool_use"))).toBe(7010);
      // Some gateways report the input only at the end.
      expect(charge(request, start.replace("10", "0"))).toBe(input + 7000);
    });

    it("includes the longest context for a continued thread, until the API reports the input", () => {
      const request = '"thread":{"type":"continue","previous_message_id":"m"}';
      expect(charge(request, "")).toBe(context + 7000);
      expect(charge(request, start)).toBe(7010);
    });
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
