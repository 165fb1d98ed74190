/** One principal attacks the server, for example by programs in place of the control server. Calls of another must succeed. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { openHeap, PRODUCT_SERVICE } from "../../bench/heap.ts";
import { procStat, TICK_MS } from "../../container/sandboxd/proc-stat.ts";
import { endLater } from "../setup/end-later.ts";
import { wsPackage } from "../setup/engine-client.ts";
import { bundleHostileControl } from "../setup/hostile-bundle.ts";
import { portsOf, type Process, statusNumber, tree, withoutForkedCopies } from "../setup/processes.ts";
import { startParts } from "../setup/parts.ts";
import { tool } from "../setup/tool.ts";
import { startFloodablePreview } from "../setup/tiny-pieces.ts";
import { sleep, until } from "../setup/until.ts";
import { sendRaw } from "./support.ts";
import HOSTILE_SANDBOXD from "../setup/hostile-sandboxd.cjs?raw";
import TAKE_PLACE from "../setup/take-place.cjs?raw";

const NEIGHBOUR = "a-token-of-another-principal";

/** How long an attack may wait for its response. */
const ATTACK_SECONDS = 2;
/** How long an attack floods a run. The flood keeps the processor busy all the time. */
const FLOOD_SECONDS = 1;
const COMMAND = { command: "echo", timeout_seconds: FLOOD_SECONDS };
const TASK = { task: "work", timeout_seconds: FLOOD_SECONDS, wait_seconds: FLOOD_SECONDS };

const control = await bundleHostileControl();
const deaths: string[] = [];
const sha256 = createHash("sha256").update(NEIGHBOUR).digest("hex");
const scopes = ["sandbox:read", "sandbox:write", "sandbox:exec"];
const parts = endLater(
  await startParts({
    engine: { control, readOnly: [wsPackage] },
    variables: {
      AUTH_TOKENS: JSON.stringify([{ name: "neighbour", sha256, scopes }]),
      ANTHROPIC_API_KEY: "no-key",
      SECRETS: JSON.stringify([
        { name: "query", hosts: ["query.test"], query: "key={value}", value: "0123456789abcdef" },
      ]),
    },
    onDeath: (part) => deaths.push(part),
    inspector: true,
  }),
);
const { url } = parts;

/** A call into the attacking sandbox. Its result does not matter. */
async function attack(command: string): Promise<void> {
  await attackWith("run_command", { command, timeout_seconds: 6 });
}

async function attackWith(
  name: string,
  args: Record<string, unknown>,
  seconds = ATTACK_SECONDS,
): Promise<string> {
  const result = await tool(url, name, args, { signal: AbortSignal.timeout(seconds * 1000) }).catch((e) => e);
  const text = String(result?.text ?? result);
  if (process.env.TIMES === "1") console.log(name, text.slice(0, 150));
  return text;
}

// Checks that the engine and workerd still run.
afterEach(() => expect(deaths).toEqual([]));

/** Makes this number of calls at once. */
const atOnce = (count: number, call: (n: number) => Promise<unknown>) =>
  Promise.all(Array.from({ length: count }, (_, n) => call(n)));

/** The neighbour's pause after each call, in milliseconds. It leaves processor time to the attack. */
const PAUSE_MS = 30;

/** Makes calls of the neighbour until `over`. Each must succeed. Returns their times in milliseconds. */
async function neighbourUntil(over: () => boolean): Promise<number[]> {
  const times: number[] = [];
  do {
    const from = performance.now();
    const { text, isError } = await tool(
      url,
      "run_command",
      { command: "echo still here" },
      { token: NEIGHBOUR },
    );
    expect({ text, isError }).toEqual({ text: expect.stringContaining("still here"), isError: false });
    const ms = performance.now() - from;
    times.push(ms);
    await sleep(PAUSE_MS);
  } while (!over());
  return times;
}

/** The shortest time in which the neighbour's calls are counted. */
const LEAST_MS = 600;

/**
 * The least rate of the neighbour's calls during an attack, as a part of the rate without one. Each call takes about twenty
 * milliseconds, and a pause follows. The calls share one thread with the attack, which occupies the thread for up to a few hundred
 * milliseconds at once.
 */
