import { describe, expect, it } from "vitest";
import { type CodeError, codeOutcomeOf, parseDocument } from "../../src/container/kernels/kernel-protocol.ts";

describe("the parser of a document, the JSON in which a kernel reports a run,", () => {
  const stream = { text: "", bytes: 0 };
  const document = {
    sandbox_mcp_run: 1,
    run: "a",
    spilled: false,
    stdout: stream,
    stderr: stream,
    results: [{ text: "1" }],
  };
  const validDocument = { ...document, error: null, exit: null };

  it("accepts only the document of this run", () => {
    const nothing = { output: new Uint8Array(), bytes: 0 };
    const read = { ...validDocument, stdout: nothing, stderr: nothing };
    expect(parseDocument(JSON.stringify(validDocument), "a")).toEqual(read);
    expect(parseDocument(JSON.stringify(validDocument), "b")).toBeUndefined();
    expect(parseDocument(`noise${JSON.stringify(validDocument)}`, "a")).toBeUndefined();
    expect(parseDocument(JSON.stringify({ ...validDocument, stdout: "text" }), "a")).toBeUndefined();
  });

  it("limits every part of a document, also from a modified prelude", () => {
    const huge = "x".repeat(5_000_000);
    const lines = Array.from({ length: 3000 }, () => "line");
    const vast = { text: huge, bytes: huge.length, last: huge };
    const sent = {
      ...validDocument,
      stdout: vast,
      results: [{ text: huge }, { png: huge.repeat(4), more: huge }, ...lines.map((text) => ({ text }))],
      error: { name: huge, message: huge, traceback: [huge, ...lines] },
      exit: 1e300,
    };
    const found = parseDocument(JSON.stringify(sent), "a");
    expect(found?.stdout).toMatchObject({ bytes: huge.length, last: undefined });
    expect(found?.stdout.output).toHaveLength(1024 * 1024);
    expect(found?.results).toHaveLength(200);
    expect(found?.results.slice(0, 3)).toEqual([{ text: huge.slice(0, 512 * 1024) }, {}, { text: "line" }]);
    expect(found?.error).toMatchObject({ name: "x".repeat(200), message: huge.slice(0, 32 * 1024) });
    expect(found?.error?.traceback).toHaveLength(1000);
    expect(found?.error?.traceback[0]).toHaveLength(8 * 1024);
    expect(found?.exit).toBeNull();
  });

  it("decodes the longest output, also from a modified prelude", () => {
    const data = Buffer.alloc(1024 * 1024, 0xff);
    const full = { data: data.toString("base64"), bytes: data.length };
    const found = parseDocument(JSON.stringify({ ...validDocument, stdout: full, stderr: full }), "a");
    for (const one of [found?.stdout, found?.stderr])
      expect(Buffer.from(one?.output ?? []).equals(data)).toBe(true);
  });

  it("cuts no character in half", () => {
    const long = `x${"😀".repeat(300_000)}`;
    const error = { name: long, message: long, traceback: [long] };
    const sent = {
      ...validDocument,
      stdout: { ...stream, text: long, bytes: 2 ** 30 },
      results: [{ text: long }],
      error,
    };
    const found = parseDocument(JSON.stringify(sent), "a");
    const bounded = { name: 199, message: 32 * 1024 - 1, traceback: [8 * 1024 - 1] };
    const lengths = (cut?: CodeError | null) =>
      cut && {
        name: cut.name.length,
        message: cut.message.length,
        traceback: cut.traceback.map((line) => line.length),
      };
    expect(found?.results[0]?.text).toHaveLength(512 * 1024 - 1);
    expect(lengths(found?.error)).toEqual(bounded);
    expect(lengths(codeOutcomeOf({ logs: { stdout: [], stderr: [] }, error }, "a").error)).toEqual(bounded);
  });

  it("counts the bytes of an output, not its characters", () => {
    const last = Buffer.from("é".repeat(8192)).toString("base64");
    const sent = { data: "/+k=", bytes: 20_000, last };
    const text = JSON.stringify({
      ...validDocument,
      stdout: sent,
      stderr: { ...sent, bytes: 5, last: "no base64!" },
    });
    const found = parseDocument(text, "a");
    expect(found?.stdout).toEqual({
      output: new Uint8Array([0xff, 0xe9]),
      bytes: 20_000,
      last: new Uint8Array(Buffer.from("é".repeat(8192))),
    });
    expect(found?.stderr.last).toBeUndefined();
  });
});
