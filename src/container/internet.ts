/**
 * What a sandbox sends to the internet through the Worker: everything under a policy that restricts, and what goes to a host
 * that has a secret for the sandbox's principal. Redirects are left to the client, whose next request comes here too.
 */
import { waitUntil } from "cloudflare:workers";
import { type Env, parseConfig } from "../shared/config.ts";
import type { Connection } from "../shared/connection-log.ts";
import { Mask } from "../shared/mask.ts";
import { ALLOWED_PORTS, type NetworkPolicy, allowsHost, canonicalHost } from "../shared/network-policy.ts";
import { type Secret, putIn, secretsAt, secretsFor } from "../shared/secrets.ts";
import { actorOf } from "./actor.ts";

/** Whose sandbox it is, and what that may reach: the parameters of the handler, as `SandboxNetwork.enforce` sets them. */
export interface OutboundPolicy extends NetworkPolicy {
  principalID?: string | undefined;
}

/** Which sandbox a request comes from, and the secrets in it. */
interface RequestSource {
  env: Env;
  containerID: string;
  /** Their names, with commas between. */
  secret?: string;
}

type Internet = (request: Request, from: RequestSource) => Promise<Response>;

let internet: Internet = (request) => fetch(request, { redirect: "manual" });

/** Has requests go to the internet by another way: the local platform must not reach this machine's network with them. */
export function sendThrough(other: Internet): void {
  internet = other;
}

/** Sends a request of a sandbox on if its policy lets it through, with the secrets for its host. An outbound handler of the SDK. */
export async function throughPolicy(
  request: Request,
  env: Env,
  { containerId: containerID, params }: { containerId: string; params?: unknown },
): Promise<Response> {
  const policy = params as OutboundPolicy | undefined;
  // The platform has ended TLS, so the URL has the name that TLS and HTTP gave.
  const { hostname, port, protocol } = new URL(request.url);
  const host = canonicalHost(hostname) ?? "";
  const to = Number(port || (protocol === "https:" ? 443 : 80));
  const named = canonicalHost((request.headers.get("host") ?? hostname).replace(/:\d+$/, ""));
  const connection: Connection = { at: Date.now(), host, port: to, method: request.method, bytes: 0 };
  const record = (end: Partial<Connection>) =>
    actorOf(env, containerID).connectionMade({ ...connection, ...end });
  const isFree = policy?.internet === "full";
  const isAllowed = policy !== undefined && allowsHost(policy, host) && (isFree || ALLOWED_PORTS.has(to));
  if (!isAllowed || named !== host) {
    // Before the answer: the result of what asked is to name it.
    await record({ refused: isAllowed ? "mismatch" : "policy" });
    return refusal(403, `${host || "this host"} is not reachable from this sandbox`);
  }
  const secrets =
    port === "" ? secretsAt(secretsFor(parseConfig(env).secrets, policy.principalID), host) : [];
  const [url, headers] = [new URL(request.url), new Headers(request.headers)];
  const used = putIn(secrets, headers, url);
  const secret = used.map(({ name }) => name).join(",");
  const from: RequestSource = { env, containerID, ...(secret === "" ? {} : { secret }) };
  let response: Response;
  try {
    response =
      used.length === 0 ? await internet(request, from) : await sendWith(used, request, url, headers, from);
  } catch {
    // Why is not told: it may name what stands between the server and the internet.
    response = refusal(502, `${host} could not be reached`);
  }
  const { status } = response;
  const end = (bytes: number) => waitUntil(record({ status, bytes, ...(secret === "" ? {} : { secret }) }));
  return counted(response, end);
}

/** An answer whose bytes are told when its length is known, or counted until the last of them, or until nobody reads on. */
function counted(response: Response, end: (bytes: number) => void): Response {
  const { body, headers } = response;
  const length = headers.get("content-length");
  if (body === null || length !== null) {
    end(body === null ? 0 : Number(length));
    return response;
  }
  let bytes = 0;
  const counter = new TransformStream<Uint8Array, Uint8Array>({
    transform: (piece, controller) => {
      bytes += piece.byteLength;
      controller.enqueue(piece);
    },
  });
  const reportEnd = () => end(bytes);
  waitUntil(body.pipeTo(counter.writable).then(reportEnd, reportEnd));
  return new Response(counter.readable, response);
}

/**
 * Headers that are not sent on with a secret: pieces of an answer that are asked for one by one could each hold a part of a
 * value.
 */
const NOT_SENT = ["range", "if-range", "expect", "host", "content-length"];

/** Headers of an answer that no longer hold, or by which its client would go round this handler. */
const NO_RESPONSE = ["alt-svc", "transfer-encoding"];

/** The codings of a body that the platform undoes, as they are written then: it leaves a body in `GZIP` as it came. */
const DECODED = new Set(["gzip", "br"]);

/** Sends a request to where its secrets are put in, by TLS alone and to the standard port, and masks what of them the answer has. */
async function sendWith(
  secrets: readonly Secret[],
  request: Request,
  url: URL,
  headers: Headers,
  from: RequestSource,
): Promise<Response> {
  url.protocol = "https:";
  for (const name of NOT_SENT) headers.delete(name);
  headers.set("accept-encoding", "identity");
  const mask = new Mask(secrets);
  const { method, signal, body: given } = request;
  // A request by GET cannot have a body, and some clients announce one that is empty.
  const isEmpty = given === null || request.headers.get("content-length") === "0";
  const sent = isEmpty ? null : sized(given, request.headers);
  // An answer that the platform kept could be given to somebody without the secret.
  const init = { method, headers, signal, body: sent, redirect: "manual", cache: "no-store" } as const;
  const response = await internet(new Request(url, init), from);
  const responseHeaders = mask.headers(response.headers);
  for (const name of NO_RESPONSE) responseHeaders.delete(name);
  const { status, body } = response;
  // No range was asked for, of which each could hold a part of a value.
  if (status === 206) {
    await body?.cancel();
    return refusal(502, `${url.hostname} answers with a part of what was asked for`);
  }
  const coding = responseHeaders.get("content-encoding") ?? "identity";
  if (DECODED.has(coding)) {
    // An answer to HEAD has them too: how long a body is compressed tells whether a guess beside the value is right.
    responseHeaders.delete("content-encoding");
    responseHeaders.delete("content-length");
  } else if (coding !== "identity") {
    await body?.cancel();
    return refusal(502, `${url.hostname} answers in a coding that cannot be looked through: ${coding}`);
  }
  if (body === null) return new Response(null, { status, headers: responseHeaders });
  return new Response(sized(body.pipeThrough(mask.stream()), responseHeaders), {
    status,
    headers: responseHeaders,
  });
}

/** A body with the length that was announced: not every server takes one of unknown length. */
function sized(body: ReadableStream, headers: Headers): ReadableStream {
  const length = headers.get("content-length");
  return length === null ? body : body.pipeThrough(new FixedLengthStream(Number(length)));
}

function refusal(status: number, reason: string): Response {
  return new Response(`sandbox-mcp: ${reason}.\n`, { status });
}
