/**
 * There are four Durable Objects of this class. One counts guesses of the owner's token, one lists registered clients without an
 * approval, one lists revoked grants, and one stores the key for links. All guesses go to the same object, so parallel guesses cannot
 * exceed the limit.
 *
 * Every wait is bounded, and an attempt during a wait does not extend the wait. Guesses from other addresses never delay an
 * address that has signed in before. Continued guesses block their own address. Guesses from many addresses block all addresses
 * that have not signed in. A person there with the right token waits too, because the server checks no token during the wait.
 */
import { DAY_MS, HOUR_MS } from "../shared/days.ts";
import { DurableObject } from "cloudflare:workers";
import type { Env } from "../shared/config.ts";
import { type ATTEMPTS_CONTENT, ATTEMPTS_MIGRATIONS } from "../storage/attempts-schema.ts";
import { type KeyOf, type KeyValues, migrate } from "../storage/migrations.ts";
import { Rows } from "../storage/rows.ts";

const SECOND_MS = 1000;

/** After this many wrong tokens from an address, the next attempt from there has to wait. */
const FREE_FAILURES = 5;
/** The wait after FREE_FAILURES wrong tokens. Each further wrong token doubles it. */
const FIRST_WAIT_MS = 30 * SECOND_MS;
const MAX_WAIT_MS = HOUR_MS / 4;
/** All addresses that have not signed in share this limit: a burst of guesses, then one guess per interval. */
const SHARED_BURST = 100;
const SHARED_INTERVAL_MS = HOUR_MS / 100;
/** How long an address's failures count after its last guess, and how long an address counts as signed in. */
const FORGET_FAILURES_MS = HOUR_MS;
const FORGET_SUCCESS_MS = 30 * DAY_MS;

const CLEAR_AT = "strangers:clear-at";

/** The object that counts guesses of the owner's token. */
export const ATTEMPTS_NAME = "owner";

/** The object that lists registered clients without an approval. */
const CLIENTS_NAME = "clients";

/** The object that lists revoked grants. */
const GRANTS_NAME = "grants";

/** The storage prefix of revoked grants. The values are the times of the revocations. */
const REVOKED = "revoked:";

/** How long a revocation is remembered. Copies of the grant in `OAUTH_KV` may be a minute old. */
const REVOKED_MS = HOUR_MS;

const LINK_KEY = "link-key";

/** The most unapproved clients. One more replaces the oldest client of the address that registered most of them. */
export const MAX_UNAPPROVED = 500;

export function registrationsOf(env: Pick<Env, "Attempts">) {
  return attemptsOf(env, CLIENTS_NAME);
}

export function revocationsOf(env: Pick<Env, "Attempts">) {
  return attemptsOf(env, GRANTS_NAME);
}

export function attemptsOf({ Attempts: namespace }: Pick<Env, "Attempts">, name: string) {
  return (namespace as DurableObjectNamespace<Attempts> | undefined)?.getByName(name);
}

export class Attempts extends DurableObject {
  readonly #rows: Rows;
  readonly #kv: KeyValues<KeyOf<typeof ATTEMPTS_CONTENT>>;
  /** When old revocations were last deleted. To list thousands with each new one would take long. */
  #forgottenAt = -Infinity;

  constructor(ctx: DurableObjectState, env: Cloudflare.Env) {
    super(ctx, env);
    this.#rows = new Rows(ctx.storage.sql);
    this.#kv = migrate(ctx.storage, ATTEMPTS_MIGRATIONS);
  }

  /** The key for signing links if no variable sets one. Generated on first use. */
  linkKey(): string {
    const stored = this.#kv.get<string>(LINK_KEY);
    if (stored !== undefined) return stored;
    const made = crypto.getRandomValues(new Uint8Array(32)).toHex();
    this.#kv.put(LINK_KEY, made);
    return made;
  }

