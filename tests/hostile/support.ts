/** Hostile input, and the checks that hold for every response. */
import { connect } from "node:net";
import * as fc from "../setup/chance.ts";
import { expect, inject } from "vitest";
import { mcpHeaders } from "../setup/mcp-client.ts";
import { TOKEN } from "../setup/server.ts";
import { sleep } from "../setup/until.ts";

/** The number of tries of a property. */
export function tries(short: number): fc.Parameters<unknown> {
  return { numRuns: inject("isLong") ? short * 20 : short, endOnFailure: true };
}

/** Texts that reveal internals of the server. `cell-1.ts` is allowed: it is the caller's own code in a traceback. */
const LEAKS =
  /\bat (async )?[\w.#<>]+ \(|node_modules|worker\.js|file:\/\/|\/src\/(server|tools|actors|tasks|runs|container|shared|auth)\/|(?<!\bcell-\d+)\.ts:\d+|SQLITE_|Internal error|DataCloneError|RangeError|Maximum call stack/;

/** Strings that often cause failures. */
const NASTY = [
  "",
  "\0",
  "\ud800",
  "\ufeff",
  "\u202e",
  "\u2028\u2029",
  "é".normalize("NFD"),
  "🐍".repeat(100),
  "'; rm -rf / #",
  '"; echo "',
  "$(id)`id`",
  "--help",
  "\r\n",
  "\u001b[31m",
  "../../../../etc/passwd",
  "/../..",
  "//",
  "/dev/zero",
  "~root",
  "file:///etc/passwd",
  "a".repeat(255),
  "a".repeat(256),
  "a/".repeat(3000),
  "x".repeat(70_000),
  "__proto__",
  "constructor",
  "toString",
  "null",
  "<script>alert(1)</script>",
  "EOF\nid\nEOF",
];

export const nastyString = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...NASTY) },
  fc.string({ unit: "binary", maxLength: 40 }),
  fc.string({ unit: "grapheme", maxLength: 40 }),
);

const nastyNumber = fc.constantFrom(
  0,
  -0,
  1,
  0.5,
  2 ** 31,
  2 ** 32,
  2 ** 53 + 2,
  -(2 ** 63),
  Number.MAX_VALUE,
);

function nest(depth: number): unknown {
  let value: unknown = 1;
  for (let level = 0; level < depth; level++) value = level % 2 ? [value] : { a: value };
  return value;
}

export const nastyValue: fc.Arbitrary<unknown> = fc.oneof(
  nastyString,
  nastyNumber,
  fc.constantFrom<unknown>(
    null,
    true,
    false,
    [],
    {},
    [[]],
    nest(500),
    JSON.parse('{"__proto__": {"polluted": 1}}'),
    // Objects that JavaScript cannot convert to a string, a number or a list.
    { toString: null, valueOf: null },
    { length: -1 },
    JSON.parse('{"then": 1}'),
  ),
  fc.array(nastyString, { maxLength: 3 }),
  fc.dictionary(nastyString, nastyString, { maxKeys: 3 }),
);

/** Checks that a response has a status below 500, and reveals none of `LEAKS`. */
export function expectHarmless(status: number, body: string, request: string): void {
  const shown = request.slice(0, 2000);
  expect(status, `${shown}\n${body.slice(0, 500)}`).toBeLessThan(500);
  // An error may repeat text of the request.
  const leak = LEAKS.exec(body)?.[0];
  expect(
    leak === undefined || request.includes(leak) ? undefined : `${leak} in ${body.slice(0, 1000)}`,
    shown,
  ).toBeUndefined();
}

export const HEADERS = mcpHeaders(TOKEN);

export async function postRaw(
  url: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<{ status: number; text: string }> {
  const response = await fetch(url, {
    method: "POST",
    headers: { ...HEADERS, ...headers },
    body,
    signal: AbortSignal.timeout(60_000),
  });
  return { status: response.status, text: await response.text() };
}

/** Sends raw bytes to the server. Returns what the server sends within `ms` milliseconds, or until it closes the connection. */
export async function sendRaw(
  url: string,
  parts: readonly (string | Uint8Array)[],
  ms = 1500,
): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.on("error", () => undefined);
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  for (const part of parts) {
    if (!socket.destroyed) socket.write(part);
    await sleep(5);
  }
  const timer = setTimeout(() => socket.destroy(), ms);
  await closed;
  clearTimeout(timer);
  return Buffer.concat(chunks).toString("latin1");
}
