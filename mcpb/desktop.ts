/**
 * The program of the bundle for Claude Desktop: a bridge to a server. The user gives its address and token in the settings. It
 * does not start a server, because a server needs Linux.
 */
import { serveStdio } from "../cli/stdio-bridge.ts";

const { SANDBOX_MCP_URL = "", SANDBOX_MCP_TOKEN = "", SANDBOX_MCP_SANDBOX = "" } = process.env;
const log = (line: string) => void process.stderr.write(`${line}\n`);

const url = URL.canParse(SANDBOX_MCP_URL.trim()) ? new URL(SANDBOX_MCP_URL.trim()) : undefined;
const token = SANDBOX_MCP_TOKEN.trim();
const isWrong =
  (!url || !/^https?:$/.test(url.protocol)) &&
  "Set Server to the server's address, such as http://127.0.0.1:8787/mcp.";
const isMissing =
  !/^[\x21-\x7e]+$/.test(token) && "Set Token to the server's token: visible ASCII without spaces.";

if (!url || isWrong || isMissing) {
  log(isWrong || isMissing || "");
  process.exitCode = 64;
} else {
  if (url.pathname === "/") url.pathname = "/mcp";
  const address = { url: url.href, token, tokenSource: "the settings of this extension", isLocal: false };
  await serveStdio(async () => address, SANDBOX_MCP_SANDBOX.trim() || undefined, log);
  process.exit(0);
}
