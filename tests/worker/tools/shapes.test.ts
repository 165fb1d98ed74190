/** Requests whose parts have a shape that nobody foresaw: refused in words of the protocol, never by an internal error. */
import * as fc from "fast-check";
import { describe, expect, it } from "vitest";
import { tools } from "../../../src/tools/index.ts";
import { owner } from "../support.ts";

/** What JavaScript cannot turn into a string, a number or a key of its own. */
const TRAPS = [
  '{"toString":null,"valueOf":null}',
  '{"__proto__":null}',
  '{"length":-1}',
  "[[]]",
  "[null]",
  "{}",
];

/** A JSON text that is right for no field of any tool. */
const shape = fc.oneof(
  fc.constantFrom(...TRAPS),
  fc.json({ maxDepth: 3 }).map((json) => `{"toString":${json},"constructor":null}`),
  fc.json({ maxDepth: 3 }).map((json) => `[${json},{"then":1}]`),
);

/** Whether the server answered as one that knows what it was asked. */
async function answered(body: string): Promise<boolean> {
  const response = await owner.fetch(body);
  return response.status < 500 && !(await response.text()).includes("Internal error");
}

describe("a value of another shape", () => {
  it.each(tools.map(({ name, input }) => [name, Object.keys(input.shape)] as const))(
    "in any argument of %s is no internal error",
    async (tool, fields) => {
      const args = fc.dictionary(fc.constantFrom(...fields, "id", "sandbox", "toString"), shape, {
        minKeys: 1,
      });
      const property = fc.asyncProperty(args, async (given) => {
        const written = Object.entries(given).map(([name, json]) => `${JSON.stringify(name)}:${json}`);
        const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"${tool}","arguments":{${written.join(",")}}}}`;
        expect(await answered(body), body).toBe(true);
      });
      const examples: [Record<string, string>][] = TRAPS.map((trap) => [{ id: trap }]);
      await fc.assert(property, { numRuns: 30, examples });
    },
  );

  it("in any part of a request is no internal error", async () => {
    const keys = fc.constantFrom("jsonrpc", "id", "method", "params");
    const property = fc.asyncProperty(keys, shape, fc.boolean(), async (key, json, batch) => {
      const parts = { jsonrpc: '"2.0"', id: "1", method: '"tools/call"', params: "{}", [key]: json };
      const message = `{${Object.entries(parts).map(([name, value]) => `"${name}":${value}`)}}`;
      const body = batch ? `[${message}]` : message;
      expect(await answered(body), body).toBe(true);
    });
    await fc.assert(property, { numRuns: 60 });
  });

  it("in the arguments or the name of a call is no internal error", async () => {
    const property = fc.asyncProperty(
      fc.constantFrom("name", "arguments", "_meta"),
      shape,
      async (key, json) => {
        const parts = { name: '"get_result"', arguments: "{}", [key]: json };
        const params = Object.entries(parts).map(([name, value]) => `"${name}":${value}`);
        const body = `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{${params}}}`;
        expect(await answered(body), body).toBe(true);
      },
    );
    await fc.assert(property, { numRuns: 60 });
  });
});
