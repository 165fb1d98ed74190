/**
 * The panel as an MCP App (the extension `io.modelcontextprotocol/ui`, version 2026-01-26): clients show the page beside the
 * results of the tools that link it, and pass its calls on.
 */
import { declaredExtension } from "./extensions.ts";
import { isRecord } from "./is-record.ts";

export const APPS_EXTENSION = "io.modelcontextprotocol/ui";

export const APPS_CAPABILITY = { extensions: { [APPS_EXTENSION]: {} } };

export const APP_MIME_TYPE = "text/html;profile=mcp-app";

/** The address of the page. */
export const PANEL_URI = "ui://sandbox-mcp/panel";

/** The address of what the page has to know first: the names of the tools that it may call, which no client passes on. */
export const PANEL_TOOLS_URI = "ui://sandbox-mcp/tools";

/** In the `_meta` of a result, which clients show to the page and not to the model: the id of the run that it is of. */
export const RUN_META = "sandbox-mcp/run";

/**
 * In the `_meta` of an error, where data was asked for: its `code`, `message` and `hint`, which names the next tool to call.
 * It is not structured content, which clients check against the schema of the tool's output.
 */
export const ERROR_META = "sandbox-mcp/error";

/** Whether a request says that its client shows Apps. */
export function declaresApps(message: unknown): boolean {
  const { mimeTypes } = declaredExtension(message, APPS_EXTENSION) ?? {};
  return Array.isArray(mimeTypes) && mimeTypes.includes(APP_MIME_TYPE);
}

/** In what form a call wants its result; those of `?results=`. */
export type PanelForm = "structured" | "raw";

/**
 * An argument of a call that the page makes, in no schema: what `?results=` says for an address. Clients pass a call on as its
 * tool and arguments, at the address that they are connected to. A key of `_meta` in its place does not reach the server from
 * all: VS Code and LibreChat leave it out.
 */
const FORM_ARGUMENT = "_results";

/** Takes the argument out of a message. @returns undefined for a message that is no call of the page's */
export function takePanelForm(message: unknown): PanelForm | undefined {
  if (!isRecord(message) || message.method !== "tools/call" || !isRecord(message.params)) return undefined;
  const { arguments: args } = message.params;
  const form = isRecord(args) ? args[FORM_ARGUMENT] : undefined;
  if (!isRecord(args) || (form !== "structured" && form !== "raw")) return undefined;
  delete args[FORM_ARGUMENT];
  return form;
}