const LEAST_SHARE = 1 / 10;

/** The time in which calls are counted before an attack. */
const PEACE_MS = 250;

/** The interval at which `untilCalm` reads the processor time of workerd. */
const LOOK_MS = 1000;

/**
 * Waits until the server has ended its work on an attack whose clients have disconnected: until workerd uses less than a fifth
 * of a processor. After a flood without limits, this took 100 seconds, and calls meanwhile were as slow as during the flood.
 */
async function untilCalm(): Promise<void> {
  for (let before = processorMs(); ;) {
    await sleep(LOOK_MS);
    const now = processorMs();
    if (now - before < LOOK_MS / 5) return;
    before = now;
  }
}

/** The processor time of this process's workerd so far, in milliseconds. */
function processorMs(): number {
  const found = tree(process.pid).filter(({ command }) => command.includes("workerd serve"));
  const ticks = found.flatMap(({ pid }) => (procStat(pid) ?? []).slice(11, 13).map(Number));
  return ticks.reduce((sum, each) => sum + each, 0) * TICK_MS;
}

/**
 * Compares the rate of the neighbour's calls during an attack with the rate before it. A fixed rate would not work, because the
 * machine has other work. That work may begin during the test, so the rate after the attack is the reference if it is lower.
 */
async function expectAnswersDuring(what: string, runAttack: () => Promise<unknown>): Promise<void> {
  const rateFor = async (title: string, isOver: (ms: number) => boolean) => {
    const from = performance.now();
    const times = await neighbourUntil(() => isOver(performance.now() - from));
    show(title, times);
    const ms = performance.now() - from;
    return times.length / ms;
  };
  const before = await rateFor(`before ${what}`, (ms) => ms > PEACE_MS);
  let isOver = false;
  const ended = runAttack().finally(() => (isOver = true));
  const meanwhile = await rateFor(what, (ms) => isOver && ms > LEAST_MS);
  await ended;
  if (meanwhile >= before * LEAST_SHARE) return;
  await untilCalm();
  const after = await rateFor(`after ${what}`, (ms) => ms > LEAST_MS);
  expect(meanwhile).toBeGreaterThanOrEqual(Math.min(before, after) * LEAST_SHARE);
}

function show(what: string, times: number[]): void {
  if (process.env.TIMES !== "1") return;
  const sorted = times.toSorted((a, b) => a - b);
  const quantile = (share: number) => sorted[Math.floor((sorted.length - 1) * share)]?.toFixed(0);
  console.log(
    `${what}: ${sorted.length} calls, median ${quantile(0.5)} ms, p95 ${quantile(0.95)} ms, most ${quantile(1)} ms`,
  );
}

/** The loopback TCP ports on which this process's workerd listens. */
function workerdPorts(): number[] {
  return workerds().flatMap(({ pid }) => portsOf(pid));
}

function workerds(): Process[] {
  return tree(process.pid).filter(({ command }) => command.includes("workerd serve"));
}

/** The highest memory use of this process's workerd so far, in bytes. */
function mostMemory(): number {
  return Math.max(...workerds().map(({ pid }) => statusNumber(pid, "VmHWM"))) * 1024;
}

/** The server's memory use, in bytes. */
function memoryNow(): number {
  const found = withoutForkedCopies(tree(process.pid)).filter(({ command }) =>
    /workerd serve|local\/engine\/main/.test(command),
  );
  return found.reduce((sum, { pid }) => sum + statusNumber(pid, "VmRSS") * 1024, 0);
}

describe("when workerd's own header MF-Original-URL names another host", () => {
  it("no port of workerd accepts the request", async () => {
    const ports = workerdPorts();
    expect(ports).toContain(Number(new URL(url).port));
    // Only tests have an inspector.
    for (const port of ports.filter((one) => one !== parts.inspectorPort)) {
      const head = `GET /health HTTP/1.1\r\nHost: evil.example\r\nMF-Original-URL: https://evil.example/health\r\nConnection: close\r\n\r\n`;
      expect(await sendRaw(`http://127.0.0.1:${port}/`, [head])).toMatch(/^HTTP\/1\.1 40[34] /);
    }
  });
});

