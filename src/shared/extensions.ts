/** Extensions of MCP that clients declare. From revision 2026-07-28 on every request does; before, a connection's first alone. */
import { isRecord } from "./is-record.ts";

const CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities";

/** What a request's own `_meta`, or `initialize`, declares of an extension; undefined when it does not. */
export function declaredExtension(message: unknown, extension: string): Record<string, unknown> | undefined {
  const params = isRecord(message) ? message.params : undefined;
  const meta = isRecord(params) ? params._meta : undefined;
  const isFirst = isRecord(message) && message.method === "initialize" && isRecord(params);
  const capabilities = isFirst ? params.capabilities : isRecord(meta) ? meta[CLIENT_CAPABILITIES] : undefined;
  const extensions = isRecord(capabilities) ? capabilities.extensions : undefined;
  const declared = isRecord(extensions) ? extensions[extension] : undefined;
  return isRecord(declared) ? declared : undefined;
}
