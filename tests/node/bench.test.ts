/** `npm run bench`, where things go wrong: hours of measuring are not lost to one figure. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { type WebSocket, WebSocketServer } from "ws";
import { measureEach } from "../../bench/each.ts";
import type { Figure } from "../../bench/figure.ts";
import { openHeap } from "../../bench/heap.ts";
import { row } from "../../bench/measure.ts";

const cleanUp: (() => unknown)[] = [];
afterEach(() => {
  for (const step of cleanUp.splice(0)) step();
});

/** An inspector of one Worker, which answers as `respond` says. */
async function inspector(respond: (socket: WebSocket, id: number, method: string) => void): Promise<number> {
  const server = createServer((_, response) => {
    const { port } = server.address() as AddressInfo;
    response.end(JSON.stringify([{ webSocketDebuggerUrl: `ws://127.0.0.1:${port}/user:worker` }]));
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const sockets = new WebSocketServer({ server });
  sockets.on("connection", (socket) => {
    socket.on("message", (data: Buffer) => {
      const { id, method } = JSON.parse(data.toString());
      respond(socket, id, method);
    });
  });
  cleanUp.push(() => {
    for (const client of sockets.clients) client.terminate();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

async function live(respond: (socket: WebSocket, id: number, method: string) => void): Promise<number> {
  const heap = await openHeap({ inspectorPort: await inspector(respond) }, "user:", 500);
  cleanUp.push(() => heap.close());
  return heap.live();
}

it("an event of the inspector is not taken for an answer", async () => {
  const inUse = await live((socket, id) => {
    socket.send(JSON.stringify({ method: "Runtime.consoleAPICalled", params: { type: "log" } }));
    socket.send(JSON.stringify({ id, result: { usedSize: 2 << 20, backingStorageSize: 1 << 20 } }));
  });
  expect(inUse).toBe(3);
});

it.each([
  [
    "refuses",
    /the inspector: not now/,
    (socket: WebSocket, id: number) =>
      socket.send(JSON.stringify({ id, error: { code: 1, message: "not now" } })),
  ],
  ["says nonsense", /JSON/, (socket: WebSocket) => socket.send("<html>")],
  ["says nothing", /does not answer HeapProfiler/, () => undefined],
  ["goes away", /the inspector closed the connection/, (socket: WebSocket) => socket.close()],
] as const)("an inspector that %s fails the figure and not the process", async (_, message, respond) => {
  await expect(live(respond)).rejects.toThrow(message);
});

it("a figure that fails costs none of the others, each of which is kept when it is measured", async () => {
  const figures: Figure[] = ["first", "broken", "last"].map((name) => ({
    name,
    baseline: "nothing",
    measure: async () => {
      if (name === "broken") throw new Error("a figure's own");
      return [row(name, "ms", 2, 1)];
    },
  }));
  const order: string[] = [];
  const failed = await measureEach(
    figures,
    (figure) => {
      order.push(`measure ${figure.name}`);
      return figure.measure(undefined as never, { quick: true, count: () => 1 });
    },
    ({ rows }) => order.push(`keep ${rows[0]?.name}`),
    ({ name }, error) => order.push(`${name}: ${String(error)}`),
  );
  expect(failed).toEqual(["broken"]);
  expect(order).toEqual([
    "measure first",
    "keep first",
    "measure broken",
    "broken: Error: a figure's own",
    "measure last",
    "keep last",
  ]);
});
