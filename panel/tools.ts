/** The server's tools, as MCP gives them to every client: the panel has no other way to anything. */
import { host } from "./host.ts";

/** The session is over, or there was none. */
export class SignedOut extends Error {}

/** The server could not be reached, or asks to be left alone for a while: the same call may succeed later. */
export class Unreachable extends Error {}

/** A tool reported an error, or the server refused the call. The message is for people. */
export class ToolFailed extends Error {}

/** A block of a result's content. */
export interface Block {
  type: string;
  text?: string;
  data?: string;
  mimeType?: string;
}

export interface Answer<Data> {
  data: Data;
  content: Block[];
}

/** In what form results are asked for: `raw` has what a terminal printed as it is. */
export type Form = "structured" | "raw";

/**
 * Calls a tool. `data` is its structured result, in the form of the tool's output schema.
 * @throws {SignedOut} {@link Unreachable} {@link ToolFailed}
 */
export async function callTool<Data>(
  name: string,
  args: Record<string, unknown> = {},
  signal?: AbortSignal,
  form: Form = "structured",
): Promise<Answer<Data>> {
  const result = await host().callTool(name, args, form, signal);
  const { content = [], structuredContent, isError = false } = result;
  if (isError) throw new ToolFailed(content.map((block) => block.text ?? "").join("\n"));
  return { data: structuredContent as Data, content };
}
