import * as fc from "../../setup/chance.ts";
import { describe, expect, it } from "vitest";
import { newRunID } from "../../../src/runs/id.ts";
import { STREAMS, type Stream } from "../../../container/sandboxd/protocol.ts";
import { type LogPiece, type RunView } from "../../../src/runs/run-types.ts";
import type { RunToRead } from "../../../src/runs/runs.ts";
import { lastLine } from "../../../src/runs/shown-output.ts";
import { runEvents } from "../../../src/server/run-events.ts";
import { RequestMemory } from "../../../src/shared/request-memory.ts";
import type { ToolContext } from "../../../src/tools/define.ts";
import { followTask } from "../../../src/tools/follow-task.ts";
import { pageOutput } from "../../../src/tools/log-page.ts";
import {
  callsIn,
  idIn,
  objectsOf,
  owner,
  runInActor,
  waitForText,
  sh,
  sizeOf,
  wholeLog,
} from "../support.ts";

const sandbox = "output";

const { command: run } = callsIn(sandbox);

/** The bytes of one stream. */
function bytesOf(pieces: readonly LogPiece[], stream: Stream): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(pieces.flatMap((piece) => (piece.stream === stream ? [...piece.bytes] : [])));
}

const printed = fc.array(fc.constantFrom(..."aé€🐎"), { maxLength: 12 }).map((parts) => parts.join(""));

/** A log whose streams alternate, also inside characters, as pieces of one byte. */
const alternating = fc
  .tuple(printed, printed, fc.array(fc.constantFrom(...STREAMS), { maxLength: 96 }))
  .map(([stdout, stderr, order]) => {
    const encode = (text: string) => [...new TextEncoder().encode(text)];
    const left = { stdout: encode(stdout), stderr: encode(stderr) };
    const take = (stream: Stream, count: number): LogPiece[] =>
      left[stream].splice(0, count).map((byte) => ({ stream, bytes: Uint8Array.of(byte) }));
    const mixed = order.flatMap((stream) => take(stream, 1));
    return mixed.concat(take("stdout", Infinity), take("stderr", Infinity));
  });

/** The context of a call outside a server. */
const contextOf = (parts: object) =>
  ({
    ...parts,
    principal: { id: "output-reader" },
  }) as unknown as ToolContext;

/** Whether no stream is inside a character here. */
function isBetweenCharacters(pieces: readonly LogPiece[]): boolean {
  return STREAMS.every((stream) => !new TextDecoder().decode(bytesOf(pieces, stream)).endsWith("\ufffd"));
}

/** Numbered lines, as `seq -f 'word %07.0f' first last` prints them. */
function lines(word: string, first: number, last: number): string {
  let text = "";
  for (let n = first; n <= last; n++) text += `${word} ${String(n).padStart(7, "0")}\n`;
  return text;
}

describe("output in single bytes", () => {
  it("is complete, and sandboxd sends many of the bytes together", async () => {
    const print = "for n in range(1500): os.write(1, b'x'); os.write(2, b'y'); time.sleep(0.001)";
    const { structured } = await run(
      `python3 -c "import os, time\nbegin = time.time()\n${print}\nopen('/tmp/seconds', 'w').write(str(time.time() - begin))"`,
    );
    expect(structured).toMatchObject({ stdout: "x".repeat(1500), stderr: "y".repeat(1500) });
    const count = "SELECT count(*) AS rows FROM log WHERE run = ?";
    const rows = await runInActor(sandbox, (_, { storage }) =>
      storage.sql.exec<{ rows: number }>(count, String(structured.id)).one(),
    );
    // On a busy machine the program takes longer.
    const seconds = Number((await run("cat /tmp/seconds")).structured.stdout);
    expect(rows.rows).toBeLessThan(300 + 220 * seconds);
  });
});

