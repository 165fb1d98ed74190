/**
 * Tells init.pl that sandboxd responds. sandboxd sends itself requests, and writes a byte to standard output for each correct
 * response. A user program that listens at sandboxd's port or socket would respond differently.
 */
import { randomBytes } from "node:crypto";
import { get } from "node:http";
import { TOKEN_HEADER } from "./protocol.ts";
import { ownToken } from "./actor-token.ts";

const BEAT_MS = 2000;
const RESPONSE_MS = 5000;
export const BEAT_HEADER = "x-sandboxd-beat";
export const beat = randomBytes(16).toString("hex");

/** Sends heartbeats while the local engine can reach sandboxd. */
export function beatWhile(isReachable: () => boolean): void {
  process.stdout.on("error", () => undefined);
  setInterval(() => isReachable() && process.stdout.write("."), BEAT_MS);
}

export function sendHeartbeats(address: { port: number } | { socketPath: string }): void {
  process.stdout.on("error", () => undefined);
  const next = () => setTimeout(ping, BEAT_MS).unref();
  const ping = () => {
    const signal = AbortSignal.timeout(RESPONSE_MS);
    const token = ownToken();
    const headers = token === undefined ? {} : { [TOKEN_HEADER]: token };
    get({ host: "127.0.0.1", ...address, headers, agent: false, signal }, (response) => {
      response.destroy();
      // Before the sandbox has an actor, sandboxd refuses all requests. At that time any response counts, because no user program
      // has run that could have replaced sandboxd.
      if (response.headers[BEAT_HEADER] === beat || token === "") process.stdout.write(".");
      next();
    }).once("error", next);
  };
  ping();
}
