/** Edits of files in sandboxd: `container/sandboxd/editing.ts`. */
import { applyPatch } from "diff";
import * as fc from "../setup/chance.ts";
import { describe, expect, it } from "vitest";
import { applyEdits } from "../../container/sandboxd/editing.ts";
import { TextSearch } from "../../container/sandboxd/text-search.ts";

const edit = (content: string, ...edits: [old_text: string, new_text: string][]) =>
  applyEdits(
    Buffer.from(content),
    edits.map(([old_text, new_text]) => ({ old_text, new_text, all: true })),
    "file",
  );

describe("a hostile edit of a long file", () => {
  it("is refused in linear time if its text almost occurs everywhere", async () => {
    // V8's own search would take an hour.
    const wanted = `ab${"a".repeat(1_000_000)}`;
    await expect(edit(`${"a".repeat(8_000_000)} `, [wanted, "x"])).rejects.toThrow("absent");
  });

  it("has no diff if a megabyte has changed", async () => {
    const { replaced, diff } = await edit("a\n".repeat(500_000), ["a", "bb"]);
    expect({ replaced, diff }).toEqual({ replaced: 500_000, diff: undefined });
  });
});

it("the diff of a small edit of a long file names its lines", async () => {
  const lines = Array.from({ length: 500_000 }, (_, n) => `line ${n + 1}\n`);
  const { diff } = await edit(lines.join(""), ["line 400000\n", "new\n"]);
  expect(diff).toContain("@@ -399997,7 +399997,7 @@\n line 399997\n");
  expect(diff).toContain("-line 400000\n+new\n line 400001\n");
});

it("a diff changes the old text into the new one", async () => {
  const text = fc.array(fc.constantFrom("a", "b", "\n", "\n\n", "\r\n", "é"), { maxLength: 60 });
  const piece = fc.constantFrom("a", "\n", "a\n", "\na", "b\n\n", "\n\n\n");
  await fc.assert(
    fc.asyncProperty(text, piece, fc.constantFrom("", "c", "c\n", "\n"), async (parts, wanted, other) => {
      const before = parts.join("");
      fc.pre(before.includes(wanted));
      const { bytes, diff = "" } = await edit(before, [wanted, other]);
      expect(applyPatch(before, diff)).toBe(bytes.toString());
    }),
    { numRuns: 1000 },
  );
});

it("finds a text where V8 finds it", () => {
  const long = fc.array(fc.constantFrom("a", "ab", "aab"), { minLength: 12, maxLength: 60 });
  fc.assert(
    fc.property(long, fc.nat(100), fc.integer({ min: 33, max: 60 }), (parts, from, length) => {
      const text = parts.join("").repeat(3);
      const wanted = text.slice(from, from + length);
      fc.pre(wanted.length > 0);
      const search = new TextSearch(wanted);
      expect(search.split(text)).toEqual(text.split(wanted));
      expect(search.indexIn(text, from + 1)).toBe(text.indexOf(wanted, from + 1));
    }),
    { numRuns: 1000 },
  );
});
