/** All tools. A new tool is a file in this folder, its name in `tool-sets.ts` and a line here. */
import type { Scope } from "../shared/principal.ts";
import type { ToolName } from "../shared/tool-sets.ts";
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

/** Clients list the tools in this order. */
const TOOLS: { [Name in ToolName]: Tool<Name> } = {
  run_code: runCode,
  run_command: runCommand,
  send_input: sendInput,
  write_file: writeFile,
  edit_file: editFile,
  read_file: readFile,
  list_files: listFiles,
  file_link: fileLink,
  expose_port: exposePort,
  execute_task: executeTask,
  get_result: getResult,
  list_runs: listRuns,
  cancel_run: cancelRun,
  list_sandboxes: listSandboxes,
  checkpoint_sandbox: checkpointSandbox,
  restore_sandbox: restoreSandbox,
  configure_sandbox: configureSandbox,
  destroy_sandbox: destroySandbox,
};

export const tools: readonly Tool[] = Object.values(TOOLS);

export function requiredScopes(name: string, args: unknown): readonly Scope[] {
  const tool = tools.find((candidate) => candidate.name === name);
  return tool ? scopesOf(tool, args) : [];
}