  /** Records a client registration, which needs no credential. Returns the clients to remove. */
  registered(client: string, address: string): string[] {
    this.#rows.write("INSERT OR IGNORE INTO unapproved (client, address) VALUES (?, ?)", client, address);
    const removed = this.#rows.all<{ client: string }>(
      `DELETE FROM unapproved WHERE (SELECT count(*) FROM unapproved) > ? AND number = (
         SELECT min(number) FROM unapproved GROUP BY address ORDER BY count(*) DESC, min(number) LIMIT 1) RETURNING client`,
      MAX_UNAPPROVED,
    );
    return removed.map((each) => each.client);
  }

  approved(client: string): void {
    this.#rows.write("DELETE FROM unapproved WHERE client = ?", client);
  }

  /** Records the revocation of a grant. @param grant its key in `OAUTH_KV` */
  noteRevoked(grant: string, now = Date.now()): void {
    this.#kv.put(`${REVOKED}${grant}`, now);
    if (now - this.#forgottenAt < REVOKED_MS) return;
    this.#forgottenAt = now;
    const revoked = [...this.#kv.list<number>({ prefix: REVOKED })];
    for (const [key, at] of revoked) if (at <= now - REVOKED_MS) this.#kv.delete(key);
  }

  isRevoked(grant: string): boolean {
    return this.#kv.get(`${REVOKED}${grant}`) !== undefined;
  }

  /** Counts an attempt as wrong until `succeeded` is called. @returns 0 if the attempt is allowed, else the seconds to wait */
  take(address: string, now = Date.now()): number {
    this.#forget(now);
    const [source] = this.#rows.all<{ failures: number; last_at: number; succeeded_at: number }>(
      "SELECT failures, last_at, succeeded_at FROM sources WHERE address = ?",
      address,
    );
    const failures = source && source.last_at > now - FORGET_FAILURES_MS ? source.failures : 0;
    const hasSignedIn = source !== undefined && source.succeeded_at > 0;
    const until = Math.max(
      source ? source.last_at + waitAfter(failures) : 0,
      hasSignedIn ? 0 : this.#sharedLimitClearAt(now) - (SHARED_BURST - 1) * SHARED_INTERVAL_MS,
    );
    if (until > now) return Math.ceil((until - now) / SECOND_MS);
    this.#rows.write(
      `INSERT INTO sources (address, failures, last_at, succeeded_at) VALUES (?1, ?2, ?3, 0)
       ON CONFLICT (address) DO UPDATE SET failures = ?2, last_at = ?3`,
      address,
      failures + 1,
      now,
    );
    if (!hasSignedIn) this.#kv.put(CLEAR_AT, this.#sharedLimitClearAt(now) + SHARED_INTERVAL_MS);
    return 0;
  }

  succeeded(address: string, now = Date.now()): void {
    this.#rows.write("UPDATE sources SET failures = 0, succeeded_at = ?2 WHERE address = ?1", address, now);
  }

  /** When the shared limit allows the whole burst again, in milliseconds since the epoch, if nobody guesses until then. */
  #sharedLimitClearAt(now: number): number {
    return Math.max(this.#kv.get<number>(CLEAR_AT) ?? 0, now);
  }

  /** Deletes expired rows, which bounds the table. If the clock was set back, moves all times back, so no wait gets longer. */
  #forget(now: number): void {
    const { latest } = this.#rows.one<{ latest: number | null }>(
      "SELECT max(last_at) AS latest FROM sources",
    );
    if (latest !== null && latest > now) {
      this.#kv.put(CLEAR_AT, (this.#kv.get<number>(CLEAR_AT) ?? 0) - (latest - now));
      this.#rows.write("UPDATE sources SET last_at = ?1 WHERE last_at > ?1", now);
    }
    this.#rows.write(
      "DELETE FROM sources WHERE last_at <= ? AND succeeded_at <= ?",
      now - FORGET_FAILURES_MS,
      now - FORGET_SUCCESS_MS,
    );
    this.#rows.write("UPDATE sources SET succeeded_at = 0 WHERE succeeded_at <= ?", now - FORGET_SUCCESS_MS);
  }
}

function waitAfter(failures: number): number {
  if (failures < FREE_FAILURES) return 0;
  return Math.min(FIRST_WAIT_MS * 2 ** (failures - FREE_FAILURES), MAX_WAIT_MS);
}

/** The longest text of an IPv6 address, with an IPv4 address at its end, in characters. */
const MAX_ADDRESS = 45;

/**
 * The address that a request's attempts count for. Cloudflare sets the header and overwrites a client's value. Without
 * the header (a server on one machine) all requests count together. IPv6 addresses count by /64, because every customer
 * has a whole /64.
 */
export function addressOf(request: Request): string {
  const address = request.headers.get("cf-connecting-ip") ?? "local";
  // Without a proxy, callers choose the header. The limiters keep each address in memory for a minute.
  if (address.length > MAX_ADDRESS) return "invalid";
  if (!address.includes(":")) return address;
  const [, mapped] = /^::ffff:([\d.]+)$/i.exec(address) ?? [];
  if (mapped !== undefined) return mapped;
  const [head = [], tail] = address
    .toLowerCase()
    .split("::")
    .map((part) => part.split(":").filter(Boolean));
  const zeros = tail ? Math.max(0, 8 - head.length - tail.length) : 0;
  return `${[...head, ...Array<string>(zeros).fill("0"), ...(tail ?? [])]
    .slice(0, 4)
    .map((group) => group.replace(/^0+(?=.)/, ""))
    .join(":")}::/64`;
}
