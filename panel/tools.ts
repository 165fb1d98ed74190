/** The server's tools, as MCP gives them to every client: the panel has no other way to anything. */
import { ERROR_META } from "../src/shared/apps.ts";
import type { ErrorCode } from "../src/shared/errors.ts";
import { type Block, type Form, host } from "./host.ts";

/** The session is over, or there was none. */
export class SignedOut extends Error {}

/** The server could not be reached, or asks to be left alone for a while: the same call may succeed later. */
export class Unreachable extends Error {}

/** A tool reported an error, or the server refused the call. The message is for people. */
export class ToolFailed extends Error {
  /** What kind of error a tool reported; undefined for a refusal, and where a client leaves out what goes with results. */
  readonly code: ErrorCode | undefined;

  constructor(message: string, code?: ErrorCode) {
    super(message);
    this.code = code;
  }
}

export interface ToolResult<Data> {
  data: Data;
  content: Block[];
}

/**
 * Calls a tool. `data` is its structured result, in the form of the tool's output schema.
 * @throws {SignedOut} {@link Unreachable} {@link ToolFailed}
 */
export async function callTool<Data>(
  name: string,
  args: Record<string, unknown> = {},
  signal?: AbortSignal,
  form: Form = "structured",
): Promise<ToolResult<Data>> {
  const result = await host().callTool(name, args, form, signal);
  const { content = [], structuredContent, isError = false } = result;
  if (isError) {
    // The text has a hint besides, which is for models: it names tools and their arguments.
    const { code, message } = (result._meta?.[ERROR_META] ?? {}) as { code?: ErrorCode; message?: string };
    throw new ToolFailed(message ?? content.map((block) => block.text ?? "").join("\n"), code);
  }
  return { data: structuredContent as Data, content };
}
