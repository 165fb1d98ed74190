import { join } from "node:path";
import { runFile } from "../../local/engine/host-programs.ts";
import { repository } from "./server.ts";

/** The directory of a clone in which servers install agents. */
export const AGENTS = join(repository, ".sandbox-mcp/agents");

export const CLAUDE_CODE = join(AGENTS, "bin/claude");

/** The environment of Claude Code. `modelURL` is the address of its model; no server responds at the default address. */
export function claudeEnvironment(home: string, modelURL = "http://127.0.0.1:9"): NodeJS.ProcessEnv {
  return {
    PATH: process.env.PATH,
    HOME: home,
    CLAUDE_CONFIG_DIR: join(home, "claude"),
    ANTHROPIC_API_KEY: "sk-ant-test-not-a-key",
    ANTHROPIC_BASE_URL: modelURL,
    CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
    DISABLE_AUTOUPDATER: "1",
    MCP_CONNECTION_NONBLOCKING: "0",
    ENABLE_TOOL_SEARCH: "false",
  };
}

/** Runs Claude Code to its end and returns its output. @throws Error if it fails */
export async function runClaudeCode(home: string, args: string[], modelURL?: string): Promise<string> {
  const options = { env: claudeEnvironment(home, modelURL), cwd: home, timeout: 170_000 };
  const running = runFile(CLAUDE_CODE, args, options);
  running.child.stdin?.end();
  return (await running).stdout;
}
