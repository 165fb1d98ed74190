/** The database of the Durable Objects that count guesses and registrations. */
import type { Schema } from "./migrations.ts";

export const ATTEMPTS_SCHEMA = {
  migrations: [
    {
      name: "the tables of servers without versions",
      sql: `
        CREATE TABLE IF NOT EXISTS sources (
          address TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_at INTEGER NOT NULL, succeeded_at INTEGER NOT NULL) WITHOUT ROWID;
        CREATE TABLE IF NOT EXISTS unapproved (number INTEGER PRIMARY KEY, client TEXT UNIQUE NOT NULL);`,
    },
  ],
  tables: {
    sources: {
      holds: "an address (IPv6 as its /64): its failures, when it last guessed, when it last signed in",
      kept: "an hour after its last guess; 30 days after a sign-in",
    },
    unapproved: {
      holds: "a registered client that nobody has approved",
      kept: "until somebody approves it, or until 500 newer ones wait; then the client is also deleted from `OAUTH_KV`",
    },
  },
  keys: {
    "strangers:clear-at": {
      holds:
        "when the guesses of addresses that did not sign in within 30 days count as 0 again (these addresses share one limit)",
      kept: "for good (one number)",
    },
    "link-key": {
      holds: "in `links`: a random key that signs links, and when it was made",
      kept: "for good",
    },
  },
} satisfies Schema;
