/** The coding agents that `npm start` fetches for local sandboxes. */
import { join } from "node:path";
import { prepareAgent } from "../local/engine/agent-packages.ts";
import { findToolchain } from "../local/engine/toolchain.ts";
import { makeDirectories } from "./make-directories.ts";
import { defaultStateDir } from "./program-files.ts";
import { agentNotReady, agentReady } from "./texts.ts";

/**
 * The directory of agents. All servers of a clone or user share it, because agents are large. If it is not writable, the
 * server's own directory is used.
 */
export function agentsDirectory(env: Readonly<Record<string, string | undefined>>, stateDir: string): string {
  const shared = join(defaultStateDir(env), "agents");
  try {
    makeDirectories(shared, 0o755);
    return shared;
  } catch {
    return join(stateDir, "agents");
  }
}

/** @throws {UserError} that says what to do */
export async function fetchAgents(agents: string, print: (line: string) => void): Promise<void> {
  try {
    const program = await prepareAgent("claude-code", await findToolchain(null), agents, print);
    print(agentReady(program));
  } catch (error) {
    throw agentNotReady(error);
  }
}
