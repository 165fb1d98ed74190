/** Installs Claude Code for the tests. vitest's configuration and `npm test` call this first. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { prepareAgent } from "../../local/engine/agent-packages.ts";
import { AGENTS } from "./claude-code.ts";

/** Installs it from npm, even if PATH has another. @throws Error with the reason and what to do */
export async function installClaudeCode(): Promise<void> {
  // Reserves the state directory of this clone's server, so that no other process installs at the same time.
  mkdirSync(dirname(AGENTS), { recursive: true, mode: 0o700 });
  await prepareAgent("claude-code", { agents: [] }, AGENTS, (line) => void process.stderr.write(`${line}\n`));
}
