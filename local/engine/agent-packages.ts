/**
 * The coding agents that npm installs for local sandboxes when a task first needs them. They are large: Claude Code has 360 MB.
 */
import { existsSync, linkSync, mkdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { repository } from "./own-files.ts";
import { installPackages } from "./packages.ts";
import type { Toolchain } from "./toolchain.ts";
import { MACHINE } from "./texts.ts";

const FETCHED = {
  "claude-code": {
    title: "Claude Code",
    program: "claude",
    places: ["", "-musl"].map(
      (variant) => `@anthropic-ai/claude-code-linux-${process.arch}${variant}/claude`,
    ),
  },
} as const;

export function programsOf(agents: string): string {
  const programs = join(agents, "bin");
  mkdirSync(programs, { recursive: true, mode: 0o755 });
  return programs;
}

/** Installs an agent from npm, unless this machine has it. @returns its program's path @throws Error with the reason */
export async function prepareAgent(
  agent: string,
  toolchain: Pick<Toolchain, "agents">,
  agents: string,
  print: (line: string) => void,
): Promise<string | undefined> {
  if (!isFetched(agent)) return undefined;
  const found = toolchain.agents.find(({ name }) => name === FETCHED[agent].program);
  return found?.path ?? (await fetchAgent(agent, agents, print));
}

function isFetched(agent: string): agent is keyof typeof FETCHED {
  return Object.hasOwn(FETCHED, agent);
}

async function fetchAgent(
  agent: keyof typeof FETCHED,
  agents: string,
  print: (line: string) => void,
): Promise<string> {
  const { title, program, places } = FETCHED[agent];
  const set = {
    title,
    manifest: join(repository, "local/agents", agent),
    directory: join(agents, agent),
    oneOf: places,
  };
  await installPackages(set, print);
  const found = places
    .map((place) => join(set.directory, "node_modules", place))
    .find((file) => existsSync(file));
  if (found === undefined) throw new Error(MACHINE.removed(title, set.directory));
  const link = join(programsOf(agents), program);
  if (statSync(link, { throwIfNoEntry: false })?.ino === statSync(found).ino) return link;
  // The program is replaced atomically: another engine may replace it, too, and sandboxes may run the previous version.
  const part = `${link}.${process.pid}`;
  linkSync(found, part);
  renameSync(part, link);
  return link;
}
