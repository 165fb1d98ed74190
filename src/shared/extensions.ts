/** MCP extensions that clients declare: in every request since revision 2026-07-28, earlier only in the first one. */
import { isRecord } from "./is-record.ts";

const CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";

export function declaredExtension(message: unknown, extension: string): Record<string, unknown> | undefined {
  const extensions = capabilitiesOf(message)?.extensions;
  const declared = isRecord(extensions) ? extensions[extension] : undefined;
  return isRecord(declared) ? declared : undefined;
}

/** Whether a client opens URLs for its user on request (elicitation in mode `url`). */
export function declaresURLElicitation(message: unknown): boolean {
  const elicitation = capabilitiesOf(message)?.elicitation;
  return isRecord(elicitation) && isRecord(elicitation.url);
}

/** A session id, which encodes the client's declarations. So the server need not store sessions. */
export function sessionID(declared: { apps: boolean; urls: boolean }): string | undefined {
  if (!declared.apps && !declared.urls) return undefined;
  return `${declared.apps ? APPS : ""}${declared.urls ? URLS : ""}${crypto.randomUUID()}`;
}

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
