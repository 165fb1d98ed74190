/** Extensions of MCP that clients declare. From revision 2026-07-28 on every request does; before, a connection's first alone. */
import { isRecord } from "./is-record.ts";

const CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";

/** What a request's own `_meta`, or `initialize`, declares of an extension; undefined when it does not. */
export function declaredExtension(message: unknown, extension: string): Record<string, unknown> | undefined {
  const extensions = capabilitiesOf(message)?.extensions;
  const declared = isRecord(extensions) ? extensions[extension] : undefined;
  return isRecord(declared) ? declared : undefined;
}

/** Whether a client opens addresses for its user when the server asks it to (elicitation in the mode `url`). */
export function declaresURLElicitation(message: unknown): boolean {
  const elicitation = capabilitiesOf(message)?.elicitation;
  return isRecord(elicitation) && isRecord(elicitation.url);
}

/** The id of a session, and what a client has declared that was given it. It is all that this server remembers of a session. */
export function sessionID(declared: { apps: boolean; urls: boolean }): string | undefined {
  if (!declared.apps && !declared.urls) return undefined;
  return `${declared.apps ? APPS : ""}${declared.urls ? URLS : ""}${crypto.randomUUID()}`;
}

/** What the client declared whose session's id a request has. */
export function sessionDeclares({ headers }: Request): { apps: boolean; urls: boolean } {
  const id = headers.get("mcp-session-id") ?? "";
  const apps = id.startsWith(APPS);
  return { apps, urls: id.startsWith(URLS, apps ? APPS.length : 0) };
}

const APPS = "apps-";
const URLS = "urls-";

function capabilitiesOf(message: unknown): Record<string, unknown> | undefined {
  const params = isRecord(message) ? message.params : undefined;
  const meta = isRecord(params) ? params._meta : undefined;
  const isFirst = isRecord(message) && message.method === "initialize" && isRecord(params);
  const capabilities = isFirst ? params.capabilities : isRecord(meta) ? meta[CLIENT_CAPABILITIES] : undefined;
  return isRecord(capabilities) ? capabilities : undefined;
}
