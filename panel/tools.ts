/** The server's tools, as MCP gives them to every client: the panel has no other way to anything. */

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

interface Reply {
  result?: { content?: Block[]; structuredContent?: unknown; isError?: boolean; tools?: { name: string }[] };
  error?: { message?: string };
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
  form?: Form,
): Promise<Answer<Data>> {
  const result = await ask("tools/call", { name, arguments: args }, signal, form);
  const { content = [], structuredContent, isError = false } = result;
  if (isError) throw new ToolFailed(content.map((block) => block.text ?? "").join("\n"));
  return { data: structuredContent as Data, content };
}

/** The names of the tools that may be called. @throws as `callTool` */
export async function listTools(signal?: AbortSignal): Promise<ReadonlySet<string>> {
  const { tools = [] } = await ask("tools/list", {}, signal);
  return new Set(tools.map(({ name }) => name));
}

async function ask(method: string, params: object, signal?: AbortSignal, form: Form = "structured") {
  const message = { jsonrpc: "2.0", id: 1, method, params };
  const response = await post(`/panel/mcp?results=${form}`, JSON.stringify(message), signal);
  const text = await read(response, signal);
  if (response.status === 401) throw new SignedOut();
  if (response.status === 429 || response.status === 503) throw new Unreachable("The server is busy.");
  const result = replyIn(text)?.result;
  if (!result) throw new ToolFailed(messageIn(text) || `The server answered ${response.status}.`);
  return result;
}

/** @throws {Unreachable} */
export async function signOut(): Promise<void> {
  const { ok } = await post("/panel/sign-out", "");
  if (!ok) throw new Unreachable("You are still signed in: the server did not answer. Try again.");
}

async function post(path: string, body: string, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json", accept: "application/json, text/event-stream" };
  try {
    return await fetch(path, { method: "POST", headers, body, signal, credentials: "same-origin" });
  } catch (error) {
    throw lost(error, signal);
  }
}

async function read(response: Response, signal?: AbortSignal): Promise<string> {
  try {
    return await response.text();
  } catch (error) {
    throw lost(error, signal);
  }
}

function lost(error: unknown, signal?: AbortSignal): unknown {
  return signal?.aborted ? error : new Unreachable("The server cannot be reached.");
}

/** The last message of an answer, be it JSON or an event stream. */
function replyIn(text: string): Reply | undefined {
  const events = text.split(/\r?\n/).filter((line) => line.startsWith("data: {"));
  try {
    return JSON.parse(events.at(-1)?.slice("data: ".length) ?? text) as Reply;
  } catch {
    return undefined;
  }
}

/** What a refusal says. */
function messageIn(text: string): string {
  try {
    const { message, error } = JSON.parse(text) as { message?: string; error?: { message?: string } };
    return message ?? error?.message ?? "";
  } catch {
    return "";
  }
}
