/**
 * A workspace for each user. It starts as a fork of a template. If a command fails, the workspace is restored.
 * In your own project, import from "sandbox-mcp/client".
 *   node user-workspace.ts alice@example.com 'echo "buy milk" >> notes/todo.txt'
 */
import { createHash } from "node:crypto";
import { connect } from "../client/index.ts";

const { SANDBOX_MCP_URL: url = "http://127.0.0.1:8787/mcp", SANDBOX_MCP_TOKEN: token = "" } = process.env;
const [user = "alice@example.com", command = "ls -R"] = process.argv.slice(2);

const server = connect({ url, token });

/** The checkpoint that new workspaces start from. Checkpoints expire, so it is made again when it is missing. */
async function templateCheckpoint(): Promise<string> {
  const { checkpoints } = await server.list();
  const kept = checkpoints.find(({ sandbox }) => sandbox === "template");
  if (kept) return kept.id;
  const template = server.sandbox("template");
  await template.files.write("notes/todo.txt", "read the manual\n");
  return (await template.checkpoint("for new users")).checkpoint;
}

// A hash is a valid name for a sandbox, and no two users get the same one.
const hash = createHash("sha256").update(user).digest("hex");
const workspace = server.sandbox(`user-${hash.slice(0, 15)}`);
const { sandboxes } = await server.list();
const exists = sandboxes.some(({ name }) => name === workspace.name);
if (!exists) await workspace.restore(await templateCheckpoint());

const { checkpoint } = await workspace.checkpoint("before the command");
const { isSuccess } = await workspace.runCommand(command, {
  onOutput: ({ stream, text }) => process[stream].write(text),
});
if (!isSuccess) {
  // The state that the command left becomes a checkpoint too.
  const { before } = await workspace.restore(checkpoint);
  if (before !== undefined) await workspace.deleteCheckpoint(before);
  process.exitCode = 1;
}
await workspace.deleteCheckpoint(checkpoint);
