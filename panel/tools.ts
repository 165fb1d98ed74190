/** Calls of the server's tools through MCP, as every client makes them. */
import { ERROR_META } from "../src/shared/apps.ts";
import type { ErrorCode } from "../src/shared/errors.ts";
import { messageOf } from "../src/shared/text.ts";
import { type Block, type Form, host } from "./host.ts";
import { Value } from "./value.ts";

/** The session has ended, or there was none. */
export class SignedOut extends Error {}

/** A call was refused because nobody is signed in. The page then offers to sign in. */
export const isSignedOut = new Value(false);

/** The server is unreachable or busy: the same call may succeed later. */
export class Unreachable extends Error {}

/** The codes of errors after which the same call may succeed. */
const TEMPORARY = new Set<ErrorCode>([
  "quota_exceeded",
  "no_answer",
  "connection_lost",
  "sandbox_restarted",
  "sandbox_unavailable",
  "storage_unavailable",
]);

/** A tool failed, or the server refused the call. The message is for people. */
export class ToolFailed extends Error {
  /** The tool error's code; undefined for a refusal, and if a client drops results' metadata. */
  readonly code: ErrorCode | undefined;

  constructor(message: string, code?: ErrorCode) {
    super(message);
    this.code = code;
  }

  get isTemporary(): boolean {
    return this.code !== undefined && TEMPORARY.has(this.code);
  }
}

/** Shows an error's text, unless the page must offer to sign in. */
export function showError(error: unknown, show: (text: string) => void): void {
  if (error instanceof SignedOut) isSignedOut.set(true);
  else show(messageOf(error));
}

export interface ToolResult<Data> {
  data: Data;
  content: Block[];
}

/**
 * Calls a tool. `data` is its structured result, as in the tool's output schema.
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
    // Prefers the message of `_meta`: the content also has a hint for models, which names tools and their arguments.
    const { code, message } = (result._meta?.[ERROR_META] ?? {}) as { code?: ErrorCode; message?: string };
    throw new ToolFailed(message ?? content.map((block) => block.text ?? "").join("\n"), code);
  }
  return { data: structuredContent as Data, content };
}
