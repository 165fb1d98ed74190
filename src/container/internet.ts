/**
 * Handles the requests that a sandbox sends to the internet through the Worker. Under a restrictive policy these are all
 * requests. Otherwise they are the requests to hosts for which the principal has a secret or a git sign-in. The Worker does not
 * follow redirects. If the program follows one, its next request comes here too.
 */
import { waitUntil } from "cloudflare:workers";
import { type Env, parseConfig } from "../shared/config.ts";
import type { Connection } from "../shared/connection-log.ts";
import { Mask } from "../shared/mask.ts";
import { asSecret, isGitRequest } from "../shared/git-credential.ts";
import { ALLOWED_PORTS, type NetworkPolicy, allowsHost, canonicalHost } from "../shared/network-policy.ts";
import { addSecrets, secretsOfHost, secretsFor } from "../shared/secrets.ts";
import { announcedBytes, changePieces } from "../shared/stream-bytes.ts";
import { accountOf, actorOf } from "./actor.ts";
import { INTERNET_TEXTS } from "./texts.ts";

/** The handler's parameters, set by `SandboxNetwork.enforce`: the principal of the sandbox, and the policy. */
export interface OutboundPolicy extends NetworkPolicy {
  principalID?: string | undefined;
}

interface RequestSource {
  env: Env;
  containerID: string;
  /** The names of the secrets in the request, separated by commas. */
  secret?: string;
  /** Aborts when the program disconnects. */
  signal: AbortSignal;
}

type SendToInternet = (request: Request, from: RequestSource) => Promise<Response>;

let sendToInternet: SendToInternet = (request, { secret, signal }) =>
  fetch(request, { redirect: "manual", encodeResponseBody: encodingFor(secret), signal });

/** Only a body in which secrets are masked is decoded. Others pass as they are, so that they keep their length. */
export const encodingFor = (secret: string | undefined) => (secret === undefined ? "manual" : "automatic");

/** Replaces the function that sends requests to the internet: local sandboxes must not reach the machine's network. */
export function setInternet(other: SendToInternet): void {
  sendToInternet = other;
}

/** The status in the log of a request whose program disconnected before the response. */
const DISCONNECTED = 499;

/**
 * Forwards a request if the policy allows it, with the secrets for its host. @param containerID the id of the sandbox's Durable
 * Object
 */
export function forwardByPolicy(
  request: Request,
  env: Env,
  containerID: string,
  policy: OutboundPolicy | undefined,
): Promise<Response> {
  const response = forward(request, env, containerID, policy);
  // If the program disconnects, the platform would end this work before the request is in the log.
  waitUntil(response.catch(() => undefined));
  return response;
}

async function forward(
  request: Request,
  env: Env,
  containerID: string,
  policy: OutboundPolicy | undefined,
): Promise<Response> {
  // The URL has the host that the program connected to. The Host header may name another host.
  const { hostname, port, protocol } = new URL(request.url);
  const host = canonicalHost(hostname) ?? "";
  const targetPort = Number(port || (protocol === "https:" ? 443 : 80));
  const namedHost = canonicalHost((request.headers.get("host") ?? hostname).replace(/:\d+$/, ""));
  const connection: Connection = { at: Date.now(), host, port: targetPort, method: request.method, bytes: 0 };
  const record = (end: Partial<Connection>) =>
    actorOf(env, containerID).connectionMade({ ...connection, ...end });
  const isFull = policy?.internet === "full";
  const isAllowed =
    policy !== undefined && allowsHost(policy, host) && (isFull || ALLOWED_PORTS.has(targetPort));
  if (!isAllowed || namedHost !== host) {
    // The record comes before the response, so that the result of the call that caused the request can name the refused host.
    await record({ refused: isAllowed ? "mismatch" : "policy" });
    return refusal(403, INTERNET_TEXTS.refused(host));
  }
  const { secrets: all, gitSignIn } = parseConfig(env);
  const { principalID } = policy;
  const secrets = port === "" ? secretsOfHost(secretsFor(all, principalID), host) : [];
  // The git sign-in comes last, because an operator's secret for the same place takes precedence.
  if (gitSignIn && principalID !== undefined && isGitRequest(request)) {
    const personCredential = await accountOf(env, principalID).gitCredential(host);
    if (personCredential) secrets.push(asSecret(host, personCredential));
  }
  const [url, headers] = [new URL(request.url), new Headers(request.headers)];
  const used = addSecrets(secrets, headers, url);
  const secret = used.map(({ name }) => name).join(",");
  const named = secret === "" ? {} : { secret };
  // `fetch` ignores the signal of a request that the Worker has received, but not a signal made from it.
  const signal = AbortSignal.any([request.signal]);
  const from: RequestSource = { env, containerID, ...named, signal };
  const report = (end: { status: number; bytes: number }) => record({ ...end, ...named });
  const mask = used.length === 0 ? undefined : new Mask(used);
  let response: Response;
  try {
    response = mask ? await sendWith(mask, request, url, headers, from) : await sendToInternet(request, from);
  } catch {
    // The reason is hidden, because it may name internal proxies.
    response = refusal(502, INTERNET_TEXTS.unreachable(host));
    if (signal.aborted) {
      await report({ status: DISCONNECTED, bytes: 0 });
      return response;
    }
  }
  const { status } = response;
  const end = (bytes: number) => waitUntil(report({ status, bytes }));
  return passOn(response, mask, signal, end);
}

