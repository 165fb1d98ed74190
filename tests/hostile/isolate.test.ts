/**
 * The memory of the Worker's isolate while one principal attacks it. On Cloudflare, an isolate has 128 MB for all actors and
 * requests in it. When it needs more, the platform ends it with all calls.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { afterEach, expect, it } from "vitest";
import { openHeap, PRODUCT_SERVICE } from "../../bench/heap.ts";
import { endLater } from "../setup/end-later.ts";
import { bundleHostileControl } from "../setup/hostile-bundle.ts";
import { startParts } from "../setup/parts.ts";
import { tree } from "../setup/processes.ts";
import { callTool, tool } from "../setup/tool.ts";
import { sleep, until } from "../setup/until.ts";
import { HEADERS, postRaw } from "./support.ts";
import TAKE_PLACE from "../setup/take-place.cjs?raw";

/** An isolate has 128 MB, and its code and other principals need a part of them. */
const MAX_MIB = 100;
/** The most for attacks of a few sandboxes, because several principals may make them at once. */
const MAX_OF_FEW_MIB = 65;
const ATTACK_MS = 8_000;
/** What clients do not read fills the memory sooner. */
const FLOOD_MS = 3_000;
/** Twenty large responses take longer on a busy machine. */
const UNFINISHED_MS = 10_000;
/** On a busy machine, control servers take this time to send a few messages. */
const SENDING_MS = 40_000;
/** Six kernels and scaling programs take longer. */
const SHOWING_MS = 30_000;

/** The tokens of three principals. */
const TOKENS = ["first-token", "second-token", "third-token"];
const authTokens = TOKENS.map((token, number) => ({
  name: `t${number}`,
  sha256: createHash("sha256").update(token).digest("hex"),
  scopes: ["sandbox:read", "sandbox:write", "sandbox:exec"],
}));

// A normal control server until the file /tmp/attack exists in its sandbox.
const control = await bundleHostileControl();
const parts = endLater(
  await startParts({
    inspector: true,
    engine: { control },
    variables: { ANTHROPIC_API_KEY: "no-key", AUTH_TOKENS: JSON.stringify(authTokens) },
  }),
);
const { url } = parts;
const { host, hostname, port, origin } = new URL(url);
await tool(url, "list_sandboxes", {});
const heap = endLater(await openHeap(parts, PRODUCT_SERVICE));

const sockets: Socket[] = [];
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
});

/** Calls a tool for sandboxes of several principals, `count` of each, with these names and a number. */
function callInEach(tokens: string[], count: number, name: string) {
  const sandboxes = tokens.flatMap((token) =>
    Array.from({ length: count }, (_, number) => ({ token, sandbox: `${name}${number}` })),
  );
  return (toolName: string, args: object = {}, signal?: AbortSignal) =>
    sandboxes.map(({ token, sandbox }) => tool(url, toolName, { sandbox, ...args }, { token, signal }));
}

/** The most MiB that the isolate takes during the attack, at most `limitMs` long. Each look makes V8 collect its garbage. */
async function peakDuring(attack: Promise<unknown>, limitMs = ATTACK_MS): Promise<number> {
  let peak = 0;
  let isOver = false;
  const settled = attack.finally(() => (isOver = true));
  let isMeasured = false;
  // The inspector responds only while the Worker gets requests.
  const wake = async () => {
    for (; !isMeasured; await sleep(50)) await fetch(`${origin}/health`);
  };
  const waking = wake();
  for (const end = Date.now() + limitMs; !isOver && Date.now() < end;) {
    const from = Date.now();
    peak = Math.max(peak, await heap.live());
    // The collections take at most a fifth of the time.
    await sleep(Math.max(150, 4 * (Date.now() - from)));
  }
  // On a busy machine, the last look may be seconds ago. What a stalled attack holds is still there.
  peak = Math.max(peak, await heap.live());
  isMeasured = true;
  await Promise.all([settled, waking]);
  return peak;
}

it("many large files at once", async () => {
  const params = { name: "write_file", arguments: { path: "/tmp/f", content: "x".repeat(7_900_000) } };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params });
  const attack = Array.from({ length: 16 }, () => postRaw(url, body));
  expect(await peakDuring(Promise.all(attack))).toBeLessThan(MAX_MIB);
  expect((await postRaw(url, body)).status).toBe(200);
});

