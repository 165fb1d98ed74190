/** How clients discover this server: the public AI catalog links to the public server card (SEP-2127). */
import { SUPPORTED_PROTOCOL_VERSIONS } from "@modelcontextprotocol/server";
import registry from "../../server.json" with { type: "json" };
import { namedOrigin } from "../shared/origin.ts";
import type { RequestContext } from "../shared/request-context.ts";
import { sha256 } from "../shared/sha256.ts";
import { ICON } from "./icon.ts";

export const CATALOG_PATH = "/.well-known/ai-catalog.json";
export const CARD_PATH = "/mcp/server-card";

const CARD_TYPE = "application/mcp-server-card+json";

/** A supported revision of MCP that `SUPPORTED_PROTOCOL_VERSIONS` does not list. */
const MODERN_VERSION = "2026-07-28";

/** Registry names begin with a reversed domain: io.github.owner/name. */
const [namespace = "", name = ""] = registry.name.split("/");
const IDENTIFIER = `urn:air:${namespace.split(".").toReversed().join(".")}:mcp:${name}`;

export function catalog(request: Request, context: RequestContext): Promise<Response> {
  const entry = { identifier: IDENTIFIER, type: CARD_TYPE, url: originOf(request, context) + CARD_PATH };
  return publish(request, "application/ai-catalog+json", { specVersion: "1.0", entries: [entry] });
}

export function serverCard(request: Request, context: RequestContext): Promise<Response> {
  const { name: identity, title, description, version, repository, remotes } = registry;
  const remote = {
    type: "streamable-http",
    url: `${originOf(request, context)}/mcp`,
    headers: remotes[0]?.headers,
    supportedProtocolVersions: [...new Set([MODERN_VERSION, ...SUPPORTED_PROTOCOL_VERSIONS])],
  };
  return publish(request, CARD_TYPE, {
    $schema: "https://static.modelcontextprotocol.io/schemas/v1/server-card.schema.json",
    name: identity,
    title,
    description,
    version,
    repository,
    icons: [ICON],
    remotes: [remote],
  });
}

function originOf(request: Request, { config }: RequestContext): string {
  return config.publicOrigin ?? namedOrigin(request)?.origin ?? new URL(request.url).origin;
}

/** A document that clients may cache for an hour and revalidate by its ETag. */
async function publish(request: Request, type: string, document: object): Promise<Response> {
  const body = JSON.stringify(document);
  const etag = `"${(await sha256(body)).toHex().slice(0, 32)}"`;
  const headers = {
    etag,
    "cache-control": "public, max-age=3600",
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "ETag",
    "content-type": type,
  };
  const cachedTags = request.headers.get("if-none-match")?.split(",") ?? [];
  if (cachedTags.some((tag) => tag.trim().replace(/^W\//, "") === etag))
    return new Response(null, { status: 304, headers });
  return new Response(body, { headers });
}
