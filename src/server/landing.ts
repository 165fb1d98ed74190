/** The page for people who open the endpoint in a browser: what the server is and how to connect clients. It shows no token. */
import { markup } from "../auth/html.ts";
import { oauthFor } from "../auth/oauth.ts";
import { page } from "../auth/page.ts";
import { PANEL_PATH } from "../auth/paths.ts";
import { canRunTasks } from "../shared/config.ts";
import { whereTheTokenIs } from "../auth/owner-token.ts";
import { clientLines, formatted } from "./client-lines.ts";
import { endpointQueryOf, queryOf } from "../shared/endpoint-query.ts";
import { namedOrigin } from "../shared/origin.ts";
import type { RequestContext } from "../shared/request-context.ts";

/** Whether a browser asks for a page. No MCP client accepts HTML. */
export function isBrowser(request: Request): boolean {
  return (request.method === "GET" || request.method === "HEAD") && acceptsHTML(request);
}

/** Whether the answer is shown to a person, as that to a form is too. */
export function acceptsHTML({ headers }: Request): boolean {
  return /(^|[\s,])text\/html\b/i.test(headers.get("accept") ?? "");
}

export async function landingPage(request: Request, context: RequestContext): Promise<Response> {
  const asked = endpointQueryOf(new URL(request.url), context.config.tools);
  const query = "problem" in asked ? "" : queryOf(asked);
  const url = `${context.config.publicOrigin ?? namedOrigin(request)?.origin}/mcp${query}`;
  const signsIn = !("off" in oauthFor(request, context));
  const lines = clientLines(url, { shell: "<token>", written: "<token>" });
  const body = markup`<h1>A server of sandboxes for MCP clients</h1>
<p>sandbox-mcp gives assistants and agents Linux sandboxes of their own: to run code and commands, ${
    canRunTasks(context.config)
      ? "to keep files, and to hand whole tasks to a coding agent"
      : "and to keep files"
  }. ${signsIn ? markup`<a href="${PANEL_PATH}">The panel</a> shows them. Connect a client:` : "Connect a client to it:"}</p>
${"problem" in asked && markup`<p>${asked.problem} Clients cannot use it; below it is left out.</p>\n`}<pre>${url}</pre>
<p>Clients send a token, which stands for <code>&lt;token&gt;</code> below. ${whereTheTokenIs(context.config)}${
    signsIn && " Clients that sign in by OAuth need the address alone: they bring you to a page here."
  }</p>
${lines.map(
  ({
    client,
    file,
    text,
    link,
  }) => markup`<h2>${client}${file && markup` <span class="soft">${file}</span>`}</h2>
<pre>${formatted({ client, text, ...(file && { file }) })}</pre>
${signsIn && link && markup`<p><a href="${link}">Add to ${client}</a> signs in without a token.</p>\n`}`,
)}
<p>All chats of yours share the sandbox <code>default</code>. One of its own for a chat or a project: put
<code>?sandbox=name</code> behind the address, with a name of 1 to 20 of a-z, 0-9 and -.</p>`;
  const response = await page("sandbox-mcp", body);
  // MCP clients get another response at the same URL.
  response.headers.set("vary", "Accept");
  return response;
}
