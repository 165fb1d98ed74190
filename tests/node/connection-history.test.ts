/** What is kept of a sandbox's connections, over containers and actors: `src/actors/connection-history.ts`. */
import { expect, it } from "vitest";
import { ConnectionHistory } from "../../src/actors/connection-history.ts";
import { ConnectionLog, KEPT_CONNECTIONS, type SeenConnections } from "../../src/shared/connection-log.ts";

/** A platform with storage: `seen` is what it answers. */
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
  return { state, stored, actor: () => new ConnectionHistory({ kv, seen }) };
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

const hostsOf = ({ connections }: Pick<SeenConnections, "connections">) =>
  connections.map(({ host }) => host).join(" ");

it("goes on over the next container, though nobody asked between the two, and over the next actor", async () => {
  const { state, actor } = platform();
  const [first, second, third] = [new ConnectionLog(), new ConnectionLog(), new ConnectionLog()];
  const history = actor();
  state.seen = [first];
  connect(first, "a");
  await history.collect();
  connect(first, "no");
  state.seen = [first, second];
  connect(second, "b");
  expect(hostsOf(await history.collect())).toBe("a no b");
  connect(second, "c");
  expect(hostsOf(await history.collect())).toBe("a no b c");
  const next = actor();
  state.seen = [];
  expect(hostsOf(await next.collect())).toBe("a no b c");
  state.seen = [second, third];
  connect(second, "d", "no");
  const all = await next.collect();
  expect(hostsOf(all)).toBe("a no b c d no");
  expect(all.refused).toBe(2);
});

it("keeps the last ones, and counts what was refused of all", async () => {
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

it("is empty after it was forgotten, also for who was about to collect, and stores nothing of a sandbox that connects nowhere", async () => {
  const { state, stored, actor } = platform();
  state.seen = [new ConnectionLog()];
  const history = actor();
  await history.collect();
  expect(stored.size).toBe(0);
  connect(state.seen[0] ?? new ConnectionLog(), "a");
  await history.collect();
  expect(stored.size).toBe(1);
  const late = history.collect();
  history.forget();
  state.seen = [];
  expect(hostsOf(await late)).toBe("");
  expect(hostsOf(await history.collect())).toBe("");
  expect(stored.size).toBe(0);
});
