/** The responses in which the Worker masks secrets share the bytes that pass in a second, and principals have equal parts. */
import { beforeEach, expect, it, vi } from "vitest";
import { forwardByPolicy, setInternet } from "../../src/container/internet.ts";

const MIB = 1024 * 1024;
const VALUE = "a-value-of-a-secret-in-no-response";
const SECRETS = JSON.stringify([
  { name: "api", hosts: ["api.example"], header: "Authorization: Bearer {value}", value: VALUE },
]);
const actor = { connectionMade: async () => undefined };
const env = { SECRETS, Sandbox: { idFromString: (id: string) => id, get: () => actor } };

/** Starts downloads without end. Returns a function that tells how many bytes have arrived. */
function download(principalID: string, count: number, signal: AbortSignal): () => number {
  let arrived = 0;
  const policy = { internet: "full", allowHosts: [], principalID } as const;
  const read = async (sandbox: number) => {
    const request = new Request("https://api.example/", { signal });
    const response = await forwardByPolicy(request, env as never, `${principalID}-${sandbox}`, policy);
    for await (const piece of response.body ?? []) arrived += piece.length;
  };
  for (let sandbox = 0; sandbox < count; sandbox++) void read(sandbox).catch(() => undefined);
  return () => arrived;
}

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  const pull = (controller: ReadableByteStreamController) =>
    controller.enqueue(new Uint8Array(64 * 1024).fill(0x20));
  setInternet(async () => new Response(new ReadableStream({ type: "bytes", pull })));
});

async function advance(seconds: number): Promise<void> {
  for (let step = 0; step < seconds * 100; step++) await vi.advanceTimersByTimeAsync(10);
}

it("masked downloads of four principals have one rate together, and a neighbour has an equal part of it", async () => {
  const leave = new AbortController();
  const all = ["one", "two", "three", "four"].map((id) => download(id, 60, leave.signal));
  const neighbour = download("neighbour", 1, leave.signal);
  const inMIB = () => [...all, neighbour].map((arrived) => arrived() / MIB);
  await advance(1);
  const before = inMIB();
  await advance(1);
  const after = inMIB();
  leave.abort();
  const rates = after.map((mib, index) => mib - (before[index] ?? 0));
  // Each has a fifth of 16 MiB a second.
  for (const rate of rates) expect(rate).toBeGreaterThan(2.5);
  for (const rate of rates) expect(rate).toBeLessThan(4);
});

it("downloads that end while they wait do not delay those of a neighbour", async () => {
  const leave = new AbortController();
  for (const id of ["leaves", "leaves too"]) download(id, 120, leave.signal);
  await advance(2);
  leave.abort();
  // Their pieces notice it, but no time passes.
  await vi.advanceTimersByTimeAsync(0);
  const stay = new AbortController();
  const neighbour = download("stays", 1, stay.signal);
  await advance(0.5);
  stay.abort();
  expect(neighbour() / MIB).toBeGreaterThan(1);
});
