/** TLS records with data: the engine decrypts each only after the data of the earlier ones has counted. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:https";
import type { Socket } from "node:net";
import { buffer } from "node:stream/consumers";
import { connect, type TLSSocket } from "node:tls";
import { callbackify } from "node:util";
import { expect, it } from "vitest";
import { Pace } from "../../container/sandboxd/pace.ts";
import { CertificateAuthority } from "../../local/engine/authority.ts";
import { Pieces, shortReads } from "../../local/engine/piece-limit.ts";
import { connectUpstream, startTLS, type UpstreamOptions } from "../../local/engine/upstream.ts";
import { testEgress, upstreamTo } from "../setup/egress.ts";
import { doLater, endLater } from "../setup/end-later.ts";
import { connectTo, listen } from "../setup/listen.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { until } from "../setup/until.ts";

const HOST = "host.test";
/** The shortest content of a record that OpenSSL can be asked for. */
const RECORD_BYTES = 512;
/** More than the engine's connections and the kernel keep for a reader. */
const SENT_BYTES = 512 * 1024;
/** When a connection has received so much, the engine has handled its first records. */
const RECEIVED_BYTES = 50_000;

const authority = await CertificateAuthority.open(temporaryDirectory());

/** Starts TLS in a tunnel through a proxy that intercepts the host. Returns both ends, and the encrypted connection of the proxy. */
async function openTunnel(
  pieces = new Pieces(),
): Promise<{ program: TLSSocket; raw: Socket; secure: TLSSocket }> {
  const proxy = endLater(testEgress({ https: [HOST], authority, pieces }));
  const tunnel = once(proxy, "connect");
  const socket = await connectTo(await listen(proxy));
  doLater(() => socket.destroy());
  socket.write(`CONNECT ${HOST}:443 HTTP/1.1\r\nHost: ${HOST}:443\r\n\r\n`);
  await once(socket, "data");
  const accepted = once(proxy, "connection");
  const program = connect({ socket, servername: HOST, ca: authority.pem }).on("error", () => undefined);
  await once(program, "secureConnect");
  program.setMaxSendFragment(RECORD_BYTES);
  return { program, raw: (await tunnel)[1], secure: (await accepted)[0] };
}

async function startHost(onOpen: (socket: TLSSocket) => void): Promise<UpstreamOptions> {
  const host = createServer({ SNICallback: callbackify((name: string) => authority.contextFor(name)) });
  host.on("secureConnection", (socket: TLSSocket) => {
    socket.on("error", () => undefined).setMaxSendFragment(RECORD_BYTES);
    onOpen(socket);
  });
  const port = await listen(endLater(host));
  return { ...upstreamTo({ [`${HOST}:443`]: port }), authorities: [authority.pem] };
}

it("a program's records are not decrypted while its sandbox exceeds a limit", async () => {
  const { program, raw, secure } = await openTunnel(
    new Pieces({ pace: new Pace({ burst: 200, perSecond: 1 }) }),
  );
  program.write(`POST / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${SENT_BYTES}\r\n\r\n`);
  program.write(Buffer.alloc(SENT_BYTES));
  await until(() => raw.bytesRead > RECEIVED_BYTES);
  expect(secure.bytesRead).toBeLessThan(RECEIVED_BYTES / 2);
});

it("a program's records are not decrypted while nobody reads their data", async () => {
  const { program, raw, secure } = await openTunnel();
  secure.pause();
  program.write(Buffer.alloc(SENT_BYTES));
  await until(() => raw.bytesRead > RECEIVED_BYTES);
  expect(secure.bytesRead).toBeLessThanOrEqual(RECORD_BYTES);
});

it("a host's records are not decrypted while nobody reads their data", async () => {
  const options = await startHost((socket) => socket.write(Buffer.alloc(SENT_BYTES)));
  const raw = await connectUpstream(HOST, 443, options);
  const secure = await startTLS(raw, HOST, options, shortReads());
  doLater(() => secure.destroy());
  await until(() => raw.bytesRead > RECEIVED_BYTES);
  expect(secure.bytesRead).toBeLessThanOrEqual(RECORD_BYTES);
});

it("after pauses, all data of a host arrives, also if the host has closed the connection meanwhile", async () => {
  const sent = randomBytes(SENT_BYTES);
  const options = await startHost((socket) => socket.end(sent));
  const reads = new Pieces({ pace: new Pace({ burst: 50, perSecond: 2000 }) });
  const raw = await connectUpstream(HOST, 443, options);
  const secure = await startTLS(raw, HOST, options, reads);
  let pauses = 0;
  raw.on("pause", () => pauses++);
  reads.count(secure);
  expect((await buffer(secure)).equals(sent)).toBe(true);
  expect(pauses).toBeGreaterThan(10);
});
