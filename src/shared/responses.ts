/** The forms of our own answers. */
import type { RefusalReason } from "./log.ts";

/** An answer that ends a request before it did anything; `reason` is for the log. */
export interface Refusal {
  reason: RefusalReason;
  response: Response;
}

/** A JSON answer that no cache keeps. */
export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return Response.json(body, { status, headers: { "cache-control": "no-store", ...headers } });
}

/** An error in the form MCP clients read. Its id is null where the request's own is not known (JSON-RPC 2.0 section 5). */
export function rpcError(
  status: number,
  code: number,
  message: string,
  id: string | number | null = null,
): Response {
  return json({ jsonrpc: "2.0", error: { code, message }, id }, status);
}
