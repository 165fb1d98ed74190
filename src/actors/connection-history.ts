/** The connections of one sandbox that are kept: they outlive its container, its actor and the server. */
import { KEPT_CONNECTIONS, type SeenConnections } from "../shared/connection-log.ts";

/** The logs of one sandbox as one. */
interface StoredConnections {
  /** Of the containers before this one; `log` is the last one's. */
  earlier: SeenConnections;
  current: SeenConnections;
}

/** Storage key. */
const KEY = "connections";

/**
 * How long a connection may wait to be stored, milliseconds. All are one value in storage, about 130 KB of 1,000, because
 * Cloudflare charges for rows.
 */
const COLLECT_MS = 5000;

const NONE: StoredConnections = {
  earlier: { log: "", refused: 0, connections: [] },
  current: { log: "", refused: 0, connections: [] },
};

export interface HistoryHost {
  kv: {
    get<T>(key: string): T | undefined;
    put<T>(key: string, value: T): void;
    delete(key: string): boolean;
  };
  /** Of the last container that ended and of the one that runs, as far as they are known. */
  connections(): Promise<SeenConnections[]>;
}

export class ConnectionHistory {
  readonly #host: HistoryHost;
  #kept: StoredConnections;
  /** What was stored last of the current log. */
  #stored = "";
  /** Counts how often all was forgotten. */
  #forgotten = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: HistoryHost) {
    this.#host = host;
    this.#kept = host.kv.get<StoredConnections>(KEY) ?? NONE;
  }

  /** Collects within COLLECT_MS. */
  collectSoon(): void {
    this.#timer ??= setTimeout(() => void this.collect().catch(() => undefined), COLLECT_MS);
  }

  /** Stores what the platform has seen. To be called before what it has seen is gone. */
  async collect(): Promise<SeenConnections> {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
    const before = this.#forgotten;
    const seen = await this.#host.connections();
    if (before !== this.#forgotten) return NONE.earlier;
    for (const log of seen) this.#add(log);
    const { earlier, current } = this.#kept;
    const all = mergeConnections(earlier, current);
    const text = JSON.stringify(current);
    if (text !== this.#stored && all.connections.length > 0)
      this.#host.kv.put<StoredConnections>(KEY, this.#kept);
    this.#stored = text;
    return all;
  }

  #add(seen: SeenConnections): void {
    const { earlier, current } = this.#kept;
    if (seen.log === earlier.log) return;
    const before = seen.log === current.log ? earlier : mergeConnections(earlier, current);
    const room = KEPT_CONNECTIONS - seen.connections.length;
    const connections = before.connections.slice(Math.max(0, before.connections.length - room));
    this.#kept = { earlier: { ...before, connections }, current: seen };
  }

  forget(): void {
    this.#forgotten++;
    this.#kept = NONE;
    this.#host.kv.delete(KEY);
  }
}

function mergeConnections(one: SeenConnections, next: SeenConnections): SeenConnections {
  return {
    log: next.log,
    refused: one.refused + next.refused,
    connections: [...one.connections, ...next.connections].slice(-KEPT_CONNECTIONS),
  };
}
