import { bridgeCommand } from "../define-command.ts";
import { EXIT } from "../exit.ts";
import { LocalServer } from "../local-server.ts";
import { withAcceptedToken } from "../server-calls.ts";
import { serverAddress } from "../server-address.ts";
import { serveStdio } from "../stdio-bridge.ts";
import { NO_JSON } from "./texts.ts";

export const stdio = bridgeCommand(
  NO_JSON.stdio,
  "stdio",
  "serve MCP on standard input and output, for clients that start a process; without a URL it finds or starts a local server",
  ["stdio", "stdio --sandbox project", "stdio --url https://sandbox.example/mcp --token TOKEN"],
)
  .option("--sandbox <name>", "the sandbox for calls that do not name one")
  .action(async ({ sandbox, ...options }) => {
    // Only the protocol may write to standard output.
    const log = (line: string) => void process.stderr.write(`${line}\n`);
    const isRemote = (options.url ?? process.env.SANDBOX_MCP_URL?.trim() ?? "") !== "";
    const fixed = isRemote ? serverAddress(options) : undefined;
    const local = new LocalServer(options, log);
    let status: number = EXIT.succeeded;
    const locate = async () => {
      status = EXIT.unavailable;
      const address = await withAcceptedToken(fixed ?? (await local.locate()));
      status = EXIT.succeeded;
      return address;
    };
    const failure = await serveStdio(
      locate,
      sandbox,
      log,
      (address) => fixed !== undefined || local.isCurrent(address),
    );
    // A server that this process started notices that this process has ended. Then it saves the workspaces and ends.
    process.exit(failure === undefined ? status : EXIT[failure]);
  });
