/** What a Worker holds in memory, asked of V8's inspector. */
import { WebSocket } from "ws";
import { z } from "zod";

const targets = z.array(z.object({ webSocketDebuggerUrl: z.string() }));

const usage = z.object({ usedSize: z.number(), backingStorageSize: z.number().default(0) });

const answer = z.object({ id: z.number(), result: z.unknown() });

export interface Heap {
  /** MiB that are in use after a collection: objects, and the bytes of buffers. */
  live(): Promise<number>;
  close(): void;
}

/** @param worker a part of the inspector's name for the Worker */
export async function openHeap(port: number, worker: string): Promise<Heap> {
  const list = await fetch(`http://127.0.0.1:${port}/json/list`);
  const target = targets
    .parse(await list.json())
    .find(({ webSocketDebuggerUrl: url }) => url.includes(worker));
  if (!target) throw new Error(`the inspector knows no Worker ${worker}`);
  const socket = new WebSocket(target.webSocketDebuggerUrl);
  await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
  const waiting = new Map<number, (result: unknown) => void>();
  socket.on("message", (data: Buffer) => {
    const { id, result } = answer.parse(JSON.parse(data.toString()));
    waiting.get(id)?.(result);
    waiting.delete(id);
  });
  let last = 0;
  const ask = (method: string) =>
    new Promise<unknown>((resolve) => {
      waiting.set(++last, resolve);
      socket.send(JSON.stringify({ id: last, method }));
    });
  return {
    async live() {
      await ask("HeapProfiler.collectGarbage");
      const { usedSize, backingStorageSize } = usage.parse(await ask("Runtime.getHeapUsage"));
      return (usedSize + backingStorageSize) / 1024 / 1024;
    },
    close: () => socket.close(),
  };
}
