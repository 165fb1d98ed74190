/** JSON that costs more than its length shows. These tests must run in workerd, because Node prevents such costs. */
import { expect, it, vi } from "vitest";
import * as z from "zod/mini";
import { listOf } from "../../container/sandboxd/shapes.ts";
import type { EngineClient } from "../../local/platform/engine-client.ts";
import { OUTBOUND_HEADER, type OutboundRequest } from "../../local/platform/engine-protocol.ts";
import { serveOutbound } from "../../local/platform/serve-outbound.ts";
import { addOAuthBeta } from "../../src/container/model-egress.ts";
import { runCell } from "../../src/container/kernels/kernel-protocol.ts";
import { countDigits, parseBounded, parseJSON, SANDBOX_JSON } from "../../src/shared/bounded.ts";
import { JSONReader } from "../../src/container/json-reader.ts";
import { sleep } from "../setup/until.ts";

/** Numbers with the same last 16 bits. V8 looks for them at the same place of its table of strings. */
const colliding = (from: number, escaped = "") =>
  Array.from({ length: 16_000 }, (_, n) =>
    String((((n + 1000) << 16) >>> 0) + from).replace(/^\d/, `${escaped}$&`),
  );

async function timeOf(work: () => unknown): Promise<number> {
  const from = performance.now();
  work();
  // Without a pause, workerd's clock stands still.
  await sleep(0);
  return performance.now() - from;
}

it.each([
  ["digits", (from: number) => colliding(from).map((text) => `"${text}"`)],
  ["escaped digits", (from: number) => colliding(from, String.raw`\u003`).map((text) => `"${text}"`)],
  ["escaped names", (from: number) => colliding(from, String.raw`\u003`).map((text) => `{"${text}":1}`)],
])("strings that collide in V8's table of strings take no longer than others: %s", async (_, make) => {
  const text = `[${make(1).join(",")}]`;
  const usual = `[${make(2).join(",").replaceAll(/\d"/g, "x$&")}]`;
  const before = await timeOf(() => JSON.parse(usual));
  expect(await timeOf(() => parseBounded(text, { ...SANDBOX_JSON, values: 50_000 }))).toBeLessThan(
    300 + 20 * before,
  );
});

it("nor do such names in a request to the model", async () => {
  const read = (names: string[]) => {
    const reader = new JSONReader({ value: () => undefined });
    reader.add(new TextEncoder().encode(`{${names.map((name) => `"${name}":1`).join(",")}}`));
    expect(reader.isMalformed).toBe(false);
  };
  const before = await timeOf(() => read(colliding(4).map((name) => `x${name}`)));
  expect(await timeOf(() => read(colliding(3)))).toBeLessThan(200 + 2 * before);
});

it("nor do such beta features in a request to the model", async () => {
  const add = (betas: string[]) => {
    const headers = new Headers({ "anthropic-beta": betas.join() });
    addOAuthBeta(headers);
    expect(headers.get("anthropic-beta")).toBe([...betas, "oauth-2025-04-20"].join());
  };
  const before = await timeOf(() => add(colliding(6).map((beta) => `x${beta}`)));
  expect(await timeOf(() => add(colliding(5)))).toBeLessThan(200 + 2 * before);
});

it.each([
  '["12345678","a\\"12345678\\"","1234567","12345678901",12345678,"12345678 "]',
  '{"12345678":"12345678","x" : "\\u003123456789","\\u003123456789" : {"87654321"\n:["00000000"]}}',
  '"12345678"',
  String.raw`["\\","12345678","\\\"12345678"]`,
])("the values are those of JSON.parse: %s", (text) => {
  expect(parseJSON(text)).toEqual(JSON.parse(text));
});

const BOUNDS = { values: 20, depth: 5, name: 10 };

it.each<[what: string, make: (size: number) => string, most: number]>([
  ["more values", (size) => `[${Array.from({ length: size }, () => '"[,"').join(", ")}]`, 20],
  ["deeper lists", (size) => "[".repeat(size) + "]".repeat(size), 5],
  ["deeper objects", (size) => '{"a":'.repeat(size) + "1" + "}".repeat(size), 5],
  ["longer names", (size) => `{"a":"${"x".repeat(50)}","${"n".repeat(size)}"\n: 1}`, 9],
])("JSON with %s than its bounds allow is not parsed", (_, make, most) => {
  expect(parseBounded(make(most), BOUNDS)).toEqual(JSON.parse(make(most)));
  const parse = vi.spyOn(JSON, "parse");
  expect(parseBounded(make(most + 1), BOUNDS)).toBeUndefined();
  expect(parse.mock.calls.filter(([text]) => text === make(most + 1))).toEqual([]);
  parse.mockRestore();
});

it("of a list from a sandbox, no item is checked if there are too many, and none after the first wrong one", () => {
  let checks = 0;
  const list = listOf(
    z.custom<string>((item) => (checks++, typeof item === "string")),
    3,
  );
  expect(list.safeParse(["a", 1, 2]).error?.issues).toHaveLength(1);
  expect(checks).toBe(2);
  expect(list.safeParse(["a", "b", "c", "d"]).success).toBe(false);
  expect(checks).toBe(2);
});

it("no function is called for each value, which would take ten times as long", () => {
  const parse = vi.spyOn(JSON, "parse");
  const text = `{"__proto__":["12345678",null],"a":[${Array.from({ length: 100 }, () => "{}").join(",")}]}`;
  expect(Object.entries(parseJSON(text) as object)[0]).toEqual(["__proto__", ["12345678", null]]);
  const calls = parse.mock.calls.filter(([given]) => given.includes('"__proto__"'));
  parse.mockRestore();
  expect(calls.map(({ length }) => length)).toEqual([1]);
});

it("strings of digits are counted", () => {
  expect(countDigits(String.raw`["12345678",{"87654321":"1234567","12345678":1},"x\"12345678"]`)).toBe(1);
});

it("requests of a sandbox with headers that collide take no longer than others", async () => {
  const serve = async (values: string[]) => {
    const headers = values.map((value): [string, string] => ["a", value]);
    const about = {
      number: 1,
      method: "GET",
      url: "http://a.example/",
      hasBody: false,
      pattern: "api.internal",
    };
    const request: OutboundRequest = { ...about, headers };
    const polls = [new TextEncoder().encode(JSON.stringify(request)).toBase64()];
    const engine: Pick<EngineClient, "fetch"> = {
      fetch: async () => {
        const header = polls.pop();
        const init = header === undefined ? { status: 404 } : { headers: { [OUTBOUND_HEADER]: header } };
        return new Response(null, init);
      },
    };
    await serveOutbound(
      engine as EngineClient,
      "sandbox",
      () => undefined,
      () => true,
    );
  };
  const timeOfServing = async (values: string[][]) => {
    const from = performance.now();
    for (const each of values) await serve(each);
    await sleep(0);
    return performance.now() - from;
  };
  const values = [3, 4, 5, 6].map((from) => colliding(from));
  const before = await timeOfServing(values.map((each) => each.map((value) => value.replace(/.$/, "x"))));
  expect(await timeOfServing(values)).toBeLessThan(300 + 10 * before);
});

it("code with characters that are not ASCII is escaped", () => {
  const cellOf = (text: string) => runCell("javascript", "id", { code: text, logCapBytes: 1 });
  expect(cellOf("a日\u2028é\u007f🐎\n\ud800")).toContain(
    String.raw`"code":"a\u65e5\u2028\u00e9\u007f\ud83d\udc0e\n\ud800"`,
  );
});
