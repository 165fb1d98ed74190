/** What the Worker receives if code replaces the sandbox's control server. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect as connectTCP } from "node:net";
import { describe, expect, it } from "vitest";
import type { WebSocket } from "ws";
import { SECRET_HEADER } from "../../local/platform/engine-protocol.ts";
import { collectOutput } from "../../local/engine/sandbox-processes.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { bundleHostileControl } from "../setup/hostile-bundle.ts";
import { sleep, until } from "../setup/until.ts";

const MIB = 1024 * 1024;

/** The messages with which the Worker begins a call that has a callback. */
const BEGIN_CALL = ['["push",["pipeline",0,["x"],[{"onStdout":["export",-1]}]]]', '["pull",1]'];

const control = await bundleHostileControl();
const logged: string[] = [];
const engine = endLater(
  await startTestEngine({ control, isVerbose: true, log: (line) => logged.push(line) }),
);
const neighbour = await TestSandbox.start(engine);

interface Peer {
  socket: WebSocket;
  received: { bytes: number; messages: number };
}

/** Connects to the control server as the Worker does, and counts the received data. */
function connect(sandbox: TestSandbox): Peer {
  const socket = sandbox.openSocket("/ports/3000/rpc");
  const received = { bytes: 0, messages: 0 };
  socket.on("message", (data: Buffer) => {
    received.bytes += data.length;
    received.messages += 1;
  });
  return { socket, received };
}

async function attacker(attack: string): Promise<TestSandbox> {
  const sandbox = await TestSandbox.start(engine);
  // The control server may end the connection before this command ends.
  await sandbox.run(`echo ${attack} >/tmp/attack`).catch(() => undefined);
  return sandbox;
}

it("the control server opens no debugger to code in its sandbox", async () => {
  await neighbour.run("pkill -USR1 -x sbx-control");
  // The control server has handled the signal, because its event loop has run since.
  const { stdout } = await neighbour.run("(echo >/dev/tcp/127.0.0.1/9229) 2>&1; true");
  expect(stdout).toContain("Connection refused");
});

it("the control server cannot forge a line of the log", async () => {
  const sandbox = await TestSandbox.start(engine);
  const forged = "a\\rengine: forged\\e[2Kb\\u0085c\\u2028d\\u202ee\\n";
  await sandbox.run(`LC_ALL=C.UTF-8 printf '${forged}' >/tmp/print; mv /tmp/print /tmp/printed`);
  await expect
    .poll(() => logged.find((line) => line.includes("forged")))
    .toBe(`[${sandbox.id}] a\\u{d}engine: forged\\u{1b}[2Kb\\u{85}c\\u{2028}d\\u{202e}e`);
  await sandbox.destroy();
});

it("the log drops output of our programs that has very many lines", async () => {
  const sandbox = await TestSandbox.start(engine);
  const print = (command: string) => sandbox.run(`${command} >/tmp/print; mv /tmp/print /tmp/printed`);
  await print("yes many | head -n 30000");
  await expect
    .poll(async () => (await print("echo few"), logged.some((line) => line.endsWith("few"))))
    .toBe(true);
  expect(logged.filter((line) => line.endsWith("many")).length).toBeLessThan(2000);
});

/** On a busy machine, pauses are longer. */
const secondsSince = (from: number) => (performance.now() - from) / 1000;

it("the engine reads only some megabytes a second of the output of a sandbox's programs", async () => {
  const program = spawn("yes");
  let length = 0;
  collectOutput(program, (text) => (length += text.length));
  const from = performance.now();
  await sleep(2000);
  program.kill();
  expect(length / MIB).toBeGreaterThan(4);
  expect(length / MIB).toBeLessThan(12 * secondsSince(from));
});

it("the engine reads the output of a sandbox's programs only some hundred times a second", async () => {
  const program = spawn("perl", ["-e", "syswrite STDOUT, 'x' while 1"]);
  let reads = 0;
  collectOutput(program, () => (reads += 1));
  const from = performance.now();
  await sleep(2000);
  program.kill();
  expect(reads).toBeGreaterThan(50);
  expect(reads).toBeLessThan(750 * secondsSince(from));
});

