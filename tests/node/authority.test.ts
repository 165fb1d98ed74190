import { once } from "node:events";
import { readFile, stat, truncate } from "node:fs/promises";
import { createServer } from "node:https";
import { createServer as createTCPServer, type Socket } from "node:net";
import { join } from "node:path";
import type * as nodeCrypto from "node:crypto";
import { X509Certificate } from "node:crypto";
import { connect, type PeerCertificate, TLSSocket } from "node:tls";
import { setImmediate as nextTurn } from "node:timers/promises";
import { callbackify } from "node:util";
import { describe, expect, it, vi } from "vitest";
import { Pace } from "../../container/sandboxd/pace.ts";
import { CertificateAuthority } from "../../local/engine/authority.ts";
import { DAY_MS } from "../../src/shared/days.ts";
import { Pieces, shortReads } from "../../local/engine/piece-limit.ts";
import { connectUpstream, startTLS } from "../../local/engine/upstream.ts";
import { costlyCertificates } from "../setup/costly-certificates.ts";
import { testEgress, upstreamTo } from "../setup/egress.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { keyUpdates } from "../setup/key-updates.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { connectTo, listen } from "../setup/listen.ts";

/** Makes all serial numbers begin with zeros, as one random number in several hundred does. OpenSSL refuses leading zeros. */
vi.mock("node:crypto", async (original) => {
  const crypto = await original<typeof nodeCrypto>();
  const randomBytes = (size: number) => Buffer.concat([Buffer.alloc(2), crypto.randomBytes(size - 2)]);
  return { ...crypto, randomBytes };
});

const directory = temporaryDirectory();

/** Starts a server with a certificate for `name`, and a client that trusts this authority. Returns the certificate or the error. */
async function peerCertificate(
  authority: CertificateAuthority,
  name: string,
  serverName: string,
): Promise<PeerCertificate | Error> {
  const server = createServer({
    SNICallback: callbackify((_name: string) => authority.contextFor(name)),
  });
  const port = await listen(endLater(server));
  const client = connect({ host: "127.0.0.1", port, servername: serverName, ca: authority.pem });
  try {
    await once(client, "secureConnect");
    return client.getPeerCertificate();
  } catch (error) {
    return error as Error;
  } finally {
    client.destroy();
  }
}

it("the authority of a directory is created once, and only its owner can read the key", async () => {
  const ownDirectory = join(directory, "own");
  const { pem } = await CertificateAuthority.open(ownDirectory);
  expect((await CertificateAuthority.open(ownDirectory)).pem).toBe(pem);
  expect((await stat(ownDirectory)).mode & 0o777).toBe(0o700);
  expect((await stat(join(ownDirectory, "key.pem"))).mode & 0o777).toBe(0o600);
  expect(pem).not.toContain("PRIVATE");
  const { ca, subject } = new X509Certificate(pem);
  expect({ ca, subject }).toEqual({ ca: true, subject: "CN=sandbox-mcp on this machine" });
});

it("the authority is recreated if its key file is incomplete", async () => {
  const ownDirectory = join(directory, "torn");
  const { pem } = await CertificateAuthority.open(ownDirectory);
  await truncate(join(ownDirectory, "key.pem"), 100);
  const reopened = await CertificateAuthority.open(ownDirectory);
  expect(reopened.pem).not.toBe(pem);
  expect(await readFile(join(ownDirectory, "certificate.pem"), "utf8")).toBe(reopened.pem);
});

it("the authority and its certificates are made again after the clock was set back, because they are not valid yet", async () => {
  const ownDirectory = join(directory, "ahead");
  vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + 365 * DAY_MS });
  const ahead = await CertificateAuthority.open(ownDirectory);
  const early = await ahead.contextFor("api.example.com");
  vi.useRealTimers();
  expect(await ahead.contextFor("api.example.com")).not.toBe(early);
  const authority = await CertificateAuthority.open(ownDirectory);
  const certificate = await peerCertificate(authority, "api.example.com", "api.example.com");
  expect(certificate).toMatchObject({ subjectaltname: "DNS:api.example.com" });
});

it("the authority issues a certificate for the requested host only", async () => {
  const authority = await CertificateAuthority.open(join(directory, "hosts"));
  const certificate = await peerCertificate(authority, "api.example.com", "api.example.com");
  expect(certificate).toMatchObject({ subjectaltname: "DNS:api.example.com" });
  expect(await peerCertificate(authority, "api.example.com", "b.example.com")).toMatchObject({
    code: "ERR_TLS_CERT_ALTNAME_INVALID",
  });
});

