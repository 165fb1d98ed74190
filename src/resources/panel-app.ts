/** The panel as a resource for clients with MCP Apps: one page, whose calls have the token's scopes. */
import { APP_MIME_TYPE, PANEL_TOOLS_URI, PANEL_URI } from "../shared/apps.ts";
import { previewSource } from "../shared/preview-url.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { isListed } from "../tools/define.ts";
import { tools } from "../tools/index.ts";

type PanelMeta = { ui: { csp?: { frameDomains: string[] }; prefersBorder: boolean } };

type PanelAddress = typeof PANEL_URI | typeof PANEL_TOOLS_URI;

export function isPanelAddress(uri: string): uri is PanelAddress {
  return uri === PANEL_URI || uri === PANEL_TOOLS_URI;
}

export async function readPanel(
  caller: CallerContext,
  uri: PanelAddress,
): Promise<{ mimeType: string; text: string; _meta?: PanelMeta }> {
  if (uri === PANEL_TOOLS_URI) {
    const names = tools.filter((tool) => isListed(tool, caller)).map(({ name }) => name);
    return { mimeType: "application/json", text: JSON.stringify(names) };
  }
  // Imported here, because no other resource needs the page.
  const { files, page } = await import("../../panel/built.js");
  const previews = previewSource(caller.config, caller.origin);
  const csp = previews === undefined ? undefined : { frameDomains: [previews] };
  return {
    mimeType: APP_MIME_TYPE,
    text: documentOf(files[page.script], files[page.style]),
    _meta: { ui: { csp, prefersBorder: true } },
  };
}

/** One document, because clients show it in a frame that loads nothing. esbuild escapes `</script` and `</style`. */
function documentOf(script: string | undefined, style: string | undefined): string {
  return `<!doctype html>
<html lang="en" data-display="inline">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Sandboxes</title>
<style>${style}</style>
</head>
<body><script>${script}</script></body>
</html>
`;
}
