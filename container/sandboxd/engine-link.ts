/**
 * Connections from the servers of a local sandbox, sandboxd and the control server, to the engine. These servers do not listen:
 * they connect to the engine, which sends its requests over these connections. They use TCP, because over a Unix socket a program in
 * the place of a server could send the engine descriptors of files (SCM_RIGHTS). Linux would close the files in the engine's main
 * thread, which can take seconds.
 */
import { readFileSync } from "node:fs";
import type { Server } from "node:http";
import { connect } from "node:net";
import { SANDBOXD_PORT } from "./protocol.ts";

export type OwnServer = "control" | "sandboxd";

/** Where the engine accepts these connections, in the sandbox's network. */
export const ENGINE_ADDRESS = { host: "127.0.0.1", port: SANDBOXD_PORT };
/** The engine sends the first byte when it has accepted a connection, and the second one when it needs it, before its first request. */
export const ACCEPTED = ".";
export const NEEDED = "!";
/** How many unused connections a server keeps open. */
export const UNUSED = 4;
/** The pause before the next try, in milliseconds. After a first success, the engine refuses connections if a newer server exists. */
const RETRY_MS = 20;
const REFUSED_MS = 1000;
/** How long the engine may take to accept a connection, in milliseconds. */
const ACCEPT_MS = 5000;

/** A connection's first bytes. `since` is when the server started: the engine accepts only the newest of each kind. */
export const greeting = (server: OwnServer, key: string, since: number) => `${server} ${key} ${since}\n`;

/** Milliseconds since the machine started. All processes of the machine have the same clock. */
export const clock = () => Math.floor(Number(process.hrtime.bigint() / 1_000_000n));

/**
 * Lets the engine use a server. Connects again whenever the engine uses or closes a connection.
 * @param keyFile a file that only root in the sandbox can read, so that no other user can take the server's place
 * @returns a function that tells whether the engine can send another request
 */
export function serveEngine(server: Server, name: OwnServer, keyFile: string): () => boolean {
  const since = clock();
  let accepted = 0;
  let isKnown = false;
  const open = () => {
    const socket = connect({ ...ENGINE_ADDRESS, noDelay: true, allowHalfOpen: true });
    const retry = () => setTimeout(open, isKnown ? REFUSED_MS : RETRY_MS);
    const leave = () => (accepted -= 1);
    const giveUp = () => void socket.destroy();
    const use = () => {
      socket.off("close", retry).off("close", leave).off("error", ignore).off("readable", read);
      leave();
      server.emit("connection", socket);
      open();
    };
    const read = () => {
      const byte = String(socket.read(1) ?? "");
      if (byte === NEEDED) return use();
      if (byte !== ACCEPTED) return void socket.destroy();
      accepted += 1;
      isKnown = true;
      socket.setTimeout(0, giveUp);
      socket.once("close", leave);
      if (socket.readableLength > 0) read();
    };
    socket.on("error", ignore).once("close", retry).on("readable", read);
    socket.setTimeout(ACCEPT_MS, giveUp);
    socket.once("connect", () => socket.write(greeting(name, readFileSync(keyFile, "utf8"), since)));
  };
  // For the time limit of headers, Node watches connections only after this event.
  server.emit("listening");
  for (let count = 0; count < UNUSED; count++) open();
  return () => accepted > 0;
}

const ignore = () => undefined;
