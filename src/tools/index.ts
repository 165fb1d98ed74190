/** Every tool there is. A new one is a file beside this and a line here. */
import type { Scope } from "../auth/principal.ts";
import type { Tool } from "./define.ts";
import { cancelRun } from "./cancel-run.ts";
import { destroySandbox } from "./destroy-sandbox.ts";
import { getResult } from "./get-result.ts";
import { listFiles } from "./list-files.ts";
import { listRuns } from "./list-runs.ts";
import { listSandboxes } from "./list-sandboxes.ts";
import { readFile } from "./read-file.ts";
import { runCode } from "./run-code.ts";
import { runCommand } from "./run-command.ts";
import { writeFile } from "./write-file.ts";

export const tools: readonly Tool[] = [
  runCode,
  runCommand,
  writeFile,
  readFile,
  listFiles,
  getResult,
  listRuns,
  cancelRun,
  listSandboxes,
  destroySandbox,
];

const byName = new Map(tools.map((tool) => [tool.name, tool]));

/** The scopes a call of this tool needs; none for a tool that does not exist. */
export function requiredScopes(name: string): readonly Scope[] {
  return byName.get(name)?.scopes ?? [];
}
