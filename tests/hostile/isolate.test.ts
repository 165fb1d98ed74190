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
import { tool } from "../setup/tool.ts";
import { sleep, until } from "../setup/until.ts";
import { HEADERS, postRaw } from "./support.ts";
import TAKE_PLACE from "../setup/take-place.cjs?raw";

/** An isolate has 128 MB, and its code and other principals need a part of them. */
const MAX_MIB = 100;
/** The most for attacks of a few sandboxes, because several principals may make them at once. */
const MAX_OF_FEW_MIB = 65;
/** Most attacks end by themselves. Many sandboxes take this time on a busy machine. */
const ATTACK_MS = 40_000;
/** What clients do not read, and unfinished responses, do not end. */
const FLOOD_MS = 5_000;

/** The tokens of two principals. What sandboxes send may fill 32 MiB for each. */
const TOKENS = ["first-token", "second-token"];
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
  const files = ["a", "b", "c", "d"];
  const command = `truncate -s 20000000 ${files.join(" ")}; head -c 700000 /dev/zero >part`;
  await tool(url, "run_command", { command });
  const links = await Promise.all(files.map((path) => tool(url, "file_link", { path })));
  const downloads = links.flatMap(({ text }) =>
    Array<string>(16).fill(`GET ${/\/files\/[\w.-]+/.exec(text)?.[0]} HTTP/1.1\r\nhost: ${host}\r\n\r\n`),
  );
  const read = { jsonrpc: "2.0", method: "resources/read", params: { uri: "sandbox://default/part" } };
  const batch = JSON.stringify(Array.from({ length: 100 }, (_, id) => ({ ...read, id })));
  const headers = Object.entries({ ...HEADERS, host, "content-length": batch.length });
  const head = headers.map(([name, value]) => `${name}: ${value}\r\n`).join("");
  const answers = Array<string>(3).fill(`POST /mcp HTTP/1.1\r\n${head}\r\n${batch}`);
  for (const request of [...downloads, ...answers]) {
    const socket = connect(Number(port), hostname).on("error", () => undefined);
    socket.pause().write(request);
    sockets.push(socket);
  }
  expect(await peakDuring(sleep(FLOOD_MS))).toBeLessThan(MAX_MIB);
});

it("many saves at once", async () => {
  const call = callInEach(TOKENS.slice(0, 1), 10, "saving");
  // Several objects of each save. On a busy machine, ten starts at once take long.
  const command = "head -c 16000000 /dev/urandom >part";
  await Promise.all(call("run_command", { command, wait_seconds: 50 }));
  const saves = Promise.all(call("checkpoint_sandbox"));
  expect(await peakDuring(saves)).toBeLessThan(MAX_OF_FEW_MIB);
  for (const { isError } of await saves) expect(isError).toBe(false);
  await Promise.all(call("destroy_sandbox"));
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
  const arrived = Promise.all(sent).then(() => sleep(1500));
  expect(await peakDuring(arrived)).toBeLessThan(MAX_MIB);
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
  const signal = AbortSignal.timeout(FLOOD_MS);
  const attack = [...call("list_files", {}, signal), ...call("list_files", {}, signal)];
  expect(await peakDuring(Promise.allSettled(attack))).toBeLessThan(MAX_MIB);
  await Promise.all(call("destroy_sandbox"));
});
