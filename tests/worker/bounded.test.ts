/** JSON that costs more than its length shows. */
import { expect, it, vi } from "vitest";
import * as z from "zod/mini";
import { listOf } from "../../container/sandboxd/shapes.ts";
import { runCell } from "../../src/container/kernels/kernel-protocol.ts";
import { parseBounded } from "../../src/shared/bounded.ts";

it.each<[what: string, make: (size: number) => string]>([
  ["values", (size) => `[${Array.from({ length: size }, () => '"[,"').join(", ")}]`],
  ["lists in lists", (size) => "[".repeat(size) + "]".repeat(size)],
  ["objects in objects", (size) => '{"a":'.repeat(size) + "1" + "}".repeat(size)],
])("JSON with more %s than allowed is not parsed", (_, make) => {
  expect(parseBounded(make(20), 20)).toEqual(JSON.parse(make(20)));
  const parse = vi.spyOn(JSON, "parse");
  expect(parseBounded(make(21), 20)).toBeUndefined();
  expect(parse.mock.calls.filter(([text]) => text === make(21))).toEqual([]);
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

it("code with characters that are not ASCII is escaped", () => {
  const cellOf = (text: string) => runCell("javascript", "id", { code: text, logCapBytes: 1 });
  expect(cellOf("a日\u2028é\u007f🐎\n\ud800")).toContain(
    String.raw`"code":"a\u65e5\u2028\u00e9\u007f\ud83d\udc0e\n\ud800"`,
  );
});
