/** All tools. A new tool is a file in this folder and a line here. */
import type { Scope } from "../shared/principal.ts";
import { type Tool, scopesOf } from "./define.ts";
import { cancelRun } from "./cancel-run.ts";
import { checkpointSandbox } from "./checkpoint-sandbox.ts";
import { configureSandbox } from "./configure-sandbox.ts";
import { destroySandbox } from "./destroy-sandbox.ts";
import { editFile } from "./edit-file.ts";
import { executeTask } from "./execute-task.ts";
import { exposePort } from "./expose-port.ts";
import { fileLink } from "./file-link.ts";
import { getResult } from "./get-result.ts";
import { listFiles } from "./list-files.ts";
import { listRuns } from "./list-runs.ts";
import { listSandboxes } from "./list-sandboxes.ts";
import { readFile } from "./read-file.ts";
import { restoreSandbox } from "./restore-sandbox.ts";
import { runCode } from "./run-code.ts";
import { runCommand } from "./run-command.ts";
import { sendInput } from "./send-input.ts";
import { writeFile } from "./write-file.ts";

export const tools: readonly Tool[] = [
  runCode,
  runCommand,
  sendInput,
  writeFile,
  editFile,
  readFile,
  listFiles,
  fileLink,
  exposePort,
  executeTask,
  getResult,
  listRuns,
  cancelRun,
  listSandboxes,
  checkpointSandbox,
  restoreSandbox,
  configureSandbox,
  destroySandbox,
];

const byName = new Map<string, Tool>(tools.map((tool) => [tool.name, tool]));

export function requiredScopes(name: string, args: unknown): readonly Scope[] {
  const tool = byName.get(name);
  return tool ? scopesOf(tool, args) : [];
}
