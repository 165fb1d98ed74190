/** `/panel`: the page itself, which is the same for everybody. It loads its data from `/panel/mcp`. */
import { files, page } from "../../panel/built.js";
import { markup } from "../auth/html.ts";
import { messagePage } from "../auth/consent-page.ts";
import { oauthFor } from "../auth/oauth.ts";
import { htmlDocument, OWN_WINDOW } from "../auth/page.ts";
import { PANEL_ASSETS_PATH, PANEL_PATH } from "../auth/paths.ts";
import { DAY_SECONDS } from "../shared/days.ts";
import { previewSource } from "../shared/preview-url.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { json } from "../shared/responses.ts";
import { NEEDS_SCRIPTS, PANEL_TITLE, panelOff } from "./texts.ts";

/** Allows only the panel's own scripts, styles and addresses, so that a browser never runs text from a sandbox. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  // `data:` is for images of results. The page loads no others.
  "img-src data:",
  "connect-src 'self'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
];

export function panelPage(request: Request, context: RequestContext): Promise<Response> | Response {
  const oauth = oauthFor(request, context);
  if ("off" in oauth) return messagePage(panelOff(oauth.off), { status: 404 });
  const previews = previewSource(context.config, context.origin);
  const policy = [...POLICY, ...(previews ? [`frame-src ${previews}`] : [])];
  return htmlDocument({
    title: PANEL_TITLE,
    head: markup`<link rel="stylesheet" href="${PANEL_ASSETS_PATH}/${page.style}">
<script type="module" src="${PANEL_ASSETS_PATH}/${page.script}"></script>`,
    body: markup`<noscript>${NEEDS_SCRIPTS}</noscript>`,
    policy,
    headers: new Headers(OWN_WINDOW),
  });
}

export function redirectToPanel(): Response {
  return new Response(null, { status: 308, headers: { location: PANEL_PATH } });
}

/** Encoded once, because anybody may request them, and to encode the script took as long as the rest of its request. */
const assets = new Map(Object.entries(files).map(([name, text]) => [name, new TextEncoder().encode(text)]));

/** The assets' names contain a digest, so browsers may cache them. */
export function panelAsset(request: Request): Response {
  const name = new URL(request.url).pathname.slice(PANEL_ASSETS_PATH.length + 1);
  const bytes = assets.get(name);
  if (bytes === undefined) return json({ error: "Not found" }, 404);
  return new Response(bytes, {
    headers: {
      "content-type": `${name.endsWith(".css") ? "text/css" : "text/javascript"}; charset=utf-8`,
      "cache-control": `public, max-age=${365 * DAY_SECONDS}, immutable`,
      "cross-origin-resource-policy": "same-origin",
    },
  });
}
