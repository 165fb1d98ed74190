/** Tool calls to a server on loopback, with the owner's token unless another is given. */
import { MCPClient, type Result } from "./mcp-client.ts";
import { TOKEN } from "./server.ts";

interface ToolOptions {
  token?: string;
  signal?: AbortSignal;
}

export function tool(
  url: string,
  name: string,
  args: Record<string, unknown>,
  { token = TOKEN, signal }: ToolOptions = {},
): Promise<Result> {
  return new MCPClient(url, token).call(name, args, { signal });
}

/** Calls a tool and returns the text of its result. @throws Error if the result is an error */
export async function callTool(
  url: string,
  name: string,
  args: Record<string, unknown>,
  token?: string,
): Promise<string> {
  const { status, isError, text } = await tool(url, name, args, { token });
  if (isError) throw new Error(`${name}: ${status} ${text}`);
  return text;
}
