/** Opens a sandbox's connections to the internet: resolves a name once, checks all its addresses, and connects to one of them. */
import { lookup } from "node:dns/promises";
import { isIP, type Socket } from "node:net";
import type { Writable } from "node:stream";
import { connect as connectTLS, createSecureContext, getCACertificates, type SecureContext } from "node:tls";
import { codeOf } from "../../container/sandboxd/file-error.ts";
import { refusedAddress, refusedName, refusedPrivateName } from "./addresses.ts";
import { messageOf } from "../../src/shared/text.ts";
import { connectBuffered } from "./buffered-socket.ts";
import type { Connection, ConnectionLog } from "../../src/shared/connection-log.ts";
import { CLIENT_GONE, HOST_PROBLEMS, REFUSALS } from "./texts.ts";

/** Why a connection is refused, as the second half of a sentence. */
export class Refusal extends Error {}
export class Unreachable extends Error {}

/** The host's name has no address. */
class Unresolved extends Unreachable {}

/** Notes in the log why a connection failed, and returns the response to the program. */
export function noteFailure(
  log: ConnectionLog,
  entry: Connection,
  error: unknown,
): [status: number, reason: string] {
  if (error instanceof Refusal) {
    log.refuse(entry, "address");
    return [403, REFUSALS.notForSandboxes(error.message)];
  }
  if (error instanceof Unresolved) entry.isUnknown = true;
  // Sandboxes get only the messages of these two classes. Other messages may contain addresses of this machine.
  return [502, error instanceof Unreachable ? error.message : HOST_PROBLEMS.unreachable];
}

export interface UpstreamOptions {
  /** For tests: the port on this machine's loopback that replaces `host:port`. */
  allowAddresses: ReadonlyMap<string, number>;
  /** The operator's package indexes as `host:port`. They may have private addresses; their hosts' other ports stay refused. */
  registries?: ReadonlySet<string>;
  /** Resolves a name to all its addresses; the system's resolver by default. */
  resolve?: (host: string) => Promise<string[]>;
  env: NodeJS.ProcessEnv;
  authorities?: readonly string[];
}

const NO_AUTHORITIES: readonly string[] = [];
const connectTimeoutMs = 15_000;
const maxHeadBytes = 16_384;

/** A signal that is aborted when the client has disconnected. */
export function closeSignal(client: Writable): AbortSignal {
  const closed = new AbortController();
  if (client.destroyed) closed.abort();
  else client.once("close", () => closed.abort());
  return closed.signal;
}

/** @param host a lower-case host name or address, without brackets and final dot @throws Refusal, Unreachable */
export async function connectUpstream(
  host: string,
  port: number,
  options: UpstreamOptions,
  aborted?: AbortSignal,
): Promise<Socket> {
  const testPort = options.allowAddresses.get(`${host}:${port}`);
  if (testPort !== undefined) return await open("127.0.0.1", testPort, aborted);
  const reason = refusedUnresolved(host, port, options);
  if (reason !== undefined) throw new Refusal(`${host} is ${reason}`);
  const proxy = hostProxy(host, options.env);
  const isChecked = !isRegistry(host, port, options);
  const { resolve = systemResolve } = options;
  const addresses = await allowedAddresses(host, resolve, proxy !== undefined, isChecked);
  if (proxy !== undefined) return await openThroughProxy(proxy, host, port, aborted);
  let last: unknown;
  for (const address of addresses) {
    try {
      const socket = await open(address, port, aborted);
      // Node does not list every address of this machine. But to these, Linux connects from the address itself.
      if (!isChecked || socket.localAddress !== socket.remoteAddress) return socket;
      socket.destroy();
      throw new Refusal(`${host} (${address}) is an address of this machine`);
    } catch (error) {
      if (error instanceof Refusal) throw error;
      if (aborted?.aborted) break;
      last = error;
    }
  }
  throw new Unreachable(HOST_PROBLEMS.refused(`${host}:${port}`, messageOf(last)));
}

/**
 * Checks a host without resolving its name. Returns why the host is refused, as words that follow "is".
 * @param host as for `connectUpstream`
 */
export function refusedUnresolved(host: string, port: number, options: UpstreamOptions): string | undefined {
  if (options.allowAddresses.has(`${host}:${port}`)) return undefined;
  const name = refusedName(host);
  if (name !== undefined || isIP(host) === 0 || isRegistry(host, port, options)) return name;
  return refusedAddress(host);
}

export function isRegistry(host: string, port: number, { registries }: UpstreamOptions): boolean {
  return registries?.has(`${host}:${port}`) === true;
}

export async function startTLS(
  socket: Socket,
  host: string,
  { authorities = NO_AUTHORITIES }: UpstreamOptions,
  aborted?: AbortSignal,
): Promise<Socket> {
  // A server name in TLS cannot be an address (RFC 6066, 3).
  const named = isIP(host) === 0 ? { servername: host } : { host };
  try {
    const secureContext = trusting(authorities);
    const secure = connectTLS({ socket, secureContext, ALPNProtocols: ["http/1.1"], ...named });
    return await waitUntilOpen(secure, "secureConnect", aborted);
  } catch (error) {
    socket.destroy();
    throw new Unreachable(HOST_PROBLEMS.noTLS(host, messageOf(error)));
  }
}

const contexts = new WeakMap<readonly string[], SecureContext>();

/** The contexts are cached: parsing more than a hundred certificates takes 60 ms, and megabytes of memory until V8 frees them. */
function trusting(authorities: readonly string[]): SecureContext {
  let context = contexts.get(authorities);
  if (context === undefined) {
    const ca = authorities.length === 0 ? undefined : [...getCACertificates("default"), ...authorities];
    context = createSecureContext({ ca });
    contexts.set(authorities, context);
  }
  return context;
}

