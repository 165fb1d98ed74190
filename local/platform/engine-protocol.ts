/**
 * The protocol between the engine (Node, on the host) and the Worker (workerd), over loopback HTTP.
 * Both sides import this file, so it imports only `src/shared`.
 *
 *   PUT    /sandboxes/<id>                    start; responds when the sandbox is ready
 *   DELETE /sandboxes/<id>                    destroy; responds when its processes and files are gone
 *   POST   /sandboxes/<id>/signal             {signal}
 *   GET    /sandboxes/<id>/exit               responds when the sandbox has ended
 *   PUT    /sandboxes/<id>/intercepts         which outbound hosts the Worker serves
 *   PUT    /sandboxes/<id>/policy             which hosts of the internet the sandbox may reach
 *   GET    /sandboxes/<id>/connections        the sandbox's last connections, and how many were refused: `SeenConnections`
 *   GET    /sandboxes/<id>/refusals/<time>    the hosts that the policy refused from a time on
 *   GET    /sandboxes/<id>/outbound/<poller>  waits for the next intercepted request, and returns it with its body
 *   POST   /sandboxes/<id>/outbound/<number>  the Worker's response to that request, its body in frames
 *   *      /sandboxes/<id>/ports/<port>/...   forwarded to sandboxd or to the control server, WebSocket upgrades too
 *   *      /actors/<actor>/internet           a request to the URL in `URL_HEADER`, sent under the rules of the actor's sandbox
 *   PUT    /agents/<name>                     installs this coding agent for sandboxes, if it comes from npm
 *   GET    /boot                              {boot}: an id that is new at each start of the engine
 *   GET    /disk                              the space on the disk of the state directory: `DiskSpace`
 *   POST   /sync                              makes an object of `SyncRequest` survive a crash of the machine
 *   GET    /actors                            {actors}: the Durable Objects of running sandboxes
 *   DELETE /previews                          ends all previews, and refuses new ones. {running}: how many sandboxes run
 *
 * `npm start` ends the previews. Then it asks the Worker to save all workspaces: `POST STOP_PATH`, with the same secret. After this
 * request, the Worker refuses all others.
 */

import * as z from "zod";
import type { SeenConnections } from "../../src/shared/connection-log.ts";
import { INTERNET } from "../../src/shared/network-policy.ts";

/** The header with the secret, which every request needs. Each start of the server makes a new secret. */
export const SECRET_HEADER = "x-local-engine-secret";
/** The Host header for the process in the sandbox. */
export const HOST_HEADER = "x-local-engine-host";
/** The absolute URL of a request to the internet. */
export const URL_HEADER = "x-local-engine-url";
/** The names of the secrets in a request to the internet. */
export const SENT_SECRET_HEADER = "x-local-engine-sent-secret";
/** On the engine's own responses: an `EngineErrorCode`. */
export const ERROR_HEADER = "x-local-engine-error";
/** An `OutboundRequest` or `OutboundResponse` as JSON. */
export const OUTBOUND_HEADER = "x-local-engine-outbound";
/** On a response to a poll: the numbers of requests that the Worker should abort, separated by commas. */
export const ABANDONED_HEADER = "x-local-engine-abandoned";
export const FRAME_HEAD_BYTES = 4;
/** `gone`: the sandbox does not exist or has ended. `not-listening`: nothing accepts connections on that port. */
export type EngineErrorCode = "gone" | "not-listening" | "failed" | "unauthorized" | "bad-request";

export interface DiskSpace {
  freeBytes: number;
  bytes: number;
}

const name = z.string().regex(/^(?!\.{1,2}$)[^/\0]+$/);

/** The place of an object that the Worker has written. */
export const syncSchema = z.object({ folder: name, file: name });

export type SyncRequest = z.infer<typeof syncSchema>;

export const STOP_PATH = "/local/stop";
/**
 * How long the Worker saves. On a machine whose processors other programs use, nine sandboxes needed more than 20 seconds. systemd kills a
 * service 90 seconds after SIGTERM.
 */
export const STOP_MS = 60_000;
/** The Worker begins its response at once. */
export const STOP_RESPONSE_MS = 20_000;

/** The Worker handles requests to these hosts, as registered on `ctx.container`. */
export const interceptsSchema = z.object({
  http: z.array(z.string()),
  /**
   * Patterns for HTTPS. Requests to these hosts, also by plain HTTP, continue to the internet under the sandbox's policy. The
   * Worker itself serves all other hosts.
   */
  https: z.array(z.string()),
});

export type Intercepts = z.infer<typeof interceptsSchema>;

export const policySchema = z.object({
  internet: z.enum(INTERNET),
  allowHosts: z.array(z.string()).readonly(),
});

export const startSchema = z.object({
  /** The Durable Object's id. An earlier sandbox of the same actor is destroyed first. */
  actor: z.string().min(1),
  /** The Durable Object's name, if its sandbox has a host directory. */
  name: z.string().optional(),
  env: z.record(z.string(), z.string()),
  /** If false, only intercepted requests leave the sandbox. */
  enableInternet: z.boolean(),
  intercepts: interceptsSchema,
  /** The token that sandboxd requires: see `TOKEN_VARIABLE` in sandboxd's protocol. */
  token: z.string().optional(),
  /** Without a policy, the sandbox may reach every host. */
  policy: policySchema.optional(),
});

export type StartRequest = z.infer<typeof startSchema>;

export interface ExitReport {
  /** The exit code as in a shell: 128 + signal if killed. 0 for a requested stop or destruction. */
  exitCode: number;
  reason: string;
  seen?: SeenConnections;
}

export interface OutboundRequest {
  number: number;
  method: string;
  url: string;
  headers: [string, string][];
  hasBody: boolean;
  pattern: string;
}

/**
 * The body is in frames: a big-endian length, then bytes. An empty frame marks the end, because workerd ends a failed body like
 * any other.
 */
export interface OutboundResponse {
  status: number;
  headers: [string, string][];
}

export function frame(piece: Uint8Array = new Uint8Array()): Uint8Array<ArrayBuffer> {
  const framed = new Uint8Array(FRAME_HEAD_BYTES + piece.byteLength);
  new DataView(framed.buffer).setUint32(0, piece.byteLength);
  framed.set(piece, FRAME_HEAD_BYTES);
  return framed;
}

export function matchesHost(pattern: string, host: string): boolean {
  if (!pattern.includes("*")) return pattern === host;
  const parts = pattern.split("*").map((part) => part.replace(/[.+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${parts.join(".*")}$`).test(host);
}
