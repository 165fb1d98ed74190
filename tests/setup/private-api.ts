/**
 * Servers on loopback in place of APIs that need a credential, for tests of `SECRETS`. They list their requests over plain
 * HTTP, because tests in workerd cannot listen.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createPlainServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer } from "node:https";
import { tmpdir } from "node:os";
import { buffer } from "node:stream/consumers";
import { join } from "node:path";
import { callbackify } from "node:util";
import { brotliCompressSync, gzipSync } from "node:zlib";
import { CertificateAuthority } from "../../local/engine/authority.ts";
import type { Arrived } from "./private-secrets.ts";
import { listen } from "./listen.ts";

interface PrivateAPI {
  /** The URL that lists the requests since the last call. */
  url: string;
  /** For the engine: the hosts' addresses, and the authority of their certificates. */
  allowAddresses: string[];
  trusted: string;
  close(): void;
}

const HOSTS = [
  "api.private.test",
  "git.private.test",
  "a.query.test",
  "other.private.test",
  "smart.private.test",
  "smart-other.private.test",
];

export async function playPrivateAPI(): Promise<PrivateAPI> {
  const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-private-"));
  const authority = await CertificateAuthority.open(join(directory, "authority"));
  const repository = makeRepository(directory);
  const arrived: Arrived[] = [];
  const server = createServer(
    {
      SNICallback: callbackify((name: string) => authority.contextFor(name)),
      ALPNProtocols: ["http/1.1"],
    },
    async (request, response) => {
      const { host = "", authorization } = request.headers;
      const body = await buffer(request);
      const { url = "" } = request;
      arrived.push({ host, url, authorization, body: body.toString() });
      // Never responds, and lists the end of the connection too.
      if (url === "/silent")
        return void response.on("close", () => arrived.push({ host, url: `${url} closed`, body: "" }));
      if (request.url?.startsWith("/smart.git/")) respondAsGit(repository, request, body, response);
      else respond(repository, request, response);
    },
  );
  // Two test files read the list at the same time: one for hosts that begin with `smart`, and one for all others.
  const requestList = createPlainServer((request, response) => {
    const isOf = ({ host }: Arrived) => host.startsWith("smart") === (request.url === "/smart");
    const matching = arrived.filter(isOf);
    arrived.splice(0, arrived.length, ...arrived.filter((one) => !isOf(one)));
    response.end(JSON.stringify(matching));
  });
  const [port, listPort] = [await listen(server), await listen(requestList)];
  const hosts = HOSTS.flatMap((host) => [`${host}:443`, `${host}:8443`]);
  return {
    url: `http://127.0.0.1:${listPort}/`,
    allowAddresses: hosts.map((host) => `${host}=${port}`),
    trusted: authority.pem,
    close: () => {
      for (const one of [server, requestList]) {
        one.close();
        one.closeAllConnections();
      }
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

function respond(
  repository: string,
  { url = "/", headers }: IncomingMessage,
  response: ServerResponse,
): void {
  const { authorization = "", host } = headers;
  const { pathname, searchParams } = new URL(url, "https://any.test");
  const credential = host === "a.query.test" ? (searchParams.get("key") ?? "") : authorization;
  if (pathname === "/echo") {
    const { "accept-encoding": accept, "cf-worker": worker, "x-name": name, range } = headers;
    // Node reads a header as Latin-1.
    const bytes = name === undefined ? undefined : Buffer.from(String(name), "latin1").toString("hex");
    const body = JSON.stringify({ given: credential, accept, worker, range, name: bytes });
    const head = {
      "x-echo": credential,
      "set-cookie": [`a=${credential}`, "b=2"],
      "content-length": body.length,
    };
    return void response.writeHead(200, head).end(body);
  }
  if (pathname === "/gzip") {
    const body = gzipSync(`gzip ${credential}`);
    const head = { "content-encoding": "gzip", "content-length": body.length };
    return void response.writeHead(200, head).end(body);
  }
  if (pathname.startsWith("/coded/"))
    return void response.writeHead(200, { "content-encoding": pathname.slice(7) }).end(credential);
  if (pathname === "/brotli")
    return void response
      .writeHead(200, { "content-encoding": "br" })
      .end(brotliCompressSync(`br ${credential}`));
  if (pathname.startsWith("/raw/")) return void response.socket?.end(decodeURIComponent(pathname.slice(5)));
  if (pathname === "/pieces") {
    const [first, second] = [credential.slice(0, 12), credential.slice(12)];
    response.write(`begins ${first}`);
    // The next turn of the event loop sends another chunk.
    return void setImmediate(() => response.end(`${second} ends`));
  }
  if (pathname.startsWith("/broken/")) {
    const coding = pathname.slice(8);
    const body = coding === "gzip" ? gzipSync(randomBytes(200_000)) : randomBytes(200_000);
    // The last byte is missing, and the response declares no length.
    return void response
      .writeHead(200, { "content-encoding": coding })
      .write(body.subarray(0, -1), () => response.destroy());
  }
  // The response stays open until its reader disconnects.
  if (pathname === "/endless") return void response.write("begins\n");
  if (pathname === "/moved")
    return void response
      .writeHead(302, {
        location: `https://other.private.test/landed?from=${encodeURIComponent(credential)}`,
      })
      .end();
  if (!pathname.startsWith("/repo.git/")) return void response.writeHead(404).end();
  if (authorization === "") return void response.writeHead(401, { "www-authenticate": "Basic" }).end();
  try {
    response.end(readFileSync(join(repository, pathname.replaceAll("..", ""))));
  } catch {
    response.writeHead(404).end();
  }
}

/** Serves git's smart protocol to requests with a password that begins with `good-`. Repeats the password in a header. */
function respondAsGit(
  repository: string,
  { url = "/", headers }: IncomingMessage,
  body: Buffer,
  response: ServerResponse,
): void {
  const { pathname, searchParams } = new URL(url, "https://any.test");
  const password = atob((headers.authorization ?? "").replace("Basic ", "")).replace(/^[^:]*:/, "");
  if (!password.startsWith("good-"))
    return void response
      .writeHead(401, { "www-authenticate": "Basic", "x-echo": headers.authorization ?? "" })
      .end();
  const isRefsRequest = pathname.endsWith("/info/refs");
  const service = (
    isRefsRequest ? (searchParams.get("service") ?? "") : (pathname.split("/").at(-1) ?? "")
  ).slice(4);
  if (pathname.startsWith("/smart.git/away/"))
    return void response
      .writeHead(302, {
        location: `https://smart-other.private.test/smart.git/info/refs${new URL(url, "https://any.test").search}`,
      })
      .end();
  const flags = ["--stateless-rpc", ...(isRefsRequest ? ["--http-backend-info-refs"] : [])];
  const out = execFileSync("git", [service, ...flags, join(repository, "repo.git")], { input: body });
  const line = `# service=git-${service}\n`;
  const head = isRefsRequest ? `${(line.length + 4).toString(16).padStart(4, "0")}${line}0000` : "";
  const type = `application/x-git-${service}-${isRefsRequest ? "advertisement" : "result"}`;
  response
    .writeHead(200, { "content-type": type, "x-echo": password })
    .end(Buffer.concat([Buffer.from(head), out]));
}

/** A repository that git can read as plain files. */
function makeRepository(directory: string): string {
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=t", "-c", "user.email=t@localhost", ...args], { cwd: directory });
  git("init", "-q", "-b", "main", "work");
  writeFileSync(join(directory, "work/private.txt"), "of the private repository\n");
  git("-C", "work", "add", ".");
  git("-C", "work", "commit", "-qm", "first");
  git("clone", "-q", "--bare", "work", "repo.git");
  git("-C", "repo.git", "update-server-info");
  return directory;
}