describe("a control server that code has replaced", () => {
  // tests/worker/control-messages.test.ts has a message for each limit of the guard, which both the engine and the Worker use.
  it.each([
    ["push", /made the Worker store too much data/],
    ["output", /made the Worker store too much data/],
    ["frame", /Max payload size exceeded/],
    ["nested", /values/],
    ["binary", /binary/],
  ])("is stopped together with its sandbox, and other sandboxes continue: %s", async (attack, reason) => {
    const sandbox = await attacker(attack);
    const { socket, received } = connect(sandbox);
    for (const message of BEGIN_CALL) socket.once("open", () => socket.send(message));
    const [report] = await Promise.all([sandbox.waitForEnd(), once(socket, "close")]);
    expect(report).toMatchObject({ exitCode: 137, reason: expect.stringMatching(reason) });
    expect(received.bytes / MIB).toBeLessThan(48);
    expect(logged.filter((line) => line.includes(sandbox.id)).join()).toMatch(reason);
    expect((await neighbour.run("echo still here")).stdout).toBe("still here");
  });

  it.each(["no-frames", "endless-head"])(
    "passes no bytes on to the Worker if its handshake is invalid: %s",
    async (attack) => {
      const sandbox = await attacker(attack);
      const { host, hostname, port } = new URL(engine.url);
      const socket = connectTCP(Number(port), hostname);
      let received = "";
      socket.on("data", (data: Buffer) => (received += data.toString("latin1")));
      socket.on("error", () => undefined);
      const closed = new Promise((resolve) => socket.once("close", resolve));
      socket.write(
        `GET /sandboxes/${sandbox.id}/ports/3000/rpc HTTP/1.1\r\nhost: ${host}\r\n` +
          `${SECRET_HEADER}: ${engine.secret}\r\nconnection: upgrade\r\nupgrade: websocket\r\n` +
          `sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n`,
      );
      await closed;
      expect(received).toBe("");
      await sandbox.destroy();
    },
  );

  it("is slowed down if it breaks no rule", async () => {
    const sandbox = await attacker("churn");
    const { socket, received } = connect(sandbox);
    await once(socket, "open");
    for (const message of BEGIN_CALL) socket.send(message);
    const from = performance.now();
    await until(() => received.messages > 20_000);
    // The first 10,000 messages arrive at once, and then 5,000 a second.
    expect(performance.now() - from).toBeGreaterThan(1500);
    socket.close();
    await sandbox.destroy();
  });
});

describe("a connection to the engine in the place of a sandbox's server", () => {
  const CONNECT = [
    "import os, socket, time",
    "key = open('/run/sandbox/key').read()",
    "now = int(time.monotonic() * 1000)",
    "def greet(words):",
    "  with socket.create_connection(('127.0.0.1', 8671)) as peer:",
    "    peer.sendall(words.encode())",
    "    return peer.recv(1)",
  ];

  it("is refused with another key, from an earlier start, from the future, and for another server", async () => {
    const sandbox = await TestSandbox.start(engine);
    const { stdout } = await sandbox.python([
      ...CONNECT,
      "wrong = [f'sandboxd {key[::-1]} {now}', f'sandboxd {key} 1', f'sandboxd {key} {now + 10**6}', f'other {key} {now}']",
      "print([greet(words + '\\n') for words in wrong], greet('GET / HTTP/1.1\\r\\n\\r\\n'))",
    ]);
    expect(stdout).toBe("[b'', b'', b'', b''] b''");
    await sandbox.destroy();
  });

  it("ends the sandbox if there are too many", async () => {
    const sandbox = await TestSandbox.start(engine);
    const flood = [...CONNECT, "while True:", "  try: greet('x')", "  except OSError: pass"];
    void sandbox.python(flood).catch(() => undefined);
    expect(await sandbox.waitForEnd()).toMatchObject({
      exitCode: 137,
      reason: expect.stringContaining("8671"),
    });
    expect((await neighbour.run("echo still here")).stdout).toBe("still here");
  });
});
