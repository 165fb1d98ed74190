/** The endpoint's page for browsers: it introduces the server and shows how to connect clients. It contains no token. */
import { markup } from "../auth/html.ts";
import { oauthFor } from "../auth/oauth.ts";
import { page } from "../auth/page.ts";
import { PANEL_PATH } from "../auth/paths.ts";
import { canRunTasks } from "../shared/config.ts";
import { tokenLocation } from "../auth/owner-token.ts";
import { clientLines, formatted } from "./client-lines.ts";
import { endpointQueryOf, queryOf } from "../shared/endpoint-query.ts";
import { namedOrigin } from "../shared/origin.ts";
import { SANDBOX_NAME_FORM } from "../shared/names.ts";
import type { RequestContext } from "../shared/request-context.ts";

/** Whether a browser requests a page. MCP clients do not accept HTML. */
export function isBrowser(request: Request): boolean {
  return (request.method === "GET" || request.method === "HEAD") && acceptsHTML(request);
}

export function acceptsHTML({ headers }: Request): boolean {
  return /(^|[\s,])text\/html\b/i.test(headers.get("accept") ?? "");
}

export async function landingPage(request: Request, context: RequestContext): Promise<Response> {
  const endpointQuery = endpointQueryOf(new URL(request.url), context.config.tools);
  const query = "problem" in endpointQuery ? "" : queryOf(endpointQuery);
  const url = `${context.config.publicOrigin ?? namedOrigin(request)?.origin}/mcp${query}`;
  const signsIn = !("off" in oauthFor(request, context));
  const lines = clientLines(url, { shell: "<token>", written: "<token>" });
  const body = markup`<h1>Linux sandboxes for MCP clients</h1>
<p>Assistants and agents use this server to run code and commands in Linux sandboxes, ${
    canRunTasks(context.config)
      ? "to keep files there, and to hand whole tasks to a coding agent"
      : "and to keep files there"
  }. ${signsIn && markup`<a href="${PANEL_PATH}">The panel</a> shows your sandboxes. `}Connect a client:</p>
${"problem" in endpointQuery && markup`<p>${endpointQuery.problem} The addresses below leave that part out.</p>\n`}<pre>${url}</pre>
<p>${signsIn && "Clients that sign in by OAuth need only this address. All others send a token: "}${
    signsIn ? "replace" : "Replace"
  } <code>&lt;token&gt;</code> below with it. ${tokenLocation(context.config)}</p>
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
<p>All your chats share the sandbox <code>default</code>. To give a chat or a project its own, add
<code>?sandbox=name</code> to the address. A name has ${SANDBOX_NAME_FORM}.</p>`;
  const response = await page("sandbox-mcp", body);
  // MCP clients get another response from the same URL.
  response.headers.set("vary", "Accept");
  return response;
}
