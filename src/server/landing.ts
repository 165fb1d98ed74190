/** What a person sees who opens the endpoint in a browser: what this is, and how clients connect to it. No token is on it. */
import { markup } from "../auth/html.ts";
import { oauthFor } from "../auth/oauth.ts";
import { page } from "../auth/page.ts";
import { clientLines } from "./client-lines.ts";
import { namedOrigin } from "./origin.ts";
import type { Visit } from "./visit.ts";

/** Whether a browser asks to show something. No MCP client accepts HTML. */
export function isBrowser({ method, headers }: Request): boolean {
  return (
    (method === "GET" || method === "HEAD") && /(^|[\s,])text\/html\b/i.test(headers.get("accept") ?? "")
  );
}

export async function landingPage(request: Request, visit: Visit): Promise<Response> {
  const url = `${visit.config.publicOrigin ?? namedOrigin(request)?.origin}/mcp`;
  const signsIn = !("off" in oauthFor(request, visit));
  const lines = clientLines(url, { shell: "<token>", written: "<token>" });
  const body = markup`<h1>A server of sandboxes for MCP clients</h1>
<p>sandbox-mcp gives assistants and agents Linux sandboxes of their own: to run code and commands, to keep files, and to hand
whole tasks to a coding agent. It has no pages to work with. Connect a client to it:</p>
<pre>${url}</pre>
<p>Clients send a token, which stands for <code>&lt;token&gt;</code> below: <code>npm run token</code> in the server's
directory prints it, and on Cloudflare it is the secret SERVER_AUTH_TOKEN.${
    signsIn && " Clients that sign in by OAuth need the address alone: they bring you to a page here."
  }</p>
${lines.map(({ client, file, text }) => markup`<h2>${client}${file && markup` <span class="soft">${file}</span>`}</h2>\n<pre>${text}</pre>\n`)}
<p>All chats of yours share the sandbox <code>default</code>. One of its own for a chat or a project: put
<code>?sandbox=NAME</code> behind the address.</p>`;
  const response = await page("sandbox-mcp", body);
  // What clients get at this address is something else.
  response.headers.set("vary", "Accept");
  return response;
}
