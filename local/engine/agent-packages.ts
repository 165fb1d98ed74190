/**
 * Installs Claude Code for local sandboxes with npm. It takes 360 MB, so the engine installs it only when a task first needs it.
 */
import { existsSync, linkSync, mkdirSync, renameSync, statSync } from "node:fs";
import { join } from "node:path";
import { repository } from "./own-files.ts";
import { installPackages } from "./packages.ts";
import { AGENT_PROGRAMS, type Toolchain } from "./toolchain.ts";
import { MACHINE } from "./texts.ts";

const AGENT = "claude-code";
const TITLE = "Claude Code";
const PROGRAM = "claude";
const PLACES = AGENT_PROGRAMS[PROGRAM];

export function programsOf(agents: string): string {
  const programs = join(agents, "bin");
  mkdirSync(programs, { recursive: true, mode: 0o755 });
  return programs;
}

/** Installs Claude Code from npm, unless this machine has it. @returns its path; undefined for other agents @throws Error */
export async function prepareAgent(
  agent: string,
  toolchain: Pick<Toolchain, "agents">,
  agents: string,
  print: (line: string) => void,
): Promise<string | undefined> {
  if (agent !== AGENT) return undefined;
  const found = toolchain.agents.find(({ name }) => name === PROGRAM);
  return found?.path ?? (await fetchOnce(agents, print));
}

/**
 * The installations in progress, by directory. The tasks that wait for one share it, also its failure. With a process for each task,
 * 200 tasks that were cancelled at once left 200 processes outside all control groups, for up to 15 minutes each.
 */
const fetching = new Map<string, Promise<string>>();

function fetchOnce(agents: string, print: (line: string) => void): Promise<string> {
  const begun = fetching.get(agents);
  if (begun) return begun;
  const fetched = fetchAgent(agents, print).finally(() => fetching.delete(agents));
  fetching.set(agents, fetched);
  return fetched;
}

async function fetchAgent(agents: string, print: (line: string) => void): Promise<string> {
  const directory = join(agents, AGENT);
  const manifest = join(repository, "local/agents", AGENT);
  await installPackages({ title: TITLE, manifest, directory, oneOf: PLACES }, print);
  const found = PLACES.map((place) => join(directory, "node_modules", place)).find((file) =>
    existsSync(file),
  );
  if (found === undefined) throw new Error(MACHINE.removed(TITLE, directory));
  const link = join(programsOf(agents), PROGRAM);
  if (statSync(link, { throwIfNoEntry: false })?.ino === statSync(found).ino) return link;
  // The program is replaced atomically: another engine may replace it, too, and sandboxes may run the previous version.
  const part = `${link}.${process.pid}`;
  linkSync(found, part);
  renameSync(part, link);
  return link;
}
