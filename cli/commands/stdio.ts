/** `sandbox-mcp stdio`: the server as a process, for clients that start one. */
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { Bridge } from "../bridge.ts";
import { bridgeCommand } from "../command.ts";
import { LocalServer } from "../local-server.ts";
import { serverAddress } from "../server.ts";

export const stdio = bridgeCommand(
  "stdio",
  "speak MCP on standard input and output, for clients that start a process; without a URL a local server is found or started",
  ["stdio", "stdio --sandbox project", "stdio --url https://sandbox.example/mcp --token TOKEN"],
)
  .option("--sandbox <name>", "the sandbox of calls that name none")
  .action(async ({ sandbox, ...options }) => {
    // Standard output is the protocol's.
    const log = (line: string) => void process.stderr.write(`${line}\n`);
    const isRemote = (options.url ?? process.env.SANDBOX_MCP_URL?.trim() ?? "") !== "";
    const fixed = isRemote ? serverAddress(options) : undefined;
    const local = new LocalServer(options, log);
    const transport = new StdioServerTransport();
    const bridge = new Bridge({
      async locate() {
        const { url, ...rest } = fixed ?? (await local.locate());
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
    // A server that was started here notices that this process is gone, saves its workspaces and ends.
    process.exit(0);
  });
