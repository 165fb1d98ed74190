/** The forms of responses. */
import type { RefusalReason } from "./log.ts";

/** A response that ends a request before it does anything. `reason` is for the log. */
export interface Refusal {
  reason: RefusalReason;
  response: Response;
}

/** A JSON response that no cache keeps. */
export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return Response.json(body, { status, headers: { "cache-control": "no-store", ...headers } });
}

/** An error as MCP clients expect it. Its id is null when that of the request is unknown (JSON-RPC 2.0 section 5). */
export function rpcError(
  status: number,
  code: number,
  message: string,
  id: string | number | null = null,
  data?: object,
): Response {
  return json({ jsonrpc: "2.0", error: { code, message, data }, id }, status);
}
