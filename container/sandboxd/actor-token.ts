/** Accepts only requests with the token of the sandbox's actor (its Durable Object): see `TOKEN_HEADER`. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { textOf } from "./directories.ts";
import { TOKEN_HEADER, TOKEN_VARIABLE } from "./protocol.ts";

/** The path of the token's file. Only a local sandbox has this file, because it may start before its actor is known. */
const FILE_VARIABLE = "SANDBOXD_TOKEN_FILE";
const givenToken = process.env[TOKEN_VARIABLE];
const file = process.env[FILE_VARIABLE];
// User programs must not see these variables.
delete process.env[TOKEN_VARIABLE];
delete process.env[FILE_VARIABLE];

let token = givenToken;

/** The token; empty before the sandbox has an actor, undefined if sandboxd needs no token. */
export function ownToken(): string | undefined {
  if (!token && file !== undefined) token = textOf(file)?.trim() ?? "";
  return token;
}

export function isAuthorized({ headers }: IncomingMessage): boolean {
  const expected = ownToken();
  if (expected === undefined) return true;
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return expected !== "" && timingSafeEqual(digest(expected), digest(String(headers[TOKEN_HEADER])));
}
