/** What a sandbox connected to, and what was refused: the last connections, one line each. */
import { ALLOWED_PORTS } from "./network-policy.ts";

/** A connection, a request to a proxy, or an attempt at one. */
export interface Connection {
  /** When it began, milliseconds since the epoch. */
  at: number;
  host: string;
  port: number;
  /** `CONNECT` for a tunnel, otherwise the method of the request. */
  method: string;
  /** The status it was answered with; undefined while there is none. */
  status?: number;
  /** Bytes received from the host. */
  bytes: number;
  /** The names of the secrets that were added to it, with commas between, if any were. Never a value. */
  secret?: string;
  /**
   * Why it was refused. `policy`: the sandbox's policy forbids the host, and may be changed. `address`: the host is, or resolves to,
   * an address that no policy allows. `mismatch`: a request named another host than the one it was sent to.
   */
  refused?: "policy" | "address" | "mismatch";
}

/** What a platform has seen of a sandbox's connections since its container started. */
export interface SeenConnections {
  /** The id of the log. Each container has a log of its own. */
  log: string;
  /** How many were refused. */
  refused: number;
  /** The last ones, the oldest first. */
  connections: readonly Connection[];
}

/** A host that was refused, and how often. */
export interface Refusal {
  host: string;
  /** The port, where that is none which a list lets through. */
  port?: number;
  why: NonNullable<Connection["refused"]>;
  count: number;
}

/** Connections that are kept. */
export const KEPT_CONNECTIONS = 1000;

/** Hosts that a summary of refusals names. */
const MAX_REFUSED = 5;

export class ConnectionLog {
  /** Differs between logs. */
  readonly log = crypto.randomUUID();
  readonly #kept: Connection[] = [];
  #refused = 0;

  /** Adds a connection as a sandbox has named it. Its status and bytes may change until it is over. */
  add(connection: Connection): Connection {
    const added = { ...connection, host: oneField(connection.host), method: oneField(connection.method) };
    this.#kept.push(added);
    if (this.#kept.length > KEPT_CONNECTIONS) this.#kept.shift();
    if (added.refused) this.#refused++;
    return added;
  }

  /** Marks a connection as refused that was let through at first. */
  refuse(connection: Connection, why: NonNullable<Connection["refused"]>): void {
    if (!connection.refused) this.#refused++;
    connection.refused = why;
  }

  /** How many were refused since the beginning. */
  get refused(): number {
    return this.#refused;
  }

  /** The last ones, the oldest first. */
  get connections(): readonly Connection[] {
    return this.#kept;
  }

  /** Hosts that were refused from a time on, the first few of them. */
  refusalsSince(time: number): Refusal[] {
    const refusals = new Map<string, Refusal>();
    for (const { at, host, port: to, refused: why } of this.#kept) {
      if (why === undefined || at < time) continue;
      const port = ALLOWED_PORTS.has(to) ? {} : { port: to };
      const key = JSON.stringify([host, port, why]);
      const { count } = refusals.get(key) ?? { count: 0 };
      refusals.set(key, { host, ...port, why, count: count + 1 });
    }
    return [...refusals.values()].slice(0, MAX_REFUSED);
  }
}

/** What the columns of a line are. */
export const CONNECTION_COLUMNS = "time host port method status bytes secret";

/** The columns of a connection with a space between; a dash for what there is none of. */
export function connectionLine({
  at,
  host,
  port,
  method,
  status,
  bytes,
  secret,
  refused,
}: Connection): string {
  const outcome = refused ? "refused" : (status ?? "-");
  return `${new Date(at).toISOString()} ${host} ${port} ${method} ${outcome} ${bytes} ${secret ?? "-"}`;
}

/** Without what could end a line or a column. */
function oneField(text: string): string {
  return text.replace(/[^\x21-\x7e]/g, "?").slice(0, 253) || "-";
}