it("many downloads and answers whose clients do not read", async () => {
  const files = ["a", "b", "c"];
  const command = `yes 0123456789 | head -c 20000000; truncate -s 20000000 ${files.join(" ")}; head -c 700000 /dev/zero >part`;
  const links = [await tool(url, "run_command", { command })];
  for (const path of files) links.push(await tool(url, "file_link", { path }));
  const paths = links.map(({ text }) => /\/files\/[\w.-]+/.exec(text)?.[0]);
  const params = { uri: "sandbox://default/part" };
  const batch = JSON.stringify(
    Array.from({ length: 100 }, (_, id) => ({ jsonrpc: "2.0", id, method: "resources/read", params })),
  );
  const head = Object.entries(HEADERS).map(([name, value]) => `${name}: ${value}\r\n`);
  const downloads = Array.from(
    { length: 64 },
    (_, count) => `GET ${paths[count % paths.length]} HTTP/1.1\r\nhost: ${host}\r\n\r\n`,
  );
  const answers = Array<string>(3).fill(
    `POST /mcp HTTP/1.1\r\nhost: ${host}\r\n${head.join("")}content-length: ${batch.length}\r\n\r\n${batch}`,
  );
  for (const request of [...downloads, ...answers]) {
    const socket = connect(Number(port), hostname).on("error", () => undefined);
    socket.pause().write(request);
    sockets.push(socket);
  }
  expect(await peakDuring(sleep(FLOOD_MS))).toBeLessThan(MAX_MIB);
});

/** Python that makes an image of about 6 MiB. It has random pixels, so the server has it made smaller. */
const LARGE_IMAGE = String.raw`import os, struct, zlib
chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
pixels = b"".join(b"\0" + os.urandom(6000) for _ in range(1040))
header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2000, 1040, 8, 2, 0, 0, 0))
image = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(pixels, 0)) + chunk(b"IEND", b"")
`;

it("many large images at once", async () => {
  await tool(url, "write_file", {
    path: "image.py",
    content: `${LARGE_IMAGE}open("image.png", "wb").write(image)`,
  });
  await tool(url, "run_command", { command: "python3 image.py" });
  // More calls than the server works on at once.
  const attack = Array.from({ length: 8 }, () => tool(url, "read_file", { path: "image.png" }));
  expect(await peakDuring(Promise.all(attack))).toBeLessThan(MAX_MIB);
});

it("many results of code with large images at once", async () => {
  const names = Array.from({ length: 2 }, (_, number) => `showing${number}`);
  const contexts = ["a", "b", "c"];
  const run = (context: string, code: string) =>
    names.map((sandbox) => tool(url, "run_code", { sandbox, context, code }));
  for (const context of contexts)
    await Promise.all(run(context, `${LARGE_IMAGE}class Shown:\n    def _repr_png_(self): return image`));
  const results = Promise.all(contexts.flatMap((context) => run(context, "Shown()")));
  expect(await peakDuring(results, SHOWING_MS)).toBeLessThan(MAX_OF_FEW_MIB);
  for (const { text } of await results) expect(text).toContain("made smaller from 2000 x 1040 pixels, PNG");
  await Promise.all(names.map((sandbox) => tool(url, "destroy_sandbox", { sandbox })));
});

it("many commands that print much", async () => {
  const runs = Array.from({ length: 50 }, (_, number) =>
    tool(url, "run_command", {
      sandbox: "printing",
      session: `s${number}`,
      command: "yes & yes >&2",
      timeout_seconds: 60,
      wait_seconds: 0,
    }),
  );
  await Promise.all(runs);
  expect(await peakDuring(sleep(FLOOD_MS))).toBeLessThan(MAX_MIB);
  await tool(url, "destroy_sandbox", { sandbox: "printing" });
});

