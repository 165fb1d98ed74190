/** A bridge between a client that starts a process and a server, over this process's standard input and output. */
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { Bridge } from "./bridge.ts";
import type { ExitName } from "./exit.ts";
import type { ServerAddress } from "./server.ts";

/**
 * Speaks for a server until the input ends or a signal comes.
 * @param sandbox that of calls that name none; the server's own without
 * @returns why the last message did not reach a server; undefined when it did
 */
export async function speak(
  locate: () => Promise<ServerAddress>,
  sandbox: string | undefined,
  log: (line: string) => void,
): Promise<ExitName | undefined> {
  const transport = new StdioServerTransport();
  const bridge = new Bridge({
    async locate() {
      const { url, ...rest } = await locate();
      if (sandbox === undefined) return { url, ...rest };
      const own = new URL(url);
      own.searchParams.set("sandbox", sandbox);
      return { url: own.href, ...rest };
    },
    send: (message) => transport.send(message),
    log,
  });
  const ended = new Promise<void>((resolve) => {
    Object.assign(transport, {
      onmessage: (message: JSONRPCMessage) => bridge.take(message),
      onerror: ({ message }: Error) => log(`This is no message: ${message.slice(0, 300)}`),
      onclose: resolve,
    });
    // What came before the end of the input is still answered.
    process.stdin.once("end", () => void bridge.settled().then(resolve));
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => resolve());
  });
  await transport.start();
  await ended;
  bridge.close();
  await transport.close();
  return bridge.failure;
}