it("a program in a sandbox cannot repeat the handshake of its connection", async () => {
  const authority = await CertificateAuthority.open(join(directory, "renegotiation"));
  const secureContext = await authority.contextFor("example.com");
  const accept = (socket: Socket) => new TLSSocket(socket, { isServer: true, secureContext }).resume();
  const port = await listen(
    endLater(createTCPServer((socket) => void accept(socket).on("error", () => undefined))),
  );
  const options = { port, servername: "example.com", ca: authority.pem, maxVersion: "TLSv1.2" } as const;
  const client = connect(options);
  doLater(() => client.destroy());
  await once(client, "secureConnect");
  const repeated = new Promise((resolve) => {
    client.on("error", resolve);
    client.renegotiate({}, resolve);
  });
  expect(await repeated).toMatchObject({ message: expect.stringContaining("no renegotiation") });
});

it("the engine sends no request to a server without a valid certificate", async () => {
  const [good, bad] = await Promise.all(
    ["good", "bad"].map((name) => CertificateAuthority.open(join(directory, name))),
  );
  const server = createServer({
    SNICallback: callbackify(async (name: string) => await good?.contextFor(name)),
  });
  const port = await listen(endLater(server));
  const reach = async (host: string, authorities: string[]) => {
    const options = { ...upstreamTo({ [`${host}:443`]: port }), authorities };
    return await startTLS(await connectUpstream(host, 443, options), host, options, shortReads());
  };
  const socket = await reach("api.example.com", [good?.pem ?? ""]);
  expect(socket).toBeInstanceOf(TLSSocket);
  socket.destroy();
  for (const authorities of [[], [bad?.pem ?? ""]])
    await expect(reach("api.example.com", authorities)).rejects.toThrow("could not be reached by TLS");
});

describe("if a host's certificates are slow to verify", () => {
  const host = "host.test";
  /** Connects to a host with this many slow certificates. Returns why the connection failed. */
  const failureWith = async (count: number, reads: Pieces): Promise<string> => {
    const server = createServer(costlyCertificates(count));
    server.on("tlsClientError", () => undefined);
    const options = upstreamTo({ [`${host}:443`]: await listen(endLater(server)) });
    const failure = startTLS(await connectUpstream(host, 443, options), host, options, reads);
    return await failure.then(
      () => "no failure",
      ({ message }: Error) => message,
    );
  };

  it("the engine reads no more than 16 KB of them", async () => {
    expect(await failureWith(9, shortReads())).toContain("signature");
    expect(await failureWith(11, shortReads())).toContain("its handshake is too long");
  });

  it("their processor time counts as short reads", async () => {
    const reads = new Pieces({ pace: new Pace({ burst: 100, perSecond: 1 }) });
    await failureWith(9, reads);
    expect(reads.isPaused).toBe(true);
  });
});

describe("the engine limits the rate of key updates", () => {
  const host = "host.test";
  const ciphers = "TLS_AES_128_GCM_SHA256";
  /** The traffic secret in a line for a key log; undefined if it is another secret. */
  const secretIn = (line: Buffer, side: "CLIENT" | "SERVER") =>
    new RegExp(`^${side}_TRAFFIC_SECRET_0 \\w+ (\\w+)`).exec(line.toString())?.[1];

  it("of a host", async () => {
    const authority = await CertificateAuthority.open(join(directory, "host-updates"));
    const SNICallback = callbackify((name: string) => authority.contextFor(name));
    const server = createServer({ SNICallback, ciphers });
    const port = await listen(server);
    let secret = "";
    server.on("keylog", (line: Buffer) => (secret ||= secretIn(line, "SERVER") ?? ""));
    server.on("secureConnection", (open: TLSSocket) => open.write("hello"));
    const raw = once(server, "connection");
    const options = { ...upstreamTo({ [`${host}:443`]: port }), authorities: [authority.pem] };
    const reads = shortReads();
    const socket = await startTLS(await connectUpstream(host, 443, options), host, options, reads);
    await once(socket, "data");
    expect(reads.isPaused).toBe(false);
    const [connection]: Socket[] = await raw;
    // OpenSSL has sent two session tickets and the greeting.
    connection?.write(keyUpdates(Buffer.from(secret, "hex"), 3, 10_000));
    await expect.poll(() => reads.isPaused).toBe(true);
    socket.destroy();
    server.close();
    server.closeAllConnections();
  });

  it("of a program in a sandbox", async () => {
    const authority = await CertificateAuthority.open(join(directory, "program-updates"));
    const reads = shortReads();
    const server = testEgress({ https: [host], reads, authority });
    const socket = await connectTo(await listen(server));
    socket.write(`CONNECT ${host}:443 HTTP/1.1\r\nHost: ${host}:443\r\n\r\n`);
    await once(socket, "data");
    const secure = connect({ socket, servername: host, ca: authority.pem, ciphers });
    let secret = "";
    secure.on("keylog", (line) => (secret ||= secretIn(line, "CLIENT") ?? ""));
    await once(secure, "secureConnect");
    // Node sends the end of the handshake only after this event.
    await nextTurn();
    expect(reads.isPaused).toBe(false);
    socket.write(keyUpdates(Buffer.from(secret, "hex"), 0, 10_000));
    await expect.poll(() => reads.isPaused).toBe(true);
    secure.destroy();
    server.close();
    server.closeAllConnections();
  });
});
