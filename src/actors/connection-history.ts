/** Stores the connections of one sandbox, so that they outlive its container, its actor and the server. */
import type { KV } from "./stored-value.ts";
import { KEPT_CONNECTIONS, type SeenConnections } from "../shared/connection-log.ts";

interface StoredConnections {
  /** The connections of earlier containers. `log` is the id of the newest log of these containers. */
  earlier: SeenConnections;
  current: SeenConnections;
}

const KEY = "connections";

/** The longest time until a connection is stored. Each write stores all connections as one value. */
const COLLECT_MS = 5000;

const NONE: StoredConnections = {
  earlier: { log: "", refused: 0, connections: [] },
  current: { log: "", refused: 0, connections: [] },
};

interface HistoryHost {
  kv: KV;
  connections(): Promise<SeenConnections[]>;
}

export class ConnectionHistory {
  readonly #host: HistoryHost;
  #kept: StoredConnections;
  #stored = "";
  /** Counts calls of `forget`, so that a collection under way does not restore forgotten connections. */
  #forgetCount = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: HistoryHost) {
    this.#host = host;
    this.#kept = host.kv.get<StoredConnections>(KEY) ?? NONE;
  }

  collectSoon(): void {
    this.#timer ??= setTimeout(() => void this.collect().catch(() => undefined), COLLECT_MS);
  }

  /** Stores the connections that the platform has seen, and returns all stored ones. Call it before the platform drops them. */
  async collect(): Promise<SeenConnections> {
    if (this.#timer !== undefined) clearTimeout(this.#timer);
    this.#timer = undefined;
    const before = this.#forgetCount;
    const logs = await this.#host.connections();
    if (before !== this.#forgetCount) return NONE.earlier;
    for (const log of logs) this.#add(log);
    const { earlier, current } = this.#kept;
    const all = mergeConnections(earlier, current);
    const text = JSON.stringify(current);
    if (text !== this.#stored && all.connections.length > 0)
      this.#host.kv.put<StoredConnections>(KEY, this.#kept);
    this.#stored = text;
    return all;
  }

  #add(latest: SeenConnections): void {
    const { earlier, current } = this.#kept;
    if (latest.log === earlier.log) return;
    const before = latest.log === current.log ? earlier : mergeConnections(earlier, current);
    const room = KEPT_CONNECTIONS - latest.connections.length;
    const connections = before.connections.slice(Math.max(0, before.connections.length - room));
    this.#kept = { earlier: { ...before, connections }, current: latest };
  }

  forget(): void {
    this.#forgetCount++;
    this.#kept = NONE;
    this.#host.kv.delete(KEY);
  }
}

function mergeConnections(earlier: SeenConnections, next: SeenConnections): SeenConnections {
  return {
    log: next.log,
    refused: earlier.refused + next.refused,
    connections: [...earlier.connections, ...next.connections].slice(-KEPT_CONNECTIONS),
  };
}
