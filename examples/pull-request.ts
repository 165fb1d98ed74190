/**
 * A job for a pull request: runs the test in a sandbox. If it fails, the coding agent corrects the code, and the job prints the
 * fix as a patch. In your own project, import from "sandbox-mcp/client".
 *   node pull-request.ts 17 https://github.com/owner/project my-branch 'npm ci && npm test' > fix.patch
 */
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const [pullRequest = "", repository = "", branch = "main", test = "npm test"] = process.argv.slice(2);
if (!/^\d+$/.test(pullRequest) || repository === "") {
  console.error("Usage: node pull-request.ts <number> <repository URL> [branch] [test command]");
  process.exit(64);
}

const sandbox = connect({ url, token }).sandbox(`pr-${pullRequest}`);
const options = { env: { REPOSITORY: repository, BRANCH: branch }, timeoutSeconds: 1800 };

try {
  // A job that was killed may have left its clone.
  const clone = 'find . -mindepth 1 -delete && git clone -q --depth 1 --branch "$BRANCH" -- "$REPOSITORY" .';
  const cloned = await sandbox.runCommand(clone, options);
  if (!cloned.isSuccess) throw new Error(cloned.stderr);

  const tried = await sandbox.runCommand(test, options);
  if (tried.isSuccess) console.error("The test passes.");
  else {
    const task = `\`${test}\` fails:\n\n${tried.stdout}\n${tried.stderr}\n\nCorrect the code, not the test.`;
    const fix = await sandbox.task(task, { timeoutSeconds: 1800 });
    console.error(fix.answer ?? fix.note);
    console.log(fix.diff ?? "");
    const again = await sandbox.runCommand(test, options);
    console.error(`With the patch the test ${again.isSuccess ? "passes" : "still fails"}.`);
    process.exitCode = 1;
  }
} finally {
  await sandbox.destroy();
}