describe("when a program in the control server's place replies to each call with the same value", () => {
  it.each([
    "null",
    "1",
    "{}",
    '{"stdout":1,"stderr":[[]],"id":2}',
    '{"id":"a","stdout":"file 3\\nYWJj"}',
    '[["a"]]',
  ])("code fails, and its error says that the sandbox is damaged and what to do: %s", async (value) => {
    const sandbox = "same-reply";
    await tool(url, "run_command", { sandbox, command: `echo 'reply ${value}' >/tmp/attack` });
    const run = (language: string) => tool(url, "run_code", { sandbox, code: "1", language });
    // The control server sees the file a moment later, and then closes its earlier connections.
    const current = () => tool(url, "run_command", { sandbox, command: "cat /var/tmp/current-attack" });
    await until(async () => (await run("python")).isError && (await current()).text.includes(value));
    for (const language of ["python", "javascript"]) {
      const { text, isError } = await run(language);
      expect({ text, isError }).toEqual({
        text: expect.stringMatching(/is damaged.*destroy_sandbox/s),
        isError: true,
      });
    }
  });

  it("the sandbox works again after destroy_sandbox", async () => {
    const sandbox = "same-reply";
    expect(await tool(url, "destroy_sandbox", { sandbox })).toMatchObject({ isError: false });
    expect((await tool(url, "run_code", { sandbox, code: "6 * 7" })).text).toContain("42");
  });
});

it("the server keeps nothing that a program in the control server's place sends for each kernel", async () => {
  const sandbox = "contexts";
  await tool(url, "run_command", { sandbox, command: "echo contexts >/tmp/attack" });
  const heap = await openHeap(parts, PRODUCT_SERVICE);
  const before = await heap.live();
  // The program sends 8 MiB for each context.
  for (let round = 0; round < 3; round++)
    await atOnce(4, async (n) => {
      const { text } = await tool(url, "run_code", { sandbox, code: "1", context: `c${round}-${n}` });
      expect(text).toContain("The sandbox is damaged");
    });
  expect((await heap.live()) - before).toBeLessThan(60);
  heap.close();
  await tool(url, "destroy_sandbox", { sandbox });
});

describe("when many contexts return large results at once", () => {
  it("the server does not stop the sandbox", async () => {
    const code = [
      "import os, time, sandbox_mcp_kernel",
      // Our own code in the kernel sends less.
      "sandbox_mcp_kernel._dump = lambda document: 'x' * 10_600_000",
      "open('/tmp/ready', 'a').write('1')",
      "while os.path.getsize('/tmp/ready') < 5: time.sleep(0.01)",
    ].join("\n");
    const sandbox = "results";
    // The results have 53 MB together. The engine forwards more only when fewer than 32 MiB wait in the Worker.
    const results = await atOnce(5, (n) => tool(url, "run_code", { sandbox, code, context: `context-${n}` }));
    const text = expect.stringContaining("did not respond as it should");
    expect(results).toEqual(Array(5).fill(expect.objectContaining({ text })));
    expect((await tool(url, "run_command", { sandbox, command: "cat /tmp/ready" })).text).toContain(
      "1".repeat(5),
    );
    await tool(url, "destroy_sandbox", { sandbox });
  });
});

/** Texts of results that only the real sandboxd causes. */
const HONEST = /is empty|has no files|exit_code: 0/;

/**
 * Hostile output of a program in sandboxd's place, by its name in hostile-sandboxd.cjs, and the call that receives it.
 * docs/internals/security.md has a row for each, which scripts/links.mjs checks.
 */
