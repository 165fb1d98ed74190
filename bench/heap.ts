/** The memory of a Worker, from V8's inspector. */
import { on, once } from "node:events";
import { WebSocket } from "ws";
import { z } from "zod";
import type { RunningWorker } from "../cli/run-worker.ts";

const targets = z.array(z.object({ webSocketDebuggerUrl: z.string() }));

const usage = z.object({ usedSize: z.number(), backingStorageSize: z.number().default(0) });

const message = z.union([
  z.object({ id: z.number(), result: z.unknown() }),
  z.object({ id: z.number(), error: z.object({ message: z.string() }) }),
  z.object({ method: z.string() }),
]);

export interface Heap {
  /** MiB in use after a garbage collection, buffers included. */
  live(): Promise<number>;
  close(): void;
}

/**
 * How long a response of the inspector may take, in milliseconds. The inspector says nothing about a Worker until the Worker has
 * got its first request.
 */
const RESPONSE_MS = 30_000;

/** The inspector's name for our Worker in `npm start`. The same workerd runs other services. */
export const PRODUCT_SERVICE = "core:user:sandbox-mcp-local";

/** @param worker a part of the inspector's name for the Worker */
export async function openHeap(
  { inspectorPort }: Pick<RunningWorker, "inspectorPort">,
  worker: string,
): Promise<Heap> {
  const list = await fetch(`http://127.0.0.1:${inspectorPort}/json/list`);
  const target = targets
    .parse(await list.json())
    .find(({ webSocketDebuggerUrl: url }) => url.includes(worker));
  if (!target) throw new Error(`the inspector lists no Worker ${worker}`);
  const socket = new WebSocket(target.webSocketDebuggerUrl);
  await once(socket, "open");
  // Each request also gets these events. Without a listener between requests, an error would end the process.
  socket.on("error", () => undefined);
  let last = 0;
  const request = async (method: string) => {
    const id = ++last;
    socket.send(JSON.stringify({ id, method }));
    const signal = AbortSignal.timeout(RESPONSE_MS);
    for await (const [data] of on(socket, "message", { signal, close: ["close"] })) {
      const line = message.parse(JSON.parse(String(data)));
      if (!("id" in line) || line.id !== id) continue;
      if ("error" in line) throw new Error(`the inspector: ${line.error.message}`);
      return line.result;
    }
    throw new Error("the inspector closed the connection");
  };
  return {
    async live() {
      await request("HeapProfiler.collectGarbage");
      const { usedSize, backingStorageSize } = usage.parse(await request("Runtime.getHeapUsage"));
      return (usedSize + backingStorageSize) / 1024 / 1024;
    },
    close: () => socket.close(),
  };
}
