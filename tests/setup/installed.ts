/** Installs the packages that tests need and `npm ci` does not install. vitest's configuration and `npm test` call this first. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { prepareAgent } from "../../local/engine/agent-packages.ts";
import { installClients } from "../clients/install.ts";
import { AGENTS } from "./claude-code.ts";

/** @throws Error with the reason and what to do */
export async function installForTests(): Promise<void> {
  // Reserves the state directory of this clone's server, so that no other process installs at the same time.
  mkdirSync(dirname(AGENTS), { recursive: true, mode: 0o700 });
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  await installClients(say);
  // Installs Claude Code from npm, even if PATH has another.
  await prepareAgent("claude-code", { agents: [] }, AGENTS, say);
}
