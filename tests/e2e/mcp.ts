/** One tool call over plain HTTP, for tests that are not about clients. */
import { TOKEN } from "../setup/server.ts";

/** Calls a tool of the server at `url` and returns what it answered as text. @throws Error when it reports an error */
export async function callTool(
  url: string,
  name: string,
  args: Record<string, unknown>,
  token = TOKEN,
): Promise<string> {
  const response = await fetch(url, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } }),
  });
  const body = await response.text();
  const data = /^data: (.*)$/m.exec(body)?.[1] ?? body;
  const { result }: { result?: { content: { text?: string }[]; isError?: boolean } } = JSON.parse(data);
  const text = result?.content.map((block) => block.text ?? "").join("\n");
  if (text === undefined || result?.isError) throw new Error(`${name}: ${response.status} ${body}`);
  return text;
}