const FLOODS: { what: string; flood: string; call: [name: string, args: Record<string, unknown>] }[] = [
  { what: "an encoded response", flood: "encoded", call: ["list_files", {}] },
  { what: "a response of millions of values", flood: "values", call: ["list_files", {}] },
  { what: "a response of nested lists", flood: "depth", call: ["list_files", {}] },
  { what: "a response with long names", flood: "keys", call: ["list_files", {}] },
  {
    what: "a listing of names of invisible characters",
    flood: "names",
    call: ["list_files", { limit: 5000, recursive: true }],
  },
  { what: "the plan of a save", flood: "plan", call: ["checkpoint_sandbox", {}] },
  { what: "changes of a task", flood: "changes", call: ["execute_task", TASK] },
  { what: "a response in pieces of one byte", flood: "pieces", call: ["list_files", {}] },
  { what: "events of a command", flood: "events", call: ["run_command", COMMAND] },
  { what: "events of many values", flood: "badEvents", call: ["run_command", COMMAND] },
  { what: "output of a command", flood: "output", call: ["run_command", COMMAND] },
  { what: "output of an agent in pieces of one byte", flood: "bytes", call: ["execute_task", TASK] },
  { what: "events of an agent", flood: "agent", call: ["execute_task", TASK] },
  { what: "lines of an agent that are not events", flood: "lines", call: ["execute_task", TASK] },
];

