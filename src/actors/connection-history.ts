/** The connections of one sandbox that are kept: they outlive its container, its actor and the server. */
import { KEPT_CONNECTIONS, type SeenConnections } from "../shared/connection-log.ts";

/** The logs of one sandbox as one. */
interface Kept {
  /** Of the containers before this one. */
  earlier: Omit<SeenConnections, "log">;
  current: SeenConnections;
}

/** Storage key. */
const KEY = "connections";

/**
 * How long a connection may wait to be stored, milliseconds. All are one value in storage, about 130 KB of 1,000, because
 * Cloudflare charges for rows.
 */
const COLLECT_MS = 5000;

const NONE: Kept = {
  earlier: { refused: 0, connections: [] },
  current: { log: "", refused: 0, connections: [] },
};

export interface HistoryHost {
  kv: Pick<SyncKvStorage, "get" | "put" | "delete">;
  /** Undefined where nothing is known: what was known before stays. */
  seen(): Promise<SeenConnections | undefined>;
}

export class ConnectionHistory {
  readonly #host: HistoryHost;
  #kept: Kept;
  /** What was stored last of the current log. */
  #stored = "";
  /** Counts how often all was forgotten. */
  #forgotten = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: HistoryHost) {
    this.#host = host;
    this.#kept = host.kv.get<Kept>(KEY) ?? NONE;
  }

  /** Collects within COLLECT_MS. */
  collectSoon(): void {
    this.#timer ??= setTimeout(() => void this.collect().catch(() => undefined), COLLECT_MS);
  }

  /** Stores what the platform has seen. To be called before what it has seen is gone. */
  async collect(): Promise<Omit<SeenConnections, "log">> {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
    const before = this.#forgotten;
    const seen = (await this.#host.seen()) ?? this.#kept.current;
    if (before !== this.#forgotten) return NONE.earlier;
    const isNew = seen.log !== this.#kept.current.log;
    const earlier = isNew ? together(this.#kept.earlier, this.#kept.current) : this.#kept.earlier;
    this.#kept = { earlier, current: seen };
    const all = together(earlier, seen);
    const text = JSON.stringify(seen);
    if (text !== this.#stored && all.connections.length > 0) {
      const room = KEPT_CONNECTIONS - seen.connections.length;
      const rest = earlier.connections.slice(Math.max(0, earlier.connections.length - room));
      this.#host.kv.put<Kept>(KEY, { earlier: { ...earlier, connections: rest }, current: seen });
    }
    this.#stored = text;
    return all;
  }

  forget(): void {
    this.#forgotten++;
    this.#kept = NONE;
    this.#host.kv.delete(KEY);
  }
}

function together(one: Omit<SeenConnections, "log">, next: Omit<SeenConnections, "log">): typeof one {
  return {
    refused: one.refused + next.refused,
    connections: [...one.connections, ...next.connections].slice(-KEPT_CONNECTIONS),
  };
}
