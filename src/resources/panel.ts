/** The panel as a resource, for clients that show MCP Apps. The page is the same for everybody; its calls have the token's scopes. */
import { APP_MIME_TYPE, PANEL_TOOLS_URI, PANEL_URI } from "../shared/apps.ts";
import { previewSource } from "../shared/preview-url.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { isListed } from "../tools/define.ts";
import { tools } from "../tools/index.ts";

/** What a client has to let the page do, beside running its own script and style: show previews. */
type PanelMeta = {
  ui: { csp?: { frameDomains: string[] }; prefersBorder: boolean };
};

/** What is at an address of the panel's; undefined at any other. */
export async function readPanel(
  caller: CallerContext,
  uri: string,
): Promise<{ mimeType: string; text: string; _meta?: PanelMeta } | undefined> {
  if (uri === PANEL_TOOLS_URI) {
    const names = tools.filter((tool) => isListed(tool, caller)).map(({ name }) => name);
    return { mimeType: "application/json", text: JSON.stringify(names) };
  }
  if (uri !== PANEL_URI) return undefined;
  // It is built with the Worker, and nothing else needs it.
  const { app } = await import("../../panel/built.js");
  const previews = previewSource(caller.config, caller.origin);
  const csp = previews === undefined ? undefined : { frameDomains: [previews] };
  return { mimeType: APP_MIME_TYPE, text: app, _meta: { ui: { csp, prefersBorder: true } } };
}
