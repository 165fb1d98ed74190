/** One tool call that has to succeed, for tests that are not about clients. */
import { tool } from "../setup/tool.ts";

/** Calls a tool of the server at `url` and returns what it answered as text. @throws Error when it reports an error */
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
