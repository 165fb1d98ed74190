/** The database of the Durable Objects of the class `Attempts`. */
import type { Content, Migration } from "./migrations.ts";

export const ATTEMPTS_MIGRATIONS: readonly Migration[] = [
  {
    name: "the tables of version 1",
    sql: `
        CREATE TABLE sources (
          address TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_at INTEGER NOT NULL, succeeded_at INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE unapproved (number INTEGER PRIMARY KEY, client TEXT UNIQUE NOT NULL, address TEXT NOT NULL);`,
  },
];

/** Only the type is used in the Worker, so its bundle does not contain this. */
export const ATTEMPTS_CONTENT = {
  tables: {
    sources: {
      holds:
        "an IP address (for IPv6, its /64 prefix): the number of its wrong guesses, and the times of its last guess and last sign-in",
      kept: "an hour after the last guess; 30 days after a sign-in",
    },
    unapproved: {
      holds:
        "an OAuth client that is registered but that nobody has approved, and the IP address (for IPv6, its /64 prefix) that registered it",
      kept: "until somebody approves it. If there are more than 500, the server deletes the oldest one of the address with the most, also from `OAUTH_KV`",
    },
  },
  keys: {
    "strangers:clear-at": {
      holds:
        "when the server forgets the guesses of all addresses that did not sign in during the last 30 days",
      kept: "forever",
    },
    "revoked:*": {
      holds: "only in the object `grants`: the key of a revoked grant in `OAUTH_KV`, and when it was revoked",
      kept: "at least an hour, until a later revocation",
    },
    "link-key": {
      holds: "only in the object `links`: a random key that signs links",
      kept: "forever",
    },
  },
} satisfies Content;
