/**
 * A CI job: clones a repository into a fresh sandbox, builds and tests it there, and downloads the artifacts. It exits with the
 * status of the command. In your own project, import from "sandbox-mcp/client".
 *   node clone-build-test.ts "$GITHUB_RUN_ID" https://github.com/owner/project 'npm ci && npm test' dist
 */
import { writeFile } from "node:fs/promises";
import { CallError, connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const [job = "", repository = "", command = "npm ci && npm test", artifacts = "dist"] = process.argv.slice(2);
if (job === "" || repository === "") {
  console.error("Usage: node clone-build-test.ts <job> <repository URL> [command] [directory of artifacts]");
  process.exit(64);
}

// A CI service stops a job with a signal. This cancels the command and lets `finally` run.
const stop = new AbortController();
for (const name of ["SIGINT", "SIGTERM"] as const) process.once(name, () => stop.abort(new Error(name)));

const sandbox = connect({ url, token }).sandbox(`ci-${job}`);
const run = (line: string, cwd: string) =>
  sandbox.runCommand(line, {
    cwd,
    env: { CI: "true", REPOSITORY: repository },
    timeoutSeconds: 3600,
    signal: stop.signal,
    onOutput: ({ stream, text }) => process[stream].write(text),
  });

try {
  // A retried job may find the clone of its first attempt.
  let last = await run('rm -rf source && git clone -q --depth 1 -- "$REPOSITORY" source', "/workspace");
  if (last.isSuccess) last = await run(command, "/workspace/source");
  // Without an exit status the command timed out or its sandbox was lost.
  process.exitCode = last.exitCode ?? 1;
  if (last.isSuccess) {
    const archive = await sandbox.files.download(`source/${artifacts}`, { archive: "tar.gz" });
    await writeFile("artifacts.tar.gz", archive);
  }
} catch (error) {
  // A command may make no artifacts.
  if (!(error instanceof CallError) || error.code !== "not_found") throw error;
  console.error(`No artifacts: ${error.message}`);
} finally {
  await sandbox.destroy();
}
