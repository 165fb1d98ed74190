/** The names of the tools, and the sets for `TOOLS` and `?tools=`. A tool is in every set that needs it. */

const RUNS = ["get_result", "list_runs", "cancel_run"] as const;

export const TOOL_SETS = {
  code: ["run_code", "run_command", "send_input", "expose_port", ...RUNS],
  files: ["write_file", "edit_file", "read_file", "list_files", "file_link"],
  tasks: ["execute_task", ...RUNS],
  admin: [
    "list_sandboxes",
    "checkpoint_sandbox",
    "restore_sandbox",
    "configure_sandbox",
    "destroy_sandbox",
    "list_runs",
    "cancel_run",
  ],
} as const;

export type ToolName = (typeof TOOL_SETS)[keyof typeof TOOL_SETS][number];

export const TOOL_NAMES: ReadonlySet<ToolName> = new Set(Object.values(TOOL_SETS).flat());

export function chooseTools(words: readonly string[], offered: ReadonlySet<ToolName>): ReadonlySet<ToolName> {
  const sets: Record<string, readonly string[] | undefined> = TOOL_SETS;
  const named = new Set(words.flatMap((word) => (Object.hasOwn(sets, word) && sets[word]) || word));
  return new Set([...offered].filter((tool) => named.has(tool)));
}

/** The problem with a choice of tools, as the end of a sentence; undefined if the choice is valid. */
export function describeWrongChoice(words: readonly string[], offered: ReadonlySet<ToolName>) {
  const sets = Object.entries(TOOL_SETS).filter(([, tools]) => tools.some((tool) => offered.has(tool)));
  const choices: string[] = [...sets.map(([set]) => set), ...offered];
  if (words.length > 0 && words.every((word) => choices.includes(word))) return undefined;
  return `must name tools or sets of them, separated by commas: ${choices.join(", ")}`;
}
