/**
 * The model's API, which a sandbox reaches only through the Worker, because its credential must not be in the sandbox. A process in
 * the sandbox sends a placeholder made for its task. The handler runs in the Worker, not in the actor. It asks the actor whether
 * the placeholder is valid, replaces the placeholder with the credential, and forwards the request.
 */
import { waitUntil } from "cloudflare:workers";
import { type Config, type Env, parseConfig } from "../shared/config.ts";
import { Mask } from "../shared/mask.ts";
import { MODEL_HOST, SERVER, addSecrets, secretsOfHost, secretsFor } from "../shared/secrets.ts";
import { actorOf } from "./actor.ts";
import {
  type Admission,
  type ModelOutcome,
  type ModelCall,
  REPORT_MS,
  type UpstreamError,
} from "./model-calls.ts";
import { announcedBytes, changePieces, readBounded } from "../shared/stream-bytes.ts";
import { cutText, decodeText } from "../shared/text.ts";
import { RequestMeter } from "./model-request.ts";
import { UsageCounter } from "./model-usage.ts";
import { MODEL_API_TEXTS } from "./texts.ts";

/** The `POST` paths that are forwarded; all others are refused. Requests to the first one cost tokens. */
const CHARGED_PATH = "/v1/messages";
const PATHS = new Set([CHARGED_PATH, "/v1/messages/count_tokens"]);
/** Forwarded header names, or prefixes ending with `*`. */
const PASSED = ["accept", "content-type", "user-agent", "x-app", "anthropic-*", "x-stainless-*"];

/** Adds the beta feature without which the API accepts no OAuth token. */
function addOAuthBeta(headers: Headers): void {
  const betas = (headers.get("anthropic-beta") ?? "").split(",").filter(Boolean);
  if (!betas.includes("oauth-2025-04-20")) betas.push("oauth-2025-04-20");
  headers.set("anthropic-beta", betas.join());
}

/** Response headers that are dropped: they identify the operator's account with the API, or do not apply to the forwarded body. */
const DROPPED = ["content-encoding", "content-length", "set-cookie", "anthropic-organization-id"];
/** The most bytes of an error's body. */
const MAX_ERROR_BYTES = 256 * 1024;
const RETRY_HEADER = "x-should-retry";
/** The most bytes of a request: the API's own limit. */
const MAX_REQUEST_BYTES = 32 * 1024 * 1024;
/** When a task with too many concurrent requests may retry, in seconds. */
const BUSY_SECONDS = 5;

/** Sends a model request of a sandbox's run, with the credential in place of the run's placeholder. */
export async function callModel(request: Request, env: Env, containerID: string): Promise<Response> {
  const { pathname } = new URL(request.url);
  if (request.method !== "POST" || !PATHS.has(pathname))
    return refusal(403, "permission_error", MODEL_API_TEXTS.refused(request.method, pathname));
  const config = parseConfig(env);
  const actor = actorOf(env, containerID);
  const check = await actor.admitModelCall(placeholderOf(request.headers));
  if ("refused" in check)
    return check.busy
      ? refusal(429, "rate_limit_error", check.refused, { "retry-after": `${BUSY_SECONDS}` })
      : refusal(403, "permission_error", check.refused);

  const { call } = check;
  const renew = () => actorOf(env, containerID).renewModelCall(call);
  const reporting = setInterval(() => void renew().catch(() => undefined), REPORT_MS);
  const reported = Promise.withResolvers<void>();
  // Otherwise the platform ends this handler as soon as the agent disconnects, and the request would cost nothing.
  waitUntil(reported.promise);
  const finish = (outcome: ModelOutcome) => {
    clearInterval(reporting);
    return report(env, containerID, call, outcome).finally(reported.resolve);
  };
  try {
    return await forward(request, { config, check, finish });
  } catch (error) {
    await finish({ tokens: 0 });
    throw error;
  }
}

interface AdmittedRequest {
  config: Config;
  check: Extract<Admission, { call: ModelCall }>;
  finish: (outcome: ModelOutcome) => Promise<void>;
}

/** Forwards an admitted request, and reports its end with `finish`. */
async function forward(request: Request, { config, check, finish }: AdmittedRequest): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  const headers = new Headers();
  for (const [name, value] of request.headers) if (isPassed(name)) headers.set(name, value);
  headers.set("accept-encoding", "identity");
  for (const [name, value] of Object.entries(check.trace ?? {})) headers.set(name, value);
  const url = new URL(config.tasks.anthropicURL + pathname + search);
  const [credential] = addSecrets(
    secretsOfHost(secretsFor(config.secrets, SERVER), MODEL_HOST),
    headers,
    url,
  );
  if (credential === undefined) {
    const message = MODEL_API_TEXTS.noCredential;
    await finish({ tokens: 0, error: { status: 401, message } });
    return refusal(401, "authentication_error", message);
  }
  if (credential.place.name === "authorization") addOAuthBeta(headers);
  headers.set("content-type", "application/json");
  const { body, wasSent, meter, refused } = meterBody(request, check);
  const isCharged = pathname === CHARGED_PATH;
  let response: Response;
  try {
    const signal = AbortSignal.any([request.signal, refused]);
    // Redirects are not followed: the credential is for this address only.
    response = await fetch(url, { method: "POST", headers, body, signal, redirect: "manual" });
  } catch {
    if (refused.aborted) {
      const { status, type, message } = refused.reason as RefusedRequest;
      await finish({ tokens: 0, error: { status, message } });
      return refusal(status, type, message);
    }
    const message = MODEL_API_TEXTS.unreachable;
    if (!request.signal.aborted) await finish({ tokens: 0, error: { status: 502, message } });
    else {
      const tokens = isCharged && wasSent() ? new UsageCounter().charge(meter, false) : 0;
      await finish({ tokens, cut: true });
    }
    return refusal(502, "api_error", message);
  }
  const mask = new Mask([credential]);
  const responseHeaders = mask.headers(response.headers);
  for (const name of DROPPED) responseHeaders.delete(name);
  if (!response.ok)
    return forwardError(response, mask, responseHeaders, (error) => finish({ tokens: 0, error }));
  if (!response.body) {
    await finish({ tokens: 0 });
    return new Response(null, { status: response.status, headers: responseHeaders });
  }
  const [counter, masked] = [new UsageCounter(), mask.body()];
  const change = (piece: Uint8Array) => {
    counter.add(piece);
    return masked.next(piece);
  };
  const passed = changePieces(response.body, request.signal, change, () => masked.end());
  // The tokens count even if the agent stops reading the response.
  const charged = passed.isComplete.then((isComplete) =>
    finish({ tokens: isCharged ? counter.charge(meter, isComplete) : 0, cut: !isComplete }),
  );
  waitUntil(charged);
  return new Response(passed.readable, { status: response.status, headers: responseHeaders });
}