/**
 * A host's addresses. If one address is refused, the name is refused, because a legitimate name does not have both public and
 * private addresses.
 * @param isBehindProxy whether connections use this machine's proxy, which may resolve more names than this machine. An unknown
 * name is then no error, and only the name is checked: docs/internals/security.md
 * @param isChecked false for the operator's package indexes
 */
async function allowedAddresses(
  host: string,
  resolve: (host: string) => Promise<string[]>,
  isBehindProxy: boolean,
  isChecked: boolean,
): Promise<string[]> {
  let addresses: string[];
  if (isIP(host) !== 0) addresses = [host];
  else {
    try {
      addresses = await resolve(host);
      // Node finds no address for an empty name, but throws no error. A proxy may take such a name for its own machine.
      if (addresses.length === 0) throw new Error("no address");
    } catch (error) {
      const name = refusedPrivateName(host);
      if (isBehindProxy && name !== undefined) throw new Refusal(`${host} is ${name}`);
      if (isBehindProxy) return [];
      throw new Unresolved(HOST_PROBLEMS.unresolved(host, messageOf(error)));
    }
  }
  for (const address of isChecked ? addresses : []) {
    const reason = refusedAddress(address);
    if (reason !== undefined)
      throw new Refusal(`${host}${address === host ? "" : ` (${address})`} is ${reason}`);
  }
  return addresses;
}

async function systemResolve(host: string): Promise<string[]> {
  return (await lookup(host, { all: true })).map(({ address }) => address);
}

async function open(host: string, port: number, aborted?: AbortSignal): Promise<Socket> {
  const socket = connectBuffered({ host, port, noDelay: true, autoSelectFamily: false });
  return await waitUntilOpen(socket, "connect", aborted);
}

async function waitUntilOpen<S extends Socket>(
  socket: S,
  event: "connect" | "secureConnect",
  aborted?: AbortSignal,
): Promise<S> {
  const opening = new Promise<void>((resolve, reject) => {
    const close = () => reject(new Error("closed"));
    socket.once("error", reject).once("close", close);
    socket.once(event, () => {
      socket.off("error", reject).off("close", close);
      resolve();
    });
  });
  await withTimeout(socket, opening, aborted);
  return socket;
}

async function withTimeout<T>(socket: Socket, step: Promise<T>, aborted?: AbortSignal): Promise<T> {
  const timer = setTimeout(() => socket.destroy(new Error("timed out")), connectTimeoutMs);
  const leave = () => socket.destroy(new Error(CLIENT_GONE));
  if (aborted?.aborted) leave();
  aborted?.addEventListener("abort", leave);
  try {
    return await step;
  } finally {
    clearTimeout(timer);
    aborted?.removeEventListener("abort", leave);
  }
}

export function hostProxy(host: string, env: NodeJS.ProcessEnv): URL | undefined {
  const exempt = (env.no_proxy ?? env.NO_PROXY ?? "").split(",").map((entry) => entry.trim().toLowerCase());
  for (const entry of exempt) {
    const suffix = entry.replace(/^\*?\.?/, "");
    if (entry === "*" || (suffix !== "" && (host === suffix || host.endsWith(`.${suffix}`))))
      return undefined;
  }
  const value = env.https_proxy ?? env.HTTPS_PROXY ?? env.http_proxy ?? env.HTTP_PROXY ?? "";
  return URL.canParse(value) ? new URL(value) : undefined;
}

async function openThroughProxy(
  proxy: URL,
  host: string,
  port: number,
  aborted?: AbortSignal,
): Promise<Socket> {
  const proxyHost = proxy.hostname.replace(/^\[|\]$/g, "");
  const isSecure = proxy.protocol === "https:";
  const proxyPort = Number(proxy.port || (isSecure ? 443 : 80));
  let socket: Socket;
  try {
    socket = isSecure
      ? await waitUntilOpen(
          connectTLS({ host: proxyHost, port: proxyPort, servername: proxyHost }),
          "secureConnect",
          aborted,
        )
      : await open(proxyHost, proxyPort, aborted);
  } catch (error) {
    // The message omits the proxy's address, because the sandbox need not know it.
    throw new Unreachable(HOST_PROBLEMS.proxy(codeOf(error) ?? "no response"));
  }
  const target = isIP(host) === 6 ? `[${host}]:${port}` : `${host}:${port}`;
  const credentials = `${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`;
  const authorization =
    proxy.username === ""
      ? ""
      : `Proxy-Authorization: Basic ${Buffer.from(credentials).toString("base64")}\r\n`;
  socket.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n${authorization}\r\n`);
  const { status, rest } = await withTimeout(socket, readHead(socket), aborted);
  if (status !== 200) {
    socket.destroy();
    throw new Unreachable(HOST_PROBLEMS.proxyStatus(status, target));
  }
  if (rest.length > 0) socket.unshift(rest);
  return socket;
}

async function readHead(socket: Socket): Promise<{ status: number; rest: Buffer }> {
  let received = Buffer.alloc(0);
  return await new Promise((resolve, reject) => {
    const fail = () => reject(new Unreachable(HOST_PROBLEMS.closed));
    const onData = (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf("\r\n\r\n");
      if (end < 0 && received.length < maxHeadBytes) return;
      socket.off("data", onData).off("close", fail).off("error", fail).pause();
      if (end < 0) return (void socket.destroy(), fail());
      const status = /^HTTP\/1\.[01] (\d{3})/.exec(received.subarray(0, 64).toString("latin1"))?.[1];
      resolve({ status: Number(status ?? 502), rest: received.subarray(end + 4) });
    };
    socket.on("data", onData).once("close", fail).once("error", fail);
  });
}
