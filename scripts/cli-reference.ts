/** Generates docs/reference/cli.md from the commands' definitions, for `npm run docs`. */
import type { Option } from "@commander-js/extra-typings";
import { examplesOf } from "../cli/define-command.ts";
import { leafCommands } from "../cli/command-tree.ts";

/** Options of all server commands, documented once. */
const COMMON = new Set(["--json", "--url", "--token", "--state-dir"]);

export function commandReference(): string {
  return leafCommands()
    .map(([name, command]) => {
      const words = command.registeredArguments.map((each) =>
        each.required ? `<${each.name()}>` : `[${each.name()}]`,
      );
      const args = command.registeredArguments.map((each) =>
        row(each.name(), each.description, each.defaultValue),
      );
      const options = command.options
        .filter(({ long, hidden }) => long && !hidden && !COMMON.has(long))
        .map((each) => row(each.flags, describeOption(each), each.defaultValue));
      const rows = [...args, ...options];
      return [
        `### \`${[name, ...words].join(" ")}\``,
        `${toSentence(command.description())}`,
        rows.length > 0 ? `| | | default |\n| --- | --- | --- |\n${rows.join("\n")}` : "",
        `\`\`\`sh\n${examplesOf(command).join("\n")}\n\`\`\``,
      ]
        .filter(Boolean)
        .join("\n\n");
    })
    .join("\n\n");
}

function describeOption({ description, argChoices }: Option): string {
  return argChoices ? `${description} (one of ${argChoices.join(", ")})` : description;
}

function row(name: string, description: string, value: unknown): string {
  const isShown = value !== undefined && value !== false && JSON.stringify(value) !== "{}";
  const cell = isShown ? `\`${typeof value === "string" ? value : JSON.stringify(value)}\`` : "";
  return `| \`${name}\` | ${description.replaceAll("|", "\\|")} | ${cell} |`;
}

function toSentence(text: string): string {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
