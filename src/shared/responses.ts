import type { RefusalReason } from "./log.ts";

export interface Refusal {
  reason: RefusalReason;
  response: Response;
}

export function json(body: unknown, status = 200, headers: Record<string, string> = {}): Response {
  return Response.json(body, { status, headers: { "cache-control": "no-store", ...headers } });
}

/** The id is null if the request's id is unknown (JSON-RPC 2.0 section 5). */
export function rpcError(
  status: number,
  code: number,
  message: string,
  id: string | number | null = null,
  data?: object,
): Response {
  return json({ jsonrpc: "2.0", error: { code, message, data }, id }, status);
}
