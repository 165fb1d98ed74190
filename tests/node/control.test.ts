/** What the Worker receives if code replaces the sandbox's control server. */
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { SECRET_HEADER } from "../../local/platform/engine-protocol.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { bundleHostileControl } from "../setup/hostile-bundle.ts";

const control = await bundleHostileControl();
const logged: string[] = [];
const engine = endLater(
  await startTestEngine({ control, isVerbose: true, log: (line) => logged.push(line) }),
);
const neighbour = await TestSandbox.start(engine);

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

it("a control server that code has replaced passes no bytes on to the Worker if its handshake has an endless head", async () => {
  const sandbox = await TestSandbox.start(engine);
  // The control server may end the connection before this command ends.
  await sandbox.run("echo endless-head >/tmp/attack").catch(() => undefined);
  const { host, hostname, port } = new URL(engine.url);
  const socket = connect(Number(port), hostname);
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
});
