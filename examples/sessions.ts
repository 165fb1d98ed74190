/**
 * Two sessions at the same time: one runs a web server, the other tests it. The output of both is streamed.
 * In your own project, import from "sandbox-mcp/client".
 */
import { setTimeout } from "node:timers/promises";
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;

const sandbox = connect({ url, token }).sandbox("sessions-example");

let printed = "";

/** Runs a command in a session and prints each line with the name of the session. */
function run(session: string, command: string, signal?: AbortSignal) {
  const onOutput = ({ text }: { text: string }) => {
    printed += text;
    process.stdout.write(text.replace(/^(?=.)/gm, `${session}: `));
  };
  return sandbox.session(session).runCommand(command, { onOutput, signal, timeoutSeconds: 3600 });
}

try {
  // A session keeps its directory and its variables. The other session has its own.
  await run("web", "mkdir -p site && echo 'It works.' > site/index.html && cd site && export PORT=8000");
  const stop = new AbortController();
  const serving = run("web", "python3 -u -m http.server $PORT", stop.signal).catch((error: unknown) => {
    if (!stop.signal.aborted) throw error;
  });
  const testing = run("test", "curl -sS --retry 20 --retry-connrefused http://127.0.0.1:8000/");
  const { exitCode } = await testing;
  // The server's line about the request may arrive after the end of the test.
  while (exitCode === 0 && !printed.includes("GET /")) await setTimeout(100);
  stop.abort();
  await serving;
  process.exitCode = exitCode ?? 1;
} finally {
  await sandbox.destroy();
}
