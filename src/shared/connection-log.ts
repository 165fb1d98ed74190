/** A sandbox's recent connections, allowed and refused, one line each. */
import { ALLOWED_PORTS } from "./network-policy.ts";

export interface Connection {
  /** When the connection began, in milliseconds since the epoch. */
  at: number;
  host: string;
  port: number;
  /** `CONNECT` for a tunnel, otherwise the request's method. */
  method: string;
  status?: number;
  bytes: number;
  /** Names of the added secrets, separated by commas. Never a value. */
  secret?: string;
  /**
   * Why the connection was refused. `policy`: the sandbox's policy, which can be changed. `address`: the host is, or resolves
   * to, an address that no policy allows. `mismatch`: the request was sent to one host and named another.
   */
  refused?: "policy" | "address" | "mismatch";
  /** The host's name has no address. */
  isUnknown?: true;
}

export interface SeenConnections {
  /** The id of the `ConnectionLog` that recorded the connections. */
  log: string;
  refused: number;
  connections: readonly Connection[];
}

/** The refused connections to one host, for one reason, or those to an unknown name. */
export interface RefusedConnections {
  host: string;
  /** The port, if it is not in `ALLOWED_PORTS`: no list of hosts can allow it. */
  port?: number;
  why: NonNullable<Connection["refused"]> | "unknown";
  count: number;
}

export const KEPT_CONNECTIONS = 1000;

const MAX_REFUSED = 5;

const MAX_FIELD_CHARS = 253;

export class ConnectionLog {
  readonly log = crypto.randomUUID();
  readonly #kept: Connection[] = [];
  #refused = 0;

  /** `host` is the name that the sandbox used. `status` and `bytes` may change until the connection ends. */
  add(connection: Connection): Connection {
    const added = { ...connection, host: oneField(connection.host), method: oneField(connection.method) };
    this.#kept.push(added);
    if (this.#kept.length > KEPT_CONNECTIONS) this.#kept.shift();
    if (added.refused) this.#refused++;
    return added;
  }

  refuse(connection: Connection, why: NonNullable<Connection["refused"]>): void {
    if (!connection.refused) this.#refused++;
    connection.refused = why;
  }

  get refused(): number {
    return this.#refused;
  }

  get connections(): readonly Connection[] {
    return this.#kept;
  }

  refusalsSince(time: number): RefusedConnections[] {
    const refusals = new Map<string, RefusedConnections>();
    for (const { at, host, port: connectedPort, refused, isUnknown } of this.#kept) {
      const why = isUnknown ? "unknown" : refused;
      if (why === undefined || at < time) continue;
      const port = ALLOWED_PORTS.has(connectedPort) ? {} : { port: connectedPort };
      const key = JSON.stringify([host, port, why]);
      const { count } = refusals.get(key) ?? { count: 0 };
      refusals.set(key, { host, ...port, why, count: count + 1 });
    }
    return [...refusals.values()].slice(0, MAX_REFUSED);
  }
}

export const CONNECTION_COLUMNS = "time host port method status bytes secret";

export function connectionLine(connection: Connection): string {
  const { at, host, port, method, status, bytes, secret, refused } = connection;
  const outcome = refused ? "refused" : (status ?? "-");
  return `${new Date(at).toISOString()} ${host} ${port} ${method} ${outcome} ${bytes} ${secret ?? "-"}`;
}

/** A text as one field of a line: without spaces, never empty, and at most as long as a DNS name. */
function oneField(text: string): string {
  return text.replace(/[^\x21-\x7e]/g, "?").slice(0, MAX_FIELD_CHARS) || "-";
}
