/** Ensures that only one server uses a state directory, and finds a port for it. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect, createServer, type Server } from "node:net";
import { realpathSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { withShortPath } from "../local/engine/host-files.ts";
import { mayNotListen, portInUse, stateDirectoryInUse } from "./texts.ts";

/** How long the engine of a killed server may take to end its sandboxes, in milliseconds. */
const ENGINE_END_MS = 10_000;

/**
 * Locks the directory with a socket in Linux's abstract namespace. Only one process can bind the socket's name, and the kernel
 * always releases the name when that process ends. Other network namespaces do not have this name. So a server in another
 * container that uses the same volume is found by the socket of its engine.
 * @param socket the path of the engine's socket
 * @throws {UserError} if another server holds the lock
 */
export async function lockDirectory(directory: string, socket: string): Promise<void> {
  const digest = createHash("sha256").update(realpathSync(directory)).digest("hex").slice(0, 32);
  const held = await listen({ path: `\0sandbox-mcp-${digest}` });
  if (held === undefined) throw stateDirectoryInUse(directory);
  held.unref();
  for (const deadline = Date.now() + ENGINE_END_MS; await accepts(socket); await pause(100))
    if (Date.now() >= deadline) throw stateDirectoryInUse(directory);
}

/** Whether a process accepts connections at this path, which may be longer than a socket's address may be. */
function accepts(path: string): Promise<boolean> {
  const connects = async (short: string) => {
    const probe = connect(short);
    await once(probe, "connect");
    probe.destroy();
    return true;
  };
  return withShortPath(path, connects).catch(() => false);
}

/** A free port on 127.0.0.1: the requested one, or any for 0. @throws {UserError} if it is taken or not allowed */
export async function freePort(port: number): Promise<number> {
  const server = await listen({ host: "127.0.0.1", port });
  const address = server?.address();
  if (server === undefined || typeof address !== "object" || address === null) throw portInUse(port);
  await new Promise((resolve) => server.close(resolve));
  return address.port;
}

/** How long `listen` retries while the address is in use, in milliseconds. A stopping server keeps its address for a moment. */
const RETRY_MS = 1500;

/** @returns undefined if the address stays in use */
async function listen(
  address: { path: string } | { host: string; port: number },
): Promise<Server | undefined> {
  const deadline = Date.now() + RETRY_MS;
  for (;;) {
    const outcome = await new Promise<Server | NodeJS.ErrnoException>((resolve) => {
      const server = createServer((socket) => socket.destroy());
      server.once("error", resolve).listen(address, () => resolve(server));
    });
    if (!(outcome instanceof Error)) return outcome;
    if (outcome.code === "EACCES") throw mayNotListen(outcome.message);
    if (outcome.code !== "EADDRINUSE") throw outcome;
    if (Date.now() >= deadline) return undefined;
    await pause(100);
  }
}
