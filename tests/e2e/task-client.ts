/** A client for tests of tasks. */
import { MCPClient, type Result } from "../setup/mcp-client.ts";
import { TOKEN } from "../setup/server.ts";

interface TaskFields {
  id: string;
  state: string;
  success: boolean;
  answer?: string;
  note?: string;
  files?: { path: string; change: string; size: number }[];
  diff?: string;
  artifacts: { path: string; size: number }[];
  turns?: number;
  tokens?: { input: number; output: number };
  cost_usd?: number;
  session_id?: string;
  [key: string]: unknown;
}

export class TaskClient {
  readonly #client: MCPClient;

  constructor(url: string) {
    this.#client = new MCPClient(url, TOKEN);
  }

  /**
   * Calls a tool with a progress token. `fields` is the structured content. A task for which the caller sets no `wait_seconds` is
   * followed until it ends: on a busy machine, the agent takes longer than one call waits.
   */
  async call(
    name: string,
    args: Record<string, unknown>,
    meta?: Record<string, string>,
  ): Promise<Result & { fields: TaskFields }> {
    let result = await this.#client.call(name, args, { progressToken: name, meta });
    while (name === "execute_task" && !("wait_seconds" in args) && result.structured.state === "running")
      result = await this.#client.call("get_result", { id: result.structured.id });
    return { ...result, fields: result.structured as TaskFields };
  }

  /** Runs a command and returns its stdout. @throws Error if the command fails */
  async sh(sandbox: string, command: string): Promise<string> {
    const { fields, text } = await this.call("run_command", { sandbox, command });
    if (fields.state !== "succeeded") throw new Error(`${command}: ${text}`);
    return String(fields.stdout);
  }
}