/**
 * Masks a response, and reports its size: at once if the length is known, else when the body has ended or its reader has stopped.
 * @param client aborts when the reader disconnects. The response may not have reached the platform then, so nothing cancels its body
 */
function passOn(
  response: Response,
  mask: Mask | undefined,
  client: AbortSignal,
  end: (bytes: number) => void,
): Response {
  const { body, headers } = response;
  const length = body === null ? 0 : announcedBytes(headers);
  if (length !== undefined) end(length);
  if (body === null || (length !== undefined && !mask)) return response;
  const masked = mask?.body();
  let bytes = 0;
  const change = (piece: Uint8Array) => {
    bytes += piece.byteLength;
    return masked?.next(piece) ?? piece;
  };
  const passed = changePieces(body, client, change, () => masked?.end() ?? new Uint8Array());
  const isOver = passed.isComplete.then(() => length === undefined && end(bytes));
  waitUntil(isOver);
  return new Response(passed.readable, response);
}

/** Request headers that are dropped if a secret is added. Each range, for example, could contain part of it. */
const DROPPED_REQUEST_HEADERS = ["range", "if-range", "expect", "host", "content-length"];
/** Response headers that no longer apply, or that would make the client bypass this handler. */
const DROPPED_RESPONSE_HEADERS = ["alt-svc", "transfer-encoding"];
/** The content codings that the platform decodes. It distinguishes upper and lower case: `GZIP` stays encoded. */
const DECODED = new Set(["gzip", "br"]);

/** Sends a request with its secrets, only by TLS and to the standard port, and masks them in the head of the response. */
async function sendWith(
  mask: Mask,
  request: Request,
  url: URL,
  headers: Headers,
  from: RequestSource,
): Promise<Response> {
  url.protocol = "https:";
  for (const name of DROPPED_REQUEST_HEADERS) headers.delete(name);
  headers.set("accept-encoding", "identity");
  const { method, body: given } = request;
  // Some clients announce an empty body for GET, which cannot have one.
  const isEmpty = given === null || announcedBytes(request.headers) === 0;
  const sentBody = isEmpty ? null : fixLength(given, request.headers);
  // A cached response could reach a caller without the secret.
  const init = { method, headers, body: sentBody, redirect: "manual", cache: "no-store" } as const;
  const response = await sendToInternet(new Request(url, init), from);
  const responseHeaders = mask.headers(response.headers);
  for (const name of DROPPED_RESPONSE_HEADERS) responseHeaders.delete(name);
  const { status, body } = response;
  // The Worker requested no range. Several ranges could each contain part of a secret.
  if (status === 206) {
    await body?.cancel();
    return refusal(502, INTERNET_TEXTS.partial(url.hostname));
  }
  const coding = responseHeaders.get("content-encoding") ?? "identity";
  if (DECODED.has(coding)) {
    // The platform has decoded the body, so these headers no longer apply.
    responseHeaders.delete("content-encoding");
    responseHeaders.delete("content-length");
  } else if (coding !== "identity") {
    await body?.cancel();
    return refusal(502, INTERNET_TEXTS.coding(url.hostname, coding));
  }
  return new Response(body, { status, headers: responseHeaders });
}

/** A body with its announced length, because some servers refuse bodies of unknown length. */
function fixLength(body: ReadableStream, headers: Headers): ReadableStream {
  const length = announcedBytes(headers);
  return length === undefined ? body : body.pipeThrough(new FixedLengthStream(length));
}

function refusal(status: number, reason: string): Response {
  return new Response(`sandbox-mcp: ${reason}.\n`, { status });
}
