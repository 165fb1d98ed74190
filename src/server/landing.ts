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
import { DEFAULT_SANDBOX } from "../shared/names.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { LANDING_TEXTS as texts } from "./texts.ts";

/** Whether a browser requests a page. MCP clients do not accept HTML. */
export function isBrowser(request: Request): boolean {
  return isRead(request) && acceptsHTML(request);
}

/** Whether a program such as curl or a monitor reads whatever is there. MCP clients accept only JSON and event streams. */
export function acceptsAnything(request: Request): boolean {
  return isRead(request) && (request.headers.get("accept") ?? "*/*") === "*/*";
}

function isRead({ method }: Request): boolean {
  return method === "GET" || method === "HEAD";
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
  const panel = texts.aboutPanel(markup`<a href="${PANEL_PATH}">${texts.panel}</a>`);
  const placeholder = markup`<code>&lt;token&gt;</code>`;
  const shared = markup`<code>${DEFAULT_SANDBOX}</code>`;
  const body = markup`<h1>${texts.title}</h1>
${"problem" in endpointQuery && markup`<p>${texts.wrongQuery(endpointQuery.problem)}</p>\n`}<p>${texts.about({ hasTasks: canRunTasks(context.config) })} ${signsIn && [panel, " "]}${texts.connect}</p>
<pre>${url}</pre>
<p>${signsIn ? texts.oauthOrToken(placeholder) : texts.token(placeholder)} ${tokenLocation(context.config)}</p>
${lines.map(
  (line) => markup`<h2>${line.client}${line.file && markup` <span class="soft">${line.file}</span>`}</h2>
<pre>${formatted(line)}</pre>
${signsIn && line.link && markup`<p>${texts.addedByOAuth(markup`<a href="${line.link}">${texts.add(line.client)}</a>`)}</p>\n`}`,
)}
<p>${texts.sandboxes(shared, markup`<code>?sandbox=name</code>`)}</p>`;
  const response = await page("sandbox-mcp", body);
  // MCP clients get another response from the same URL.
  response.headers.set("vary", "Accept");
  return response;
}
