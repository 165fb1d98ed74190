/** The connections of a sandbox's own servers to the engine (container/sandboxd/engine-link.ts). */
import { once } from "node:events";
import { createServer as createHTTPServer } from "node:http";
import { createServer } from "node:net";
import { expect, it } from "vitest";
import { ACCEPTED, clock, greeting, NEEDED } from "../../container/sandboxd/engine-link.ts";
import { SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import { PortForwarder } from "../../local/engine/forward.ts";
import { ServerConnections } from "../../local/engine/server-connections.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import EVALUATE from "../setup/evaluate.cjs?raw";
import { connectTo, listen } from "../setup/listen.ts";

const KEY = "0".repeat(32);
const engine = endLater(await startTestEngine());

/** Accepts connections on this port. */
async function startConnections() {
  const connections = new ServerConnections(KEY);
  const listener = createServer();
  const port = await listen(listener);
  connections.accept(listener);
  return { connections, port };
}

it("are not background work of the sandbox", async () => {
  const sandbox = await TestSandbox.start(engine);
  await sandbox.run("true");
  expect(JSON.parse(await sandbox.ask("GET", "/work"))).toMatchObject({ connections: 0 });
  await sandbox.destroy();
});

it("do not make sandboxd list all connections of the sandbox after each command", async () => {
  const sandbox = await TestSandbox.start(engine);
  await sandbox.run(`node - <<'END'\n${EVALUATE.replace("process.argv[2]", JSON.stringify(COUNT_LISTS))}END`);
  const lists = async () => Number((await sandbox.run("cat /tmp/lists")).stdout);
  const long = "sleep 1";
  // A new listener, so that sandboxd lists the connections once in any case.
  await sandbox.run("timeout 2 python3 -m http.server 8765");
  const before = await lists();
  expect(before).toBeGreaterThan(0);
  for (let count = 0; count < 3; count++) await sandbox.run(long);
  expect((await lists()) - before).toBeLessThan(3);
  await sandbox.destroy();
});

const COUNT_LISTS = `
const fs = process.getBuiltinModule("fs");
const { readFileSync } = fs;
let lists = 0;
fs.writeFileSync("/tmp/lists", "0");
fs.readFileSync = (path, ...rest) => {
  if (path === "/proc/net/tcp") fs.writeFileSync("/tmp/lists", String(++lists));
  return readFileSync(path, ...rest);
};
`;

it("are accepted while another user's program has opened many silent ones", async () => {
  const { connections, port } = await startConnections();
  const silent = await Promise.all(Array.from({ length: 100 }, () => connectTo(port)));
  for (const socket of silent) socket.on("error", () => undefined);
  const control = await connectTo(port);
  control.write(greeting("control", KEY, clock()));
  const taken = await connections.take("control");
  expect(taken.remotePort).toBe(control.localPort);
  connections.close();
  for (const socket of [...silent, control]) socket.destroy();
});

it("are not accepted by a sandbox that has ended", async () => {
  const connections = new ServerConnections(KEY);
  const listener = createServer();
  await listen(listener);
  connections.close();
  connections.accept(listener);
  expect(listener.listening).toBe(false);
});

it("are replaced by the server as soon as the engine needs them, also before their first request", async () => {
  const { connections, port } = await startConnections();
  const control = await connectTo(port);
  let received = "";
  control.on("data", (bytes) => (received += String(bytes)));
  control.write(greeting("control", KEY, clock()));
  await connections.take("control");
  await expect.poll(() => received).toBe(ACCEPTED + NEEDED);
  connections.close();
  control.destroy();
});

it("are closed when a newer server of the same kind connects, because the earlier one may never respond", async () => {
  const { connections, port } = await startConnections();
  const since = clock() - 1;
  const greet = async (greeted: number) => {
    const socket = await connectTo(port);
    socket.resume().write(greeting("sandboxd", KEY, greeted));
    return socket;
  };
  const earlier = await greet(since);
  await connections.take("sandboxd");
  const closed = once(earlier, "close");
  const newer = await greet(since + 1);
  await closed;
  expect((await connections.take("sandboxd")).remotePort).toBe(newer.localPort);
  connections.close();
  newer.destroy();
});

it("are not awaited any more when the client has disconnected", async () => {
  const { connections, port } = await startConnections();
  // A server that keeps one connection busy, and opens no other.
  const busy = await connectTo(port);
  busy.resume().write(greeting("sandboxd", KEY, clock()));
  await connections.take("sandboxd");
  let end: Promise<unknown> | undefined;
  const forwarder = new PortForwarder((to, aborted) => {
    const taken = connections.take(to, { aborted });
    end = taken.catch(String);
    return taken;
  });
  const server = createHTTPServer((request, response) =>
    forwarder.request(SANDBOXD_PORT, "/", request, response),
  );
  const client = await connectTo(await listen(server));
  client.write("GET / HTTP/1.1\r\nHost: engine\r\n\r\n");
  await expect.poll(() => end !== undefined).toBe(true);
  client.destroy();
  expect(await end).toContain("has disconnected");
  connections.close();
  busy.destroy();
  server.close();
});
