import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { SHOWN_END_BYTES } from "../../container/sandboxd/protocol.ts";
import { loadCell, parseDocument, parseHello, runCell } from "../../src/container/kernels/protocol.ts";

const AWKWARD = "\"quotes\" 'single' \\ back\n\ttab \0 nul é 😀 \u2028 \ud800 </script> ${x} %magic !cmd ?";

describe("runCell", () => {
  const spec = { code: AWKWARD, logCapBytes: 5 };

  const mark = String(Number.parseInt("box1", 36));

  it("is one ASCII line whatever the code holds", () => {
    for (const language of ["python", "javascript", "typescript"] as const) {
      expect(runCell(language, "box1", spec)).toMatch(/^__sandbox_mcp__\([ -~]*\)$/);
    }
  });

  it("gives JavaScript an object", () => {
    const received = new Function("__sandbox_mcp__", `return ${runCell("javascript", "box1", spec)}`)(
      (value: unknown) => value,
    );
    const files = "/var/lib/sandbox-mcp/runs/box1";
    expect(received).toEqual({
      run: "box1",
      mark,
      files,
      cap_bytes: 5,
      tail_bytes: SHOWN_END_BYTES,
      language: "javascript",
      code: AWKWARD,
    });
  });

  it("gives Python JSON text", () => {
    const program = `import json\n__sandbox_mcp__ = lambda text: print(json.dumps(json.loads(text)))\n${runCell("python", "box1", spec, "/r")}`;
    const { stdout } = spawnSync("python3", ["-"], { input: program, encoding: "utf8" });
    expect(JSON.parse(stdout)).toEqual({
      run: "box1",
      mark,
      files: "/r/box1",
      cap_bytes: 5,
      tail_bytes: SHOWN_END_BYTES,
      language: "python",
      code: AWKWARD,
    });
  });
});

describe("loadCell", () => {
  it("loads the prelude from where it lies in a sandbox", () => {
    expect(loadCell("typescript")).toBe(
      'require("/opt/sandbox-mcp/kernel/node.cjs").start(globalThis, "typescript")',
    );
    expect(loadCell("python")).toContain("/opt/sandbox-mcp/kernel");
  });
});

describe("parsing", () => {
  const stream = { text: "", bytes: 0, dropped: 0 };
  const document = {
    sandbox_mcp_run: 1,
    run: "a",
    spilled: false,
    stdout: stream,
    stderr: stream,
    results: [{ text: "1" }],
  };
  const whole = { ...document, error: null, exit: null };

  it("finds the process among other lines", () => {
    const line =
      '{"sandbox_mcp_kernel": 1, "pid": 12, "started": 345, "language": "python", "version": "3.11"}';
    expect(parseHello(`a warning\n${line}\n`)).toEqual({ pid: 12, started: 345 });
    expect(parseHello('{"pid": 12}')).toBeUndefined();
    expect(parseHello("")).toBeUndefined();
  });

  it("takes the document of this run, and nothing else", () => {
    const nothing = { output: new Uint8Array(), bytes: 0, dropped: 0 };
    const read = { ...whole, stdout: nothing, stderr: nothing };
    expect(parseDocument(JSON.stringify(whole), "a")).toEqual(read);
    expect(parseDocument(JSON.stringify(whole), "b")).toBeUndefined();
    expect(parseDocument(`noise${JSON.stringify(whole)}`, "a")).toBeUndefined();
    expect(parseDocument(JSON.stringify({ ...whole, stdout: "text" }), "a")).toBeUndefined();
  });

  it("holds all of a document to its bounds, whatever a changed prelude sends", () => {
    const huge = "x".repeat(5_000_000);
    const lines = Array.from({ length: 3000 }, () => "line");
    const vast = { text: "t", bytes: Number.MAX_SAFE_INTEGER, dropped: -1, last: huge };
    const sent = {
      ...whole,
      stdout: vast,
      stderr: { text: "t", bytes: -5, dropped: Number.MAX_SAFE_INTEGER },
      results: [{ text: huge }, { png: huge.repeat(4), more: huge }, ...lines.map((text) => ({ text }))],
      error: { name: huge, message: huge, traceback: [huge, ...lines] },
      exit: 1e300,
    };
    const found = parseDocument(JSON.stringify(sent), "a");
    expect(found?.stdout).toEqual({ output: new Uint8Array([0x74]), bytes: 2 ** 40, dropped: 0 });
    expect(found?.stderr).toEqual({ output: new Uint8Array(), bytes: 0, dropped: 0 });
    expect(found?.results).toHaveLength(200);
    expect(found?.results.slice(0, 3)).toEqual([{ text: huge.slice(0, 512 * 1024) }, {}, { text: "line" }]);
    expect(found?.error).toMatchObject({ name: "x".repeat(200), message: huge.slice(0, 32 * 1024) });
    expect(found?.error?.traceback).toHaveLength(1000);
    expect(found?.error?.traceback[0]).toHaveLength(8 * 1024);
    expect(found?.exit).toBeNull();
  });

  it("counts the bytes of an output, not its characters", () => {
    const last = Buffer.from("é".repeat(8192)).toString("base64");
    const sent = { data: "/+k=", bytes: 20_000, dropped: 19_998, last };
    const text = JSON.stringify({
      ...whole,
      stdout: sent,
      stderr: { ...sent, bytes: 5, last: "no base64!" },
    });
    const found = parseDocument(text, "a");
    expect(found?.stdout).toEqual({
      output: new Uint8Array([0xff, 0xe9]),
      bytes: 20_000,
      dropped: 19_998,
      last: new Uint8Array(Buffer.from("é".repeat(8192))),
    });
    expect(found?.stderr.last).toBeUndefined();
  });

  it("takes no document that costs by its values", () => {
    const keys = Object.fromEntries(Array.from({ length: 30_000 }, (_, n) => [`k${n}`, 1]));
    expect(parseDocument(JSON.stringify({ ...whole, keys }), "a")).toBeUndefined();
    const numbers = Array.from({ length: 30_000 }, () => 1);
    expect(parseDocument(JSON.stringify({ ...whole, numbers }), "a")).toBeUndefined();
    const text = "[1,{}],".repeat(30_000);
    expect(parseDocument(JSON.stringify({ ...whole, results: [{ text }] }), "a")?.results).toEqual([
      { text },
    ]);
  });
});
