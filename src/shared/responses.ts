import { callerFields, log, logError, type Logged, type LogLevel, type RefusalReason } from "./log.ts";

export interface Refusal {
  reason: RefusalReason;
  response: Response;
  /** For the log: the scopes that the request needed, separated by spaces. */
  scope?: string;
}

type RefusedRequest = { config: { logLevel: LogLevel } } & ({ requestID: string } | Logged);

/** Logs the refusal of a request, and returns its response. */
export function refuse(request: RefusedRequest, { response, ...refusal }: Refusal, route?: string): Response {
  const sender = "principal" in request ? callerFields(request) : { request_id: request.requestID };
  log(request.config, { event: "refusal", ...sender, status: response.status, ...refusal, route });
  return response;
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

/** Logs an unexpected error, and returns a response that names only its reference. */
export function internalErrorResponse(
  context: Parameters<typeof logError>[0],
  where: string,
  error: unknown,
  id: string | number | null = null,
): Response {
  logError(context, where, error);
  return rpcError(500, -32603, `Internal error (ref ${context.requestID})`, id);
}
