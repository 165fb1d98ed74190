/** The command line of `container/task.sh` for a task, and the directory for the task's clone. */
import { quote } from "../shared/text.ts";
import { noRepositoryName } from "./texts.ts";

/** The session of tasks. Callers cannot use this name. */
export const TASK_SESSION = "_task";

/** @param agent the agent's program and arguments @param wanted definitions of subagents and slash commands, as `<kind>/<name>` */
export function taskCommand(
  id: string,
  { directory, repository, branch }: { directory: string; repository?: string; branch?: string },
  agent: readonly string[],
  wanted: readonly string[] = [],
): string {
  const args = ["run", id, directory, repository ?? "", branch ?? "", wanted.join(" "), ...agent];
  return ["bash /opt/sandbox-mcp/task.sh", ...args.map(quote)].join(" ");
}

/** The directory below /workspace with the repository's name. @throws {ToolError} for a URL without a name */
export function cloneDirectory(repository: string): string {
  const name = repository
    .replace(/[?#].*$/, "")
    .replace(/\/+$/, "")
    .replace(/\/?\.git$/, "")
    .split(/[/:]/)
    .at(-1);
  const clean = name?.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[.-]+/, "");
  if (clean) return `/workspace/${clean}`;
  throw noRepositoryName(repository);
}
