/** The packages that tests need beside those of `npm ci`: every suite installs them first, once. */
import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { prepareAgent } from "../../local/engine/agent-packages.ts";
import { installClients } from "../clients/install.ts";
import { AGENTS } from "./claude-code.ts";

/** @throws Error with the reason, and what to do */
export async function installForTests(): Promise<void> {
  // The state directory of a server in this clone, which keeps others out of it.
  mkdirSync(dirname(AGENTS), { recursive: true, mode: 0o700 });
  const say = (line: string) => void process.stderr.write(`${line}\n`);
  await installClients(say);
  // The pinned one, whichever is on the PATH.
  await prepareAgent("claude-code", { agents: [] }, AGENTS, say);
}
