/** The stored history of a sandbox's connections, across containers and actors. */
import { expect, it } from "vitest";
import { ConnectionHistory } from "../../src/actors/connection-history.ts";
import { ConnectionLog, KEPT_CONNECTIONS, type SeenConnections } from "../../src/shared/connection-log.ts";

/** A platform with storage. It reports the connections in `state.seen`. */
function platform() {
  const stored = new Map<string, unknown>();
  const kv = {
    get: <T>(key: string) => structuredClone(stored.get(key)) as T | undefined,
    put: <T>(key: string, value: T) => void stored.set(key, structuredClone(value)),
    delete: (key: string) => stored.delete(key),
  };
  const state = { seen: [] as ConnectionLog[] };
  const seen = async () =>
    state.seen.map(({ log, refused, connections }): SeenConnections => ({ log, refused, connections }));
  return { state, stored, actor: () => new ConnectionHistory({ kv, connections: seen }) };
}

function connect(log: ConnectionLog, ...hosts: string[]): void {
  for (const host of hosts)
    log.add({
      at: 0,
      host,
      port: 443,
      method: "CONNECT",
      bytes: 0,
      ...(host === "no" && { refused: "policy" }),
    });
}

it("the history keeps the last connections, and counts every refused one", async () => {
  const { state, actor } = platform();
  const [first, second] = [new ConnectionLog(), new ConnectionLog()];
  const history = actor();
  connect(first, ...Array.from({ length: KEPT_CONNECTIONS + 5 }, () => "no"));
  connect(second, "last");
  state.seen = [first];
  await history.collect();
  state.seen = [first, second];
  const { refused, connections } = await history.collect();
  expect(refused).toBe(KEPT_CONNECTIONS + 5);
  expect(connections).toHaveLength(KEPT_CONNECTIONS);
  expect(connections.at(-1)?.host).toBe("last");
});
