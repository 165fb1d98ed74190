/**
 * Git work without a credential: clones a repository, replaces text in one file, commits, and prints the commit as a patch.
 * In your own project, import from "sandbox-mcp/client".
 *   node git-patch.ts https://github.com/owner/project README.md 'teh' 'the' > fix.patch
 */
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const [repository = "", file = "", oldText = "", newText = ""] = process.argv.slice(2);

const sandbox = connect({ url, token }).sandbox("git-example");
const shell = sandbox.session("git");

/** @throws Error when the command fails */
async function run(command: string): Promise<string> {
  // Arguments are variables, so that the shell reads no code in them.
  const env = { REPOSITORY: repository, MESSAGE: `Replace ${oldText} in ${file}` };
  const { isSuccess, stdout, stderr } = await shell.runCommand(command, { env, timeoutSeconds: 600 });
  if (!isSuccess) throw new Error(`${command}: ${stderr}`);
  return stdout;
}

try {
  // The session stays in the directory of the clone.
  await run('git clone -q --depth 1 -- "$REPOSITORY" source && cd source');
  await sandbox.files.edit(`source/${file}`, [{ oldText, newText, all: true }]);
  await run('git commit -qam "$MESSAGE"');
  process.stdout.write(await run("git format-patch -1 --stdout"));
} finally {
  await sandbox.destroy();
}
