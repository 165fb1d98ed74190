/** One principal, or a stranger, attacks the server. Calls of another principal are answered, and the server does not end. */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { afterEach, beforeAll, describe, expect, it } from "vitest";
import { openHeap, PRODUCT_SERVICE } from "../../bench/heap.ts";
import { endLater } from "../setup/end-later.ts";
import { wsPackage } from "../setup/engine-client.ts";
import { bundleHostileControl } from "../setup/hostile-bundle.ts";
import { portsOf, type Process, tree } from "../setup/processes.ts";
import { startParts } from "../setup/parts.ts";
import { tool } from "../setup/tool.ts";
import { sleep, until } from "../setup/until.ts";
import { HEADERS, sendRaw } from "./support.ts";
import HOSTILE_SANDBOXD from "../setup/hostile-sandboxd.cjs?raw";
import TAKE_PLACE from "../setup/take-place.cjs?raw";

const NEIGHBOUR = "a-token-of-another-principal";

/** How long an attack waits for a response, and how long it floods otherwise. */
const ATTACK_MS = 1000;
const COMMAND = { command: "echo", timeout_seconds: 1 };
const TASK = { task: "work", timeout_seconds: 1, wait_seconds: 1 };

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
const { host, hostname, port } = new URL(url);

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  // The engine and workerd still run.
  expect(deaths).toEqual([]);
});

/** A call of the attacker. It may be refused, or have no answer in time. */
async function attack(name: string, args: Record<string, unknown> = {}, ms = ATTACK_MS): Promise<string> {
  const result = await tool(url, name, args, { signal: AbortSignal.timeout(ms) }).catch((e) => e);
  return String(result?.text ?? result);
}

/** Does this many pieces of work at once. */
const atOnce = (count: number, work: (n: number) => Promise<unknown>) =>
  Promise.all(Array.from({ length: count }, (_, n) => work(n)));

/** Opens connections that send these bytes, and neither send nor read more until the attack is over. */
async function stall(count: number, sent: string, ms = ATTACK_MS): Promise<void> {
  for (let n = 0; n < count; n++) {
    const socket = connect(Number(port), hostname).on("error", () => undefined);
    socket.pause().write(sent);
    sockets.push(socket);
  }
  await sleep(ms);
}

const headOf = (line: string, headers: Record<string, string | number>) =>
  `${[line, `host: ${host}`, ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)].join("\r\n")}\r\n\r\n`;

async function callOfNeighbour(): Promise<void> {
  const { text, isError } = await tool(
    url,
    "run_command",
    { command: "echo still here" },
    { token: NEIGHBOUR },
  );
  expect({ text, isError }).toEqual({ text: expect.stringContaining("still here"), isError: false });
}

/** Makes calls of the neighbour during the attack, and one afterwards. Each must succeed. */
async function expectAnswersDuring(runAttack: () => Promise<unknown>): Promise<void> {
  let isOver = false;
  const ended = runAttack().finally(() => (isOver = true));
  do {
    await callOfNeighbour();
    await sleep(30);
  } while (!isOver);
  await ended;
  await callOfNeighbour();
}

