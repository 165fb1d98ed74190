/** A bridge between a client, over standard input and output, and a server. */
import { createInterface } from "node:readline";
import { parseJSONRPCMessage } from "@modelcontextprotocol/client";
import { Bridge } from "./bridge.ts";
import { type ExitName, STOP_SIGNALS } from "./exit.ts";
import type { ServerAddress } from "./server-address.ts";
import { escapeLine } from "./print.ts";
import { notJSONRPC } from "./texts.ts";

/** Connects to a server until the input ends or a signal arrives. @returns why the last message did not reach a server */
export async function serveStdio(
  locate: () => Promise<ServerAddress>,
  sandbox: string | undefined,
  log: (line: string) => void,
  isCurrent?: (address: ServerAddress) => boolean,
): Promise<ExitName | undefined> {
  const bridge = new Bridge({
    isCurrent,
    async locate() {
      const { url, ...rest } = await locate();
      if (sandbox === undefined) return { url, ...rest };
      const sandboxURL = new URL(url);
      sandboxURL.searchParams.set("sandbox", sandbox);
      return { url: sandboxURL.href, ...rest };
    },
    send: (message) =>
      new Promise((resolve, reject) => {
        process.stdout.write(`${JSON.stringify(message)}\n`, (error) => (error ? reject(error) : resolve()));
      }),
    // A server may have sent the words, and the log may be shown on a terminal.
    log: (words) => words.split("\n").forEach((line) => log(escapeLine(line))),
  });
  const ended = new Promise<void>((resolve) => {
    const lines = createInterface({ input: process.stdin });
    lines.on("line", (line) => {
      if (line.trim() === "") return;
      try {
        bridge.forward(parseJSONRPCMessage(JSON.parse(line)));
      } catch (error) {
        log(notJSONRPC(error));
      }
    });
    // Messages that arrived before the input's end are still handled.
    lines.once("close", () => void bridge.waitUntilSettled().then(resolve));
    for (const signal of STOP_SIGNALS) process.once(signal, () => resolve());
  });
  await ended;
  bridge.close();
  process.stdin.destroy();
  return bridge.failure;
}
