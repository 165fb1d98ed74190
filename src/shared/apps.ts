/** The panel as an MCP App (extension `io.modelcontextprotocol/ui`, 2026-01-26), which clients show next to results. */
import { declaredExtension } from "./extensions.ts";
import { isRecord } from "./is-record.ts";

const APPS_EXTENSION = "io.modelcontextprotocol/ui";

export const APPS_CAPABILITY = { extensions: { [APPS_EXTENSION]: {} } };

export const APP_MIME_TYPE = "text/html;profile=mcp-app";

export const PANEL_URI = "ui://sandbox-mcp/panel";

/**
 * The resource with the names of the tools that the page may call. The page reads it first, because clients do not tell the
 * page these names.
 */
export const PANEL_TOOLS_URI = "ui://sandbox-mcp/tools";

/** The key of the run's id in a result's `_meta`. Clients show `_meta` to the page but not to the model. */
export const RUN_META = "sandbox-mcp/run";

/**
 * The key of an error's data in the result's `_meta`, for clients that request structured results. Structured content cannot
 * have this data, because clients check it against the tool's output schema.
 */
export const ERROR_META = "sandbox-mcp/error";

export function declaresApps(message: unknown): boolean {
  const { mimeTypes } = declaredExtension(message, APPS_EXTENSION) ?? {};
  return Array.isArray(mimeTypes) && mimeTypes.includes(APP_MIME_TYPE);
}

type PanelForm = "structured" | "raw";

/**
 * The argument in which the page sends the value of `?results=`. No tool's schema has it. It is an argument, because clients
 * forward only the tool's name and arguments, and some (VS Code, LibreChat) drop `_meta` keys.
 */
const FORM_ARGUMENT = "_results";

/** Removes `FORM_ARGUMENT` from a call and returns its value; undefined if the page did not make the call. */
export function takePanelForm(message: unknown): PanelForm | undefined {
  if (!isRecord(message) || message.method !== "tools/call" || !isRecord(message.params)) return undefined;
  const { arguments: args } = message.params;
  const form = isRecord(args) ? args[FORM_ARGUMENT] : undefined;
  if (!isRecord(args) || (form !== "structured" && form !== "raw")) return undefined;
  delete args[FORM_ARGUMENT];
  return form;
}