/** Reports the end of a request to the actor. Retries once, because the actor may have been reset. */
async function report(env: Env, containerID: string, call: ModelCall, outcome: ModelOutcome): Promise<void> {
  const finish = () => actorOf(env, containerID).finishModelCall(call, outcome);
  await finish().catch(finish);
}

async function forwardError(
  response: Response,
  mask: Mask,
  headers: Headers,
  reportError: (error: UpstreamError) => Promise<void>,
): Promise<Response> {
  const read = await readBounded(response, { maxBytes: MAX_ERROR_BYTES }).catch(() => undefined);
  const body = mask.text(read ? decodeText(read, "none") : "");
  await reportError({ status: response.status, message: errorMessage(body) });
  const isRedirect = response.status < 400;
  // The agent must not follow a redirect to another address.
  headers.delete("location");
  // A retry does not help if the server is misconfigured.
  if (isRedirect || response.status === 401 || response.status === 403) headers.set(RETRY_HEADER, "false");
  return new Response(body, { status: isRedirect ? 502 : response.status, headers });
}

function errorMessage(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: { message?: unknown } };
    if (typeof error?.message === "string") return cutText(error.message, 500);
  } catch {
    // The error is not in the API's format, because a gateway in front of the API responded.
  }
  return cutText(body, 200).trim() || MODEL_API_TEXTS.noReason;
}

interface RefusedRequest {
  status: number;
  type: string;
  message: string;
}

const TOO_LARGE: RefusedRequest = {
  status: 413,
  type: "request_too_large",
  message: MODEL_API_TEXTS.tooLarge(MAX_REQUEST_BYTES),
};

/**
 * Meters a request body while it is forwarded. `wasSent` returns whether the whole body was sent: its announced length, or its
 * end. Without the whole body, the API does nothing. Aborts `refused`, with a `RefusedRequest` as reason, if the body is too
 * large, or if it makes the API connect to hosts that the sandbox may not reach.
 */
function meterBody(request: Request, { isConfined }: AdmittedRequest["check"]) {
  const meter = new RequestMeter();
  const refusing = new AbortController();
  const { signal: refused } = refusing;
  const refuse = (reason: RefusedRequest) => refusing.abort(reason);
  let isSent = false;
  const wasSent = () => isSent;
  if (!request.body) return { body: null, wasSent, meter, refused };
  const length = announcedBytes(request.headers);
  const isTooLarge = (length ?? 0) > MAX_REQUEST_BYTES;
  const { readable, writable } =
    length === undefined || isTooLarge
      ? new TransformStream<Uint8Array, Uint8Array>()
      : new FixedLengthStream(length);
  const { body } = request;
  const pump = async () => {
    const writer = writable.getWriter();
    try {
      if (isTooLarge) return refuse(TOO_LARGE);
      let size = 0;
      for await (const bytes of body) {
        size += bytes.length;
        if (size > MAX_REQUEST_BYTES) return refuse(TOO_LARGE);
        meter.add(bytes);
        if (isConfined && meter.reachedHost !== undefined) {
          const message = MODEL_API_TEXTS.reaches(meter.reachedHost);
          return refuse({ status: 403, type: "permission_error", message });
        }
        isSent = size === Number(length);
        await writer.write(bytes);
      }
      isSent = true;
      await writer.close();
    } catch (error) {
      await writer.abort(error).catch(() => undefined);
    }
  };
  waitUntil(pump());
  return { body: readable, wasSent, meter, refused };
}

function isPassed(name: string): boolean {
  return PASSED.some((pattern) =>
    pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern,
  );
}

function placeholderOf(headers: Headers): string {
  return headers.get("x-api-key") ?? (headers.get("authorization") ?? "").replace(/^Bearer +/i, "");
}

/**
 * An error in the API's format, so that the agent can read it. A status below 500 tells the agent not to retry, unless
 * `headers` are given.
 */
function refusal(
  status: number,
  type: string,
  message: string,
  headers: Record<string, string> = status < 500 ? { [RETRY_HEADER]: "false" } : {},
): Response {
  const error = { type, message: `sandbox-mcp: ${message}` };
  return Response.json({ type: "error", error }, { status, headers });
}