describe("when one principal attacks the server", () => {
  // Starts the neighbour's sandbox.
  beforeAll(async () => void (await neighbourUntil(() => true)));

  // tests/node/control.test.ts checks that the engine ends such a sandbox. This test sends only the largest message, output without
  // end, the message with most values, errors that are slow to parse, and one that breaks no rule.
  it.each(["push", "output", "numbers", "errors", "churn"])(
    "another principal's calls succeed while a program in the control server's place sends hostile messages: %s",
    async (name) => {
      await expectAnswersDuring(name, async () => {
        // The attack begins with the next connection to the control server.
        await attack(`echo ${name} >/tmp/attack`);
        await atOnce(12, (n) =>
          attackWith("run_code", { code: "1", context: `context-${n}` }, FLOOD_SECONDS),
        );
        await tool(url, "destroy_sandbox", { sandbox: "default" });
      });
    },
  );

  describe("when a program takes sandboxd's place", () => {
    const ofRuns = ["events", "badEvents", "output", "bytes", "agent", "lines"];
    /** A run's flood continues after the run, so it has its own sandbox. The other floods share one, and `path` selects them. */
    const sandboxOf = (flood: string) => (ofRuns.includes(flood) ? `flood-${flood.toLowerCase()}` : "floods");
    const programs = ["responses", ...ofRuns];

    beforeAll(async () => {
      const started = programs.map(async (flood) => {
        const command = `cat >/tmp/hostile.cjs; setsid -f node /tmp/hostile.cjs ${flood} >/tmp/output 2>&1`;
        await tool(url, "run_command", {
          sandbox: sandboxOf(flood),
          command,
          stdin: TAKE_PLACE + HOSTILE_SANDBOXD,
        });
      });
      await Promise.all(started);
      // Only the host can tell that the programs run, because calls to these sandboxes now reach the programs.
      const isListening = ({ command, pid }: Process) =>
        command.startsWith("node /tmp/hostile.cjs") && existsSync(`/proc/${pid}/root/tmp/ready`);
      await until(() => tree(process.pid).filter(isListening).length === programs.length, 150_000);
    });

    it.each(FLOODS)(
      "another principal's calls succeed while the program sends hostile data: $what",
      async ({ flood, call: [name, args] }) => {
        const sandbox = sandboxOf(flood);
        const before = mostMemory();
        // A flooded run and a response in pieces last as long as the attack. Any other hostile response ends at once, so
        // the call is made twice.
        const isOfRun = ofRuns.includes(flood);
        const rounds = isOfRun || flood === "pieces" ? 1 : 2;
        const all = { sandbox, ...(name === "list_files" && { path: flood }), ...args };
        const attacker = async () => {
          for (let round = 0; round < rounds; round++)
            expect(await attackWith(name, all, isOfRun ? FLOOD_SECONDS : ATTACK_SECONDS)).not.toMatch(HONEST);
          if (isOfRun) await tool(url, "destroy_sandbox", { sandbox });
        };
        await expectAnswersDuring(flood, () => atOnce(name === "execute_task" || isOfRun ? 1 : 4, attacker));
        if (flood === "pieces") expect(mostMemory() - before).toBeLessThan(500 * 1024 * 1024);
        if (flood === "pieces") await tool(url, "destroy_sandbox", { sandbox });
      },
    );
  });

  /** The next tests share it, because its start costs more than most of them. */
  const sandbox = "shared";

  it("another principal's calls succeed while a terminal prints the output that is most expensive to render", async () => {
    const command = `python3 -c "print('\\x1b[999@' * 3000 + '\\x1b[999Cx\\x1b[H' * 1200)"; sleep 30`;
    const { structured } = await tool(url, "run_command", { sandbox, command, interactive: true });
    const readResult = () => attackWith("get_result", { id: structured.id, wait_seconds: 0 });
    await expectAnswersDuring("terminal", () => atOnce(8, readResult));
    const { text } = await tool(url, "get_result", { id: structured.id, wait_seconds: 0 });
    expect(text.length).toBeLessThan(100_000);
    await tool(url, "cancel_run", { id: structured.id });
  });

  it("another principal's calls succeed while the server reads files of combining marks", async () => {
    const content = `a\n${"\u0301".repeat(15_000)}${"\u0323".repeat(15_000)}\n`;
    await tool(url, "write_file", { sandbox, path: "marks.txt", content });
    const args = { sandbox, path: "marks.txt", limit: 2000 };
    expect(await tool(url, "read_file", args)).toMatchObject({ isError: false });
    const read = async () => {
      for (let time = 0; time < 2; time++) await attackWith("read_file", args);
    };
    await expectAnswersDuring("marks", () => atOnce(4, read));
  });

  it("another principal's calls succeed while results contain the server's note about a left-out image thousands of times", async () => {
    const code = [
      "class Left:",
      "    def __repr__(self): return '[an image ' + ' is left out: ' * 2300",
      "for _ in range(8): display(Left())",
    ].join("\n");
    const run = (n: number) => attackWith("run_code", { sandbox, code, context: `c${n}` });
    await expectAnswersDuring("results", () => atOnce(2, run));
  });

  it("another principal's calls succeed while a kernel returns a million values", async () => {
    const changed = [
      "import sandbox_mcp_kernel as kernel",
      "dump = kernel._dump",
      "more = ',\"more\":{' + ','.join('\"k%d\":1' % n for n in range(900000)) + '}}'",
      "kernel._dump = lambda document: dump(document)[:-1] + more",
    ].join("\n");
    const { text } = await tool(url, "run_code", { sandbox, code: changed });
    expect(text).toContain("did not respond as it should");
    await expectAnswersDuring("document", () =>
      atOnce(4, () => attackWith("run_code", { sandbox, code: "1" })),
    );
    await tool(url, "destroy_sandbox", { sandbox });
  });

  it("another principal's calls succeed while the server reads the largest allowed images and decompression bombs", async () => {
    const files = [
      "import struct, zlib",
      "from PIL import Image",
      "Image.effect_noise((500, 400), 9).resize((5000, 4000), 0).convert('RGB').save('large.jpg', quality=30)",
      "Image.new('RGBA', (7000, 5000)).save('large.png', compress_level=1)",
      "def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))",
      "packer, row = zlib.compressobj(1), bytes(6251)",
      "packed = b''.join(packer.compress(row) for _ in range(50_000)) + packer.flush()",
      "head = struct.pack('>IIBBBBB', 50_000, 50_000, 1, 0, 0, 0, 0)",
      "open('bomb.png', 'wb').write(b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head) + chunk(b'IDAT', packed) + chunk(b'IEND', b''))",
      "print('made')",
    ].join("\n");
    expect((await tool(url, "run_code", { sandbox, code: files })).text).toContain("made");
    await neighbourUntil(() => true);
    const paths = ["large.jpg", "large.png", "bomb.png"];
    const read = (n: number) => attackWith("read_file", { sandbox, path: paths[n % 3] });
    await expectAnswersDuring("images", () => atOnce(6, read));
  });

  it("another principal's calls succeed while the server reads a PNG with data after its last row, and workerd's memory does not grow", async () => {
    const made = [
      "import struct, zlib",
      "def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))",
      "head = struct.pack('>IIBBBBB', 16, 16, 8, 2, 0, 0, 0)",
      "data = chunk(b'IDAT', zlib.compress(bytes(250_000_000), 9))",
      "png = b'\\x89PNG\\r\\n\\x1a\\n' + chunk(b'IHDR', head) + data + chunk(b'IEND', b'')",
      "open('trailing.png', 'wb').write(png)",
      "print('made', len(png))",
    ].join("\n");
    expect((await tool(url, "run_code", { sandbox, code: made })).text).toContain("made 24");
    const before = mostMemory();
    const shown = await tool(url, "read_file", { sandbox, path: "trailing.png" });
    expect(shown).toMatchObject({ isError: false });
    const read = () => attackWith("read_file", { sandbox, path: "trailing.png" });
    await expectAnswersDuring("trailing", () => atOnce(8, read));
    expect(mostMemory() - before).toBeLessThan(200 * 1024 * 1024);
    await tool(url, "destroy_sandbox", { sandbox });
  });

  it("another principal's calls succeed while the server reads a small gzip file that decompresses to 16 MB of file headers", async () => {
    const made = [
      "import gzip, struct",
      "name = b'PK' + struct.pack('<HHHHHHIIIHH', 0x403, 0, 8, 0, 0, 0, 0, 0, 0, 1, 0) + b'a'",
      "open('headers.gz', 'wb').write(gzip.compress(name + b'PK\\x07\\x08' * (4 << 20)))",
    ].join("\n");
    expect(await tool(url, "run_code", { sandbox, code: made })).toMatchObject({ isError: false });
    const args = { sandbox, path: "headers.gz" };
    expect((await tool(url, "read_file", args)).text).toContain("application/gzip");
    const read = async () => {
      for (let time = 0; time < 4; time++) await attackWith("read_file", args);
    };
    await expectAnswersDuring("headers", () => atOnce(8, read));
  });

  it("another principal's calls succeed while a sandbox floods its egress proxy", async () => {
    const flood = `node -e '
      const { connect } = require("node:net");
      const piece = Buffer.from("GET http://anthropic.internal/ HTTP/1.1\\r\\nHost: anthropic.internal\\r\\n\\r\\n".repeat(1000));
      const open = () => {
        const socket = connect(3128, () => { while (socket.write(piece)); });
        socket.on("drain", () => { while (socket.write(piece)); }).on("error", () => {}).resume();
        socket.on("close", () => setImmediate(open));
      };
      for (let n = 0; n < 8; n++) open();
      setTimeout(process.exit, 1500);
    '`;
    await expectAnswersDuring("flood", () => attack(flood));
  });

  it("another principal's calls succeed while a sandbox sends requests of 16,000 parameters, to which the server adds a secret", async () => {
    const flood = `node -e '
      const { request } = require("node:http");
      const path = "http://query.test/?" + "a&".repeat(16000);
      const send = () =>
        request({ host: "127.0.0.1", port: 3128, path, headers: { host: "query.test" } }, (response) =>
          response.resume().on("end", send),
        ).on("error", send).end();
      for (let n = 0; n < 16; n++) send();
      setTimeout(process.exit, 1500);
    '`;
    await expectAnswersDuring("parameters", () => attack(flood));
  });

  it.each([
    { what: "messages of visitors", visit: ["/in", 124, "messages", 2] },
    { what: "messages for visitors", visit: ["/out", 124, "messages", 2] },
    { what: "messages for one visitor after another", visit: ["/out", 40, "messages", 2, 700] },
    { what: "chunks of visitors", visit: ["/in", 40, "chunks", 1] },
    { what: "chunks for visitors", visit: ["/out", 40, "chunks", 1] },
  ])(
    "another principal's calls succeed while one-byte messages or chunks from or to visitors pass through a preview: $what",
    async ({ what, visit }) => {
      const flood = await startFloodablePreview((name, args) => tool(url, name, { sandbox, ...args }));
      const before = memoryNow();
      let responses = 0;
      await expectAnswersDuring(what, async () => (responses = await flood(visit)));
      // The preview sends no response to the visitors' chunks.
      if (what !== "chunks of visitors") expect(responses).toBeGreaterThan(0);
      expect(memoryNow() - before).toBeLessThan(700 * 1024 * 1024);
      await tool(url, "destroy_sandbox", { sandbox });
    },
  );
});