it("many saves at once", async () => {
  const names = Array.from({ length: 10 }, (_, number) => `working${number}`);
  // Several objects of each save.
  const command = "head -c 16000000 /dev/urandom >part";
  const runs = names.map(async (sandbox) => {
    const { id, state } = (await tool(url, "run_command", { sandbox, command })).structured;
    // On a busy machine, ten starts at once take longer than a call waits.
    if (state === "running") await tool(url, "get_result", { id, wait_seconds: 50 });
  });
  await Promise.all(runs);
  const saves = names.map((sandbox) => callTool(url, "checkpoint_sandbox", { sandbox }));
  expect(await peakDuring(Promise.all(saves))).toBeLessThan(MAX_OF_FEW_MIB);
  // The next test uses the others, because starts take more time than the attack.
  await Promise.all(names.slice(5).map((sandbox) => tool(url, "destroy_sandbox", { sandbox })));
});

it("many agents that print a long line and leave a large file", async () => {
  const names = Array.from({ length: 5 }, (_, number) => `working${number}`);
  const stdin = "#!/bin/sh\nhead -c 12000000 /dev/zero | tr '\\0' x; head -c 10000000 /dev/urandom >part";
  const environment = "cd /workspace\\nexport HOME=/root PATH=/opt/agent:/usr/bin:/bin\\n";
  const command = `mkdir /opt/agent && cat >/opt/agent/claude && chmod +x /opt/agent/claude && printf '${environment}' >/var/lib/sandbox-mcp/sessions/_task`;
  await Promise.all(names.map((sandbox) => callTool(url, "run_command", { sandbox, command, stdin })));
  const tasks = names.map((sandbox) => tool(url, "execute_task", { sandbox, task: "x", wait_seconds: 50 }));
  expect(await peakDuring(Promise.all(tasks), 60_000)).toBeLessThan(MAX_OF_FEW_MIB);
  for (const task of tasks) {
    const { id } = (await task).structured;
    const { structured } = await tool(url, "get_result", { id, wait_seconds: 50 });
    expect(structured).toMatchObject({
      artifacts: expect.arrayContaining([{ path: "part", size: 10_000_000 }]),
    });
  }
  await Promise.all(names.map((sandbox) => tool(url, "destroy_sandbox", { sandbox })));
});

it("many large messages of control servers that code has replaced", async () => {
  const call = callInEach(TOKENS, 3, "replaced");
  const ready = await Promise.all(call("run_code", { code: "1" }));
  for (const { isError } of ready) expect(isError).toBe(false);
  await Promise.all(call("run_command", { command: "echo calls >/tmp/attack" }));
  const ending = new AbortController();
  const attack = call("run_code", { code: "2" }, ending.signal);
  const sent = call("run_command", { command: "until [ -e /tmp/sent ]; do sleep 0.1; done" });
  // The Worker reads the last messages after they were sent.
  const arrived = Promise.all(sent).then(() => sleep(FLOOD_MS / 2));
  expect(await peakDuring(arrived, SENDING_MS)).toBeLessThan(MAX_MIB);
  ending.abort();
  await Promise.allSettled(attack);
});

/** A program in sandboxd's place that sends a listing of the largest size, except its last byte. */
const UNFINISHED = `${TAKE_PLACE}
const server = require("node:http").createServer((request, response) => {
  request.resume();
  if (request.url.startsWith("/list")) response.write(" ".repeat(8 * 1024 * 1024 - 1));
  else response.end("{}");
});
sendBeats();
takePlace(server);
fs.writeFileSync("/tmp/ready", "");`;

it("many listings that programs in sandboxd's place do not finish", async () => {
  // The sandboxes of the last test, because starts take more time than the attack.
  const call = callInEach(TOKENS, 3, "replaced");
  const command = "cat >/tmp/unfinished.cjs; setsid -f node /tmp/unfinished.cjs >/tmp/output 2>&1";
  const begun = await Promise.all(call("run_command", { command, stdin: UNFINISHED }));
  const running = () =>
    tree(process.pid).filter(
      (one) =>
        one.command.startsWith("node /tmp/unfinished") && existsSync(`/proc/${one.pid}/root/tmp/ready`),
    );
  await until(() => running().length === begun.length, 60_000);
  const signal = AbortSignal.timeout(UNFINISHED_MS);
  const attack = [...call("list_files", {}, signal), ...call("list_files", {}, signal)];
  expect(await peakDuring(Promise.allSettled(attack), UNFINISHED_MS)).toBeLessThan(MAX_MIB);
  await Promise.all(call("destroy_sandbox"));
});