describe("when workerd's own header MF-Original-URL names another host", () => {
  it("no port of workerd accepts the request", async () => {
    const ports = tree(process.pid)
      .filter(({ command }) => command.includes("workerd serve"))
      .flatMap(({ pid }) => portsOf(pid));
    expect(ports).toContain(Number(port));
    // Only tests have an inspector.
    for (const each of ports.filter((one) => one !== parts.inspectorPort)) {
      const head = `GET /health HTTP/1.1\r\nHost: evil.example\r\nMF-Original-URL: https://evil.example/health\r\nConnection: close\r\n\r\n`;
      expect(await sendRaw(`http://127.0.0.1:${each}/`, [head])).toMatch(/^HTTP\/1\.1 40[34] /);
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
  await atOnce(8, async (n) => {
    const { text } = await tool(url, "run_code", { sandbox, code: "1", context: `c${n}` });
    expect(text).toContain("The sandbox is damaged");
  });
  expect((await heap.live()) - before).toBeLessThan(40);
  heap.close();
  await tool(url, "destroy_sandbox", { sandbox });
});

/** The sandbox of most attacks. */
const sandbox = "shared";

const write = async (path: string, content: string) =>
  expect(await tool(url, "write_file", { sandbox, path, content })).toMatchObject({ isError: false });

/** A program in a sandbox that floods the proxy of the sandbox. */
const proxyFlood = (request: string) => `node -e '
  const { connect } = require("node:net");
  const piece = Buffer.from(${request}.repeat(1000));
  const open = () => {
    const socket = connect(3128, () => { while (socket.write(piece)); });
    socket.on("drain", () => { while (socket.write(piece)); }).on("error", () => {}).resume();
    socket.on("close", () => setImmediate(open));
  };
  for (let n = 0; n < 8; n++) open();
  setTimeout(process.exit, 1500);
'`;

/** A call of the control server's place, whose next connection begins the attack. */
const controlAttack = (name: string): Flood => ({
  what: `messages of a program in the control server's place: ${name}`,
  prepare: () => tool(url, "run_command", { sandbox: "control", command: `echo ${name} >/tmp/attack` }),
  flood: async () => {
    await atOnce(12, (n) => attack("run_code", { sandbox: "control", code: "1", context: `c${n}` }));
    await tool(url, "destroy_sandbox", { sandbox: "control" });
  },
});

/** A flood of a program in sandboxd's place, by its name in hostile-sandboxd.cjs, and the call that receives it. */
const daemonAttack = (name: string, call: string, args: object = {}): Flood => ({
  what: `data of a program in sandboxd's place: ${name}`,
  flood: async () => {
    const isListed = call === "list_files";
    const all = { sandbox: sandboxOf(name), ...(isListed && { path: name }), ...args };
    // Only the real sandboxd causes these texts.
    expect(await attack(call, all)).not.toMatch(/is empty|has no files|exit_code: 0/);
    if (isListed) await atOnce(4, () => attack(call, all));
  },
});
const OF_RUNS = ["badEvents", "output", "lines"];
/** A run's flood continues after the run, so it has its own sandbox. The others share one, and `path` selects them. */
const sandboxOf = (flood: string) => (OF_RUNS.includes(flood) ? `flood-${flood.toLowerCase()}` : "floods");

interface Flood {
  what: string;
  prepare?: () => Promise<unknown>;
  flood: () => Promise<unknown>;
}

const FLOODS: Flood[] = [
  { what: "many calls at once", flood: () => atOnce(400, () => attack("list_sandboxes")) },
  {
    what: "calls of many new sandboxes",
    flood: () => atOnce(200, (n) => attack("list_runs", { sandbox: `new${n}` })),
  },
  {
    what: "calls that wait for a run",
    flood: async () => {
      const command = { sandbox, command: "sleep 600", wait_seconds: 0 };
      const { id } = (await tool(url, "run_command", command)).structured;
      await atOnce(200, () => attack("get_result", { id, wait_seconds: 50 }));
      await attack("cancel_run", { id });
    },
  },
  {
    what: "large bodies",
    flood: () =>
      atOnce(16, () => attack("write_file", { sandbox, path: "large", content: "x".repeat(7_900_000) })),
  },
  {
    what: "unread answers",
    prepare: () => write("part", "x".repeat(700_000)),
    flood: () => {
      const read = { jsonrpc: "2.0", method: "resources/read", params: { uri: `sandbox://${sandbox}/part` } };
      const batch = JSON.stringify(Array.from({ length: 100 }, (_, id) => ({ ...read, id })));
      return stall(3, headOf("POST /mcp HTTP/1.1", { ...HEADERS, "content-length": batch.length }) + batch);
    },
  },
  {
    what: "bodies with a token that do not end",
    flood: () => stall(1500, `${headOf("POST /mcp HTTP/1.1", { ...HEADERS, "content-length": 1000 })} `),
  },
  {
    what: "bodies without a token that do not end",
    flood: () => {
      const type = { "content-type": "application/x-www-form-urlencoded", "content-length": 1000 };
      return stall(3000, `${headOf("POST /oauth/token HTTP/1.1", type)}a`);
    },
  },
  {
    what: "requests without a token",
    flood: () => atOnce(50, () => stall(1, headOf("GET /unknown HTTP/1.1", {}).repeat(200))),
  },
  {
    what: "commands that print without end",
    flood: async () => {
      const run = (n: number) =>
        attack("run_command", { sandbox: "printing", session: `s${n}`, command: "yes", wait_seconds: 0 });
      await atOnce(8, run);
      await sleep(ATTACK_MS);
      await tool(url, "destroy_sandbox", { sandbox: "printing" });
    },
  },
  // The largest message, and megabytes of values in calls and in responses.
  ...["push", "nested", "numbers"].map(controlAttack),
  // A compressed response that inflates to a gigabyte, and megabytes of values.
  daemonAttack("encoded", "list_files"),
  daemonAttack("values", "list_files"),
  daemonAttack("plan", "checkpoint_sandbox"),
  daemonAttack("changes", "execute_task", TASK),
  daemonAttack("pieces", "list_files"),
  daemonAttack("badEvents", "run_command", COMMAND),
  daemonAttack("output", "run_command", COMMAND),
  daemonAttack("lines", "execute_task", TASK),
  {
    what: "the output of a terminal that is most expensive to render",
    flood: async () => {
      const command = `python3 -c "print('\\x1b[999@' * 3000 + '\\x1b[999Cx\\x1b[H' * 1200)"; sleep 30`;
      const { structured } = await tool(url, "run_command", { sandbox, command, interactive: true });
      const { id } = structured;
      await atOnce(8, () => attack("get_result", { id, wait_seconds: 0 }));
      await attack("cancel_run", { id });
    },
  },
  {
    what: "files of combining marks",
    prepare: () => write("marks.txt", `a\n${"\u0301".repeat(15_000)}${"\u0323".repeat(15_000)}\n`),
    flood: () => atOnce(8, () => attack("read_file", { sandbox, path: "marks.txt", limit: 2000 })),
  },
  {
    what: "results with the server's note about a left-out image thousands of times",
    flood: () => {
      const code = `class Left:
    def __repr__(self): return '[an image ' + ' is left out: ' * 2300
for _ in range(8): display(Left())`;
      return atOnce(2, (n) => attack("run_code", { sandbox, code, context: `c${n}` }));
    },
  },
  {
    what: "a kernel's document of a million values",
    prepare: () =>
      tool(url, "run_code", {
        sandbox: "document",
        code: `import sandbox_mcp_kernel as kernel
dump = kernel._dump
more = ',"more":{' + ','.join('"k%d":1' % n for n in range(900000)) + '}}'
kernel._dump = lambda document: dump(document)[:-1] + more`,
      }),
    flood: async () => {
      await atOnce(4, () => attack("run_code", { sandbox: "document", code: "1" }));
      await tool(url, "destroy_sandbox", { sandbox: "document" });
    },
  },
  {
    what: "requests of a sandbox to the model's API",
    flood: () => {
      const request = '"GET http://anthropic.internal/ HTTP/1.1\\r\\nHost: anthropic.internal\\r\\n\\r\\n"';
      return attack("run_command", { sandbox, command: proxyFlood(request), timeout_seconds: 6 });
    },
  },
  {
    what: "requests of a sandbox of 16,000 parameters, to which the server adds a secret",
    flood: () => {
      const request =
        '("GET http://query.test/?" + "a&".repeat(16000) + " HTTP/1.1\\r\\nHost: query.test\\r\\n\\r\\n")';
      return attack("run_command", { sandbox, command: proxyFlood(request), timeout_seconds: 6 });
    },
  },
];

describe("another principal's calls are answered during and after a flood", () => {
  beforeAll(async () => {
    await callOfNeighbour();
    const programs = ["responses", ...OF_RUNS];
    const started = programs.map(async (flood) => {
      const command = `cat >/tmp/hostile.cjs; setsid -f node /tmp/hostile.cjs ${flood} >/tmp/output 2>&1`;
      const stdin = TAKE_PLACE + HOSTILE_SANDBOXD;
      await tool(url, "run_command", { sandbox: sandboxOf(flood), command, stdin });
    });
    await Promise.all(started);
    // Only the host can tell that the programs run, because calls to these sandboxes now reach the programs.
    const isListening = ({ command, pid }: Process) =>
      command.startsWith("node /tmp/hostile.cjs") && existsSync(`/proc/${pid}/root/tmp/ready`);
    await until(() => tree(process.pid).filter(isListening).length === programs.length, 150_000);
  });

  // Not `it.each`, which shortens titles.
  for (const { what, prepare, flood } of FLOODS)
    it(`of ${what}`, async () => {
      await prepare?.();
      await expectAnswersDuring(flood);
    });
});
