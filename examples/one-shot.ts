/**
 * One program in one fresh sandbox, which is destroyed afterwards with all its files. The program is read from standard input.
 * In your own project, import from "sandbox-mcp/client".
 */
import { randomUUID } from "node:crypto";
import { text as textOf } from "node:stream/consumers";
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;

const sandbox = connect({ url, token }).sandbox(`once-${randomUUID().slice(0, 8)}`);
try {
  // An untrusted program gets no network. If this call fails, the program does not run.
  await sandbox.configure({ internet: "none" });
  const { isSuccess, result, error } = await sandbox.runCode(await textOf(process.stdin), {
    timeoutSeconds: 30,
    onOutput: ({ text }) => process.stdout.write(text),
  });
  if (result) console.log(result);
  if (error) console.log(error.traceback.join("\n"));
  if (!isSuccess) process.exitCode = 1;
} finally {
  await sandbox.destroy();
}
