/** `AUTH_TOKENS`: tokens besides the owner's. The server knows only their hashes. */
import * as z from "zod";
import { allowHosts, hostEntry, time, areUnique } from "./env-fields.ts";
import { INTERNET, type Internet } from "./network-policy.ts";
import { REGIONS, type Region, type Scope, SCOPES, TOKEN_NAME } from "./principal.ts";

export interface StaticToken {
  name: string;
  /** SHA-256 of the token's UTF-8 bytes, in lower-case hexadecimal. */
  sha256: string;
  scopes: readonly Scope[];
  /** The replaced token, by its SHA-256. */
  previous?: PreviousToken | undefined;
  region?: Region | undefined;
  internet?: Internet | undefined;
  allowHosts?: readonly string[] | undefined;
}

export interface PreviousToken {
  /** The token, or its SHA-256. */
  value: string;
  /** When it stops working, in milliseconds since the epoch; Infinity if it works until it is removed. */
  until: number;
}

export const authTokens = z
  .array(
    z
      .strictObject(
        {
          name: z.string("is missing").regex(TOKEN_NAME, "must be 1 to 32 characters of a-z, 0-9 and -"),
          sha256: tokenHash(),
          scopes: z
            .array(z.enum(SCOPES, `must be one of ${SCOPES.join(", ")}`), "must be a list of scopes")
            .min(1, "must name at least one scope"),
          previous_sha256: tokenHash().optional(),
          previous_until: time().optional(),
          region: z.enum(REGIONS, `must be one of ${REGIONS.join(", ")}`).optional(),
          internet: z.enum(INTERNET, `must be one of ${INTERNET.join(", ")}`).optional(),
          allow_hosts: allowHosts(
            z.array(z.string("must be text").transform(hostEntry), "must be a list of hosts"),
          ).optional(),
        },
        // The default message lists unknown keys, and one could be a token pasted into the wrong place.
        "must be an object with name, sha256 and scopes, and optionally previous_sha256, previous_until, region, internet and allow_hosts; no other keys",
      )
      .transform(({ allow_hosts, previous_sha256, previous_until, ...token }) => ({
        ...token,
        previous: previousTokenOf(previous_sha256, previous_until),
        allowHosts: allow_hosts,
      })),
    "must be a JSON list",
  )
  .refine((tokens) => areUnique(tokens.map((token) => token.name)), "must not use one name twice")
  .refine(
    // During a rotation, an entry may contain the same hash twice.
    (tokens) =>
      areUnique(
        tokens.flatMap(({ sha256, previous: { value = sha256 } = {} }) => [...new Set([sha256, value])]),
      ),
    "must not give one token two names",
  );

function tokenHash() {
  return z
    .string("is missing")
    .regex(/^[0-9a-fA-F]{64}$/, "must be the SHA-256 of the token, 64 hexadecimal digits")
    .toLowerCase();
}

export function previousTokenOf(value: string | undefined, until = Infinity): PreviousToken | undefined {
  return value === undefined ? undefined : { value, until };
}
