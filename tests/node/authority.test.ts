import { once } from "node:events";
import { readFile, stat, truncate } from "node:fs/promises";
import { createServer } from "node:https";
import { join } from "node:path";
import type * as nodeCrypto from "node:crypto";
import { X509Certificate } from "node:crypto";
import { connect, type PeerCertificate, TLSSocket } from "node:tls";
import { callbackify } from "node:util";
import { expect, it, vi } from "vitest";
import { CertificateAuthority } from "../../local/engine/authority.ts";
import { DAY_MS } from "../../src/shared/days.ts";
import { connectUpstream, startTLS } from "../../local/engine/upstream.ts";
import { upstreamTo } from "../setup/egress.ts";
import { endLater } from "../setup/end-later.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { listen } from "../setup/listen.ts";

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
    return await startTLS(await connectUpstream(host, 443, options), host, options);
  };
  const socket = await reach("api.example.com", [good?.pem ?? ""]);
  expect(socket).toBeInstanceOf(TLSSocket);
  socket.destroy();
  for (const authorities of [[], [bad?.pem ?? ""]])
    await expect(reach("api.example.com", authorities)).rejects.toThrow("could not be reached by TLS");
});