describe("long output", () => {
  it("is shown by its beginning and end, and can be read in pages to the last byte", async () => {
    const result = await run("seq -f 'řádek %07.0f' 1 200000; seq -f 'chyba %07.0f' 1 20000 >&2");
    const bytes = 200_000 * 16;
    expect(result.structured).toMatchObject({
      state: "succeeded",
      stdout_bytes: bytes,
      stderr_bytes: 280_000,
    });
    const shown = String(result.structured.stdout);
    expect(shown.length).toBeLessThan(34_000);
    expect(shown.startsWith(lines("řádek", 1, 500))).toBe(true);
    expect(shown.endsWith(lines("řádek", 199_500, 200_000))).toBe(true);
    const omitted = Number(/\[\.\.\. (\d+) of 3200000 bytes omitted \.\.\.\]/.exec(shown)?.[1]);
    const shownBytes = new TextEncoder().encode(shown.replace(/\n\[\.\.\. .* \.\.\.\]\n/, "")).length;
    expect(omitted + shownBytes).toBe(bytes);
    expect(shown).not.toContain("\ufffd");
    const id = idIn(result);
    expect(result.text).toContain(`Whole output: get_result, id ${id}, cursor 0.`);
    const log = await wholeLog(id);
    expect(log.stdout === lines("řádek", 1, 200_000)).toBe(true);
    expect(log.stderr === lines("chyba", 1, 20_000)).toBe(true);
    const sizes = await Promise.all((await objectsOf(id)).map(sizeOf));
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(bytes + 280_000);
    expect(sizes.length).toBeGreaterThanOrEqual(2);
    expect(Math.max(...sizes)).toBeLessThanOrEqual(5 * 1024 * 1024);
  });

  it("of both streams has a label for each change of the stream", async () => {
    // Each line waits for the previous one to arrive, because either pipe may be read first.
    const waitForTurn = (turn: number) => `until [ -e turn-${turn} ]; do sleep 0.05; done`;
    const command = `echo out 1; ${waitForTurn(1)}; printf 'err 1' >&2; ${waitForTurn(2)}; printf 'out 2'; ${waitForTurn(3)}; echo err 2 >&2`;
    const id = idIn(await owner.call("run_command", { sandbox, command, wait_seconds: 0 }));
    for (const [index, words] of ["out 1", "err 1", "out 2"].entries()) {
      await waitForText(id, words);
      await owner.call("write_file", { sandbox, path: `turn-${index + 1}`, content: "" });
    }
    await waitForText(id, "err 2");
    const { content } = await owner.call("get_result", { id, cursor: 0 });
    expect(content.slice(1).map(({ text }) => text)).toEqual([
      "[stdout]\n```\nout 1\n```",
      "[stderr]\n```\nerr 1\n```",
      "[stdout]\n```\nout 2\n```",
      "[stderr]\n```\nerr 2\n```",
    ]);
  });

  it("is never cut inside a character or a surrogate pair", async () => {
    for (const pad of [0, 1, 2, 3]) {
      const result = await run(`printf '%${pad}s' ''; head -c 40000 /dev/zero | sed 's/\\x0/🐎/g'`);
      expect(result.structured.stdout_bytes).toBe(160_000 + pad);
      expect(result.structured.stdout).not.toContain("\ufffd");
      expect(String(result.structured.stdout).isWellFormed()).toBe(true);
      const log = await wholeLog(idIn(result));
      expect(log.stdout === " ".repeat(pad) + "🐎".repeat(40_000)).toBe(true);
    }
  });

  it("is not cut inside a character in the progress of a call either", () => {
    const bytes = (text: string) => new TextEncoder().encode(text);
    // Only the end of this text is searched. The first searched byte is in the middle of a character.
    expect(lastLine(bytes(`${"é".repeat(4000)}x`))).toBe("é".repeat(200));
    // The last character has not arrived completely.
    expect(lastLine(bytes("read é").subarray(0, -1))).toBe("read");
  });

  it("is not cut inside a line or a character in the progress of a task", async () => {
    const log = new TextEncoder().encode("řádek 1\n\nřádek 2\npoznámka\nřádek 3");
    for (const size of [1, 7, 40]) {
      const readRun = async (_owner: unknown, { cursor }: RunToRead) => {
        const view = { state: "running", logBytes: log.length };
        if (cursor === undefined) return { run: view };
        const bytes = log.subarray(cursor, cursor + size);
        const next = cursor + bytes.length;
        if (next === log.length) view.state = "succeeded";
        return { run: view, page: { pieces: [{ stream: "stdout", bytes }], next } };
      };
      const reading = (_sandbox: string, call: (...args: unknown[]) => unknown) => call({ readRun });
      const messages: string[] = [];
      const progress = (message: string) => messages.push(message);
      await followTask(contextOf({ reading, progress }), newRunID(sandbox, true), 60_000);
      expect(messages).toEqual(["řádek 1", "řádek 2", "poznámka", "řádek 3"]);
    }
  });

  it("has long lines of a followed task shortened, before its hidden characters are shown", async () => {
    const line = { stream: "stdout" as const, bytes: new TextEncoder().encode(`${"\u202e".repeat(5000)}\n`) };
    const readRun = async (_owner: unknown, { cursor }: RunToRead) =>
      cursor === undefined
        ? { run: { state: "running" } }
        : { run: { state: "succeeded", logBytes: 1 }, page: { pieces: [line], next: 1 } };
    const reading = (_sandbox: string, call: (...args: unknown[]) => unknown) => call({ readRun });
    const messages: string[] = [];
    const progress = (message: string) => messages.push(message);
    await followTask(contextOf({ reading, progress }), newRunID(sandbox, true), 60_000);
    expect(messages).toEqual([expect.stringMatching(/^(?:\\u202e){499}…$/)]);
  });

  it("sends the last lines of a page of a followed task, however many pieces the page has", async () => {
    const numbers = Array.from({ length: 3200 }, (_, line) => `${line}`);
    const pieces = Array.from({ length: 80 }, (_, piece) => {
      const text = numbers.slice(40 * piece, 40 * piece + 40).join("\n");
      return { stream: "stdout" as const, bytes: new TextEncoder().encode(`${text}\n`) };
    });
    const readRun = async (_owner: unknown, { cursor }: RunToRead) =>
      cursor === undefined
        ? { run: { state: "running" } }
        : { run: { state: "succeeded", logBytes: 1 }, page: { pieces, next: 1 } };
    const reading = (_sandbox: string, call: (...args: unknown[]) => unknown) => call({ readRun });
    const messages: string[] = [];
    const progress = (message: string) => messages.push(message);
    await followTask(contextOf({ reading, progress }), newRunID(sandbox, true), 60_000);
    expect(messages).toEqual(numbers.slice(-100));
  });

  it.each(["running", "succeeded"] as const)(
    "of two streams is complete in the pages of a %s run, wherever a page cuts it",
    (state) => {
      fc.assert(
        fc.property(alternating, fc.integer({ min: 4, max: 40 }), (pieces, size) => {
          const whole = pieces.map((_, at) => isBetweenCharacters(pieces.slice(0, at + 1)));
          const isCuttable = whole.every(
            (_, at) => at + size >= whole.length || whole.slice(at, at + size).includes(true),
          );
          // A page that is inside a character from its start to its end must cut one.
          fc.pre(isCuttable);
          const texts = { stdout: "", stderr: "" };
          const view = { id: "x", state, logBytes: pieces.length, droppedBytes: 0 } as RunView;
          for (let cursor = 0; cursor < pieces.length;) {
            const page = pieces.slice(cursor, cursor + size);
            const { log, next_cursor } = pageOutput(view, {
              pieces: page,
              next: cursor + page.length,
            }).structured!;
            for (const { stream, text } of log) texts[stream] += text;
            expect(next_cursor).toBeGreaterThan(cursor);
            cursor = next_cursor;
          }
          for (const stream of STREAMS)
            expect(texts[stream]).toBe(new TextDecoder().decode(bytesOf(pieces, stream)));
        }),
        { numRuns: 300 },
      );
    },
  );

  it("of a terminal has a limited size in a page, also if its streams alternate and each piece moves the cursor", () => {
    const bytes = new TextEncoder().encode("\u001b[999Gx");
    const pieces = Array.from({ length: 2000 }, (_, at) => ({ stream: STREAMS[at % 2]!, bytes }));
    const size = pieces.length * bytes.length;
    const view = { id: "x", state: "succeeded", logBytes: size, droppedBytes: 0, isInteractive: true };
    const { log } = pageOutput(view as RunView, { pieces, next: size }).structured!;
    expect(log.map(({ text }) => text).join("").length).toBeLessThanOrEqual(2 * size + 1000);
  });

  it("that ends inside a character is complete in the events of a task", async () => {
    const pieces = [
      { stream: "stdout", bytes: Uint8Array.of(0x61, 0xc3) },
      { stream: "stderr", bytes: Uint8Array.of(0x62) },
    ];
    const view = { state: "succeeded", logBytes: 3 };
    const readRun = async () => ({ run: view, page: { pieces, next: 3 } });
    const reading = (_sandbox: string, call: (...args: unknown[]) => unknown) => call({ readRun });
    const source = {
      id: newRunID(sandbox, true),
      summary: {},
      resultOf: async () => ({}),
      memory: new RequestMemory("x", new AbortController().signal),
    };
    const events = await runEvents(contextOf({ reading }), source).text();
    const output = [...events.matchAll(/^event: output\ndata: (.*)$/gm)].map(([, data = ""]) =>
      JSON.parse(data),
    );
    expect(output).toEqual([
      { stream: "stdout", text: "a" },
      { stream: "stderr", text: "b" },
      { stream: "stdout", text: "\ufffd" },
    ]);
  });

  it("that arrives in halves of characters is complete in the log", async () => {
    const result = await run("printf '\\xf0\\x9f'; sleep 1.5; printf '\\x90\\x8e'; sleep 1.2; printf end");
    expect(result.structured.stdout).toBe("🐎end");
    expect((await wholeLog(String(result.structured.id))).stdout).toBe("🐎end");
  });

  it("that is binary is shown as text and counted in bytes", async () => {
    const result = await run("head -c 500000 /dev/urandom");
    expect(result.structured.stdout_bytes).toBe(500_000);
    expect((await wholeLog(idIn(result))).pages).toBeGreaterThan(10);
  });

  it("is complete even if it contains the command lines of the server's own processes", async () => {
    const { structured } = await run("sleep 0.1; cat /proc/[0-9]*/cmdline; echo over");
    expect(structured.stdout).toMatch(/over\n$/);
  });

  it("is kept up to the limit; after that its end is still shown, dropped bytes are counted, and the other stream is kept", async () => {
    const total = 1_400_000 * 15;
    const started = await owner.call("run_command", {
      sandbox,
      command:
        "seq -f 'number %07.0f' 1 1400000; until [[ -e go-on ]]; do sleep 0.1; done; echo 'the error' >&2; exit 3",
      wait_seconds: 1,
    });
    const id = idIn(started);
    await waitForText(id, "number 1400000");
    await owner.call("write_file", { sandbox, path: "go-on", content: "" });
    const result = await owner.call("get_result", { id, wait_seconds: 20 });
    expect(result.structured).toMatchObject({ exit_code: 3, stdout_bytes: total });
    expect(String(result.structured.stdout).endsWith(lines("number", 1_399_000, 1_400_000))).toBe(true);
    const cap = 16 * 1024 * 1024;
    const dropped = total - cap;
    expect(result.text).toContain(`(its last ${dropped} bytes were not kept)`);
    const last = await owner.call("get_result", { id, cursor: cap - 1500 });
    expect(last.text).toContain(`This is the end of the log. ${dropped} bytes after it were not kept.`);
    expect(last.structured.log).toMatchObject([
      { stream: "stdout", text: lines("number", 1, Math.ceil(cap / 15)).slice(cap - 1500, cap) },
      { stream: "stderr", text: "the error\n" },
    ]);
    expect(await sh(sandbox, "ls /var/lib/sandbox-mcp/runs | wc -l")).toMatch(/^[0-9]\n$/);
  });

  it.each([
    ["python", "print('x' + 'é' * (8 * 1024 * 1024 + 50), end='')"],
    ["javascript", "process.stdout.write('x' + 'é'.repeat(8 * 1024 * 1024 + 50)); undefined"],
  ])(
    "of %s is counted and cut in bytes, even if the limit lies inside a character",
    async (language, code) => {
      const { structured } = await owner.call("run_code", { sandbox, language, code, wait_seconds: 50 });
      const [bytes, shown] = [16 * 1024 * 1024 + 101, 16 * 1024];
      expect(structured).toMatchObject({ state: "succeeded", stdout_bytes: bytes });
      const omitted = `\n[... ${bytes - 2 * shown + 1} of ${bytes} bytes omitted ...]\n`;
      expect(structured.stdout).toBe(`x${"é".repeat(8191)}${omitted}${"é".repeat(8192)}`);
    },
  );

  it("is cut between two characters, before and after the omitted part", async () => {
    const { structured } = await run("printf x; printf '😀%.0s' {1..20000}; echo y");
    const [bytes, shown] = [80_003, "😀".repeat(4095)];
    const omitted = `\n[... ${bytes - 2 * 4 * 4095 - 3} of ${bytes} bytes omitted ...]\n`;
    expect(structured).toMatchObject({ stdout_bytes: bytes, stdout: `x${shown}${omitted}${shown}y\n` });
  });

  it("of 200 MiB fills neither the disk nor the memory of the sandbox", { timeout: 180_000 }, async () => {
    const large = "large-output";
    const patient = owner.withVariables({ MAX_WAIT_SECONDS: "170" });
    await sh(large, "true");
    const watched = patient.call("run_command", {
      sandbox: large,
      session: "watch",
      command:
        "peak=0; until [[ -e /tmp/over ]]; do now=$(du -sm /var/lib/sandbox-mcp | cut -f1); ((now > peak)) && peak=$now; sleep 0.2; done; echo $peak $(cat /proc/[0-9]*/status 2>/dev/null | awk '/^VmHWM/ && $2 > max { max = $2 } END { print int(max / 1024) }')",
      timeout_seconds: 170,
      wait_seconds: 170,
    });
    const result = await patient.call("run_command", {
      sandbox: large,
      command: "yes | head -c 200M",
      timeout_seconds: 150,
      wait_seconds: 150,
    });
    await sh(large, "touch /tmp/over");
    expect(result.structured).toMatchObject({ state: "succeeded", stdout_bytes: 200 * 1024 ** 2 });
    const [disk = Number.NaN, memory = Number.NaN] = String((await watched).structured.stdout)
      .split(" ")
      .map(Number);
    // 64 MiB may be buffered, and the program prints more between two measurements.
    expect(disk).toBeLessThan(150);
    expect(memory).toBeLessThan(250);
  });

  it("of code has the same limits", async () => {
    const result = await owner.call("run_code", {
      sandbox,
      code: "import sys\nfor n in range(1, 100001): print(f'code {n:07}')\nprint('err', file=sys.stderr)\n'value'",
    });
    expect(result.text).toContain("result: 'value'");
    expect(result.text).toContain(`[... `);
    expect(result.text).toContain("stderr: err");
    const log = await wholeLog(idIn(result));
    expect(log.stdout === lines("code", 1, 100_000)).toBe(true);
    expect(log.stderr).toBe("err\n");
  });
});

it("the files of ended runs are deleted when these runs have printed much together", async () => {
  const many = "output-many";
  for (let count = 0; count < 4; count++) await sh(many, "yes | head -c 400k");
  const count = "ls /var/lib/sandbox-mcp/runs | wc -l";
  const counted = await sh(
    many,
    `for n in $(seq 50); do [ $(${count}) -lt 5 ] && break; sleep .1; done; ${count}`,
  );
  // The command that counts has a directory, too.
  expect(Number(counted)).toBe(2);
});
