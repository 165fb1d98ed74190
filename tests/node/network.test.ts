/** Requests of a sandbox that the proxy passes on, refuses, or gives to the Worker. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import {
  Agent,
  createServer,
  type IncomingMessage,
  request as httpRequest,
  type RequestOptions,
} from "node:http";
import { createServer as createTCPServer } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { join as joinPath } from "node:path";
import type { Duplex } from "node:stream";
import { text } from "node:stream/consumers";
import { beforeEach, describe, expect, it } from "vitest";
import { hostCertificates } from "../../local/engine/certificates.ts";
import { hostRegistries } from "../../local/engine/registries.ts";
import { frame, SECRET_HEADER, URL_HEADER } from "../../local/platform/engine-protocol.ts";
import { endLater } from "../setup/end-later.ts";
import { startTestEngine, TestSandbox } from "../setup/engine-client.ts";
import { listen } from "../setup/listen.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { sleep } from "../setup/until.ts";

/** A body of 4 MB in which no 32-bit word repeats, so that a test notices each missing or repeated piece. */
const large = Buffer.from(Uint32Array.from({ length: 1_000_003 }, (_, index) => index).buffer);

/**
 * A server that violates HTTP. Sandboxes reach it as odd.test. By default it sends the request's path as its status line; the path
 * may contain headers, too. `/interim-<n>` sends n interim responses before the final one. `/large` sends a large body and a second
 * response that nobody requested, also to HEAD. `/broken` sends half of that body. The body of `/planted-<status>` looks like a
 * response. `/late` sends a second response 50 ms after the first. `/fields-<n>` sends n header fields.
 */
const violator = createTCPServer((socket) => {
  socket.on("error", () => undefined);
  socket.on("data", (data) => {
    const half = /^[A-Z]+ \/(large|broken) /.exec(data.toString("latin1"))?.[1];
    if (half !== undefined) {
      // A Connection header must not make the proxy drop the headers that give the body's length.
      const named = "Connection: close, content-length, transfer-encoding\r\n";
      socket.write(`HTTP/1.1 200 OK\r\n${named}Content-Length: ${large.length}\r\n\r\n`);
      if (half === "broken") return void socket.end(large.subarray(0, large.length / 2));
      socket.write(large);
      return void socket.end("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted");
    }
    const planted = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nplanted";
    const planting = /^[A-Z]+ \/planted-(\d+) /.exec(data.toString("latin1"))?.[1];
    if (planting !== undefined)
      return void socket.write(
        `HTTP/1.1 ${planting} Odd\r\nContent-Length: ${planted.length}\r\n\r\n${planted}`,
      );
    if (data.toString("latin1").startsWith("GET /late ")) {
      socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
      return void setTimeout(() => socket.write(planted), 50);
    }
    const interim = Number(/^[A-Z]+ \/interim-(\d+) /.exec(data.toString("latin1"))?.[1] ?? 0);
    for (const status of interim > 0 ? ["100 Continue", "103 Early Hints\r\nLink: </a>"] : [])
      socket.write(`HTTP/1.1 ${status}\r\n\r\n`.repeat(interim));
    if (interim > 0) return void socket.end("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    const fields = Number(/^[A-Z]+ \/fields-(\d+) /.exec(data.toString("latin1"))?.[1] ?? 0);
    const chunked = "Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n";
    if (fields > 0) return void socket.end(`HTTP/1.1 200 OK\r\n${"a:b\r\n".repeat(fields - 1)}${chunked}`);
    const head = decodeURIComponent(/^GET \/(\S+)/.exec(data.toString("latin1"))?.[1] ?? "");
    const length = /transfer-encoding/i.test(head) ? "" : "Content-Length: 2\r\n";
    socket.end(`HTTP/1.1 ${head}\r\n${length}\r\nhi`);
  });
});
/** A server of WebSockets, which sandboxes reach as socket.test. */
const sockets = createServer().on("upgrade", (_request, socket: Duplex) => {
  socket.on("error", () => undefined);
  socket.end("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nframes");
});
const receivedRequests: { method: string; url: string; host: string | undefined; body: string }[] = [];
let localHits = 0;
/** A service of this machine that no sandbox may reach. */
const local = createServer((_request, response) => {
  localHits += 1;
  response.end("local");
});
const localPort = await listen(endLater(local));
/** A server of the internet, which sandboxes reach as internet.test. */
const internet = createServer(async (request: IncomingMessage, response) => {
  const { method = "", url = "", headers } = request;
  receivedRequests.push({ method, url, host: headers.host, body: await text(request) });
  if (url === "/to-local")
    response.writeHead(302, { location: `http://127.0.0.1:${localPort}/secret` }).end();
  else if (url.startsWith("/npm-package"))
    response.setHeader("content-type", "application/json").end(packument());
  else if (url.startsWith("/simple/")) response.writeHead(404).end();
  else if (url === "/unfinished") response.write("begun");
  else if (url.startsWith("/bytes-")) response.end(Buffer.alloc(Number(url.slice("/bytes-".length)), "x"));
  else response.end(`hello from ${headers.host}`);
});
const internetPort = await listen(endLater(internet));
const oddPort = await listen(endLater(violator));
const allowAddresses = [
  `socket.test:80=${await listen(endLater(sockets))}`,
  ...[80, 443].map((at) => `odd.test:${at}=${oddPort}`),
  ...[80, 8080, 443].map((at) => `internet.test:${at}=${internetPort}`),
];
const engine = endLater(await startTestEngine({ allowAddresses }));
const closed = endLater(await startTestEngine({ network: "none", allowAddresses }));
const intercepted = { http: ["api.internal", "*.wild.test"], https: ["secure.test"] };
const [sandbox, offline] = await Promise.all([
  TestSandbox.start(engine, { intercepts: intercepted }),
  TestSandbox.start(closed, { intercepts: intercepted }),
]);

beforeEach(() => {
  receivedRequests.length = 0;
  localHits = 0;
});

function packument(): string {
  return JSON.stringify({
    name: "npm-package",
    "dist-tags": { latest: "1.2.3" },
    versions: { "1.2.3": { name: "npm-package", version: "1.2.3", dist: {} } },
  });
}

/** Runs curl in the sandbox, with the proxy for all hosts. */
const curl = "curl -sS --noproxy '' --max-time 20";

describe("a sandbox's way to the internet", () => {
  it("works for curl, on any port, tunnelled or not, with a body", async () => {
    expect((await sandbox.run("curl -sS http://internet.test/a?b=c")).stdout).toBe(
      "hello from internet.test",
    );
    expect((await sandbox.run("curl -sS http://internet.test:8080/")).stdout).toBe(
      "hello from internet.test:8080",
    );
    expect((await sandbox.run("curl -sS -p http://internet.test/tunnelled")).stdout).toBe(
      "hello from internet.test",
    );
    await sandbox.run("head -c 300000 /dev/zero | tr '\\0' x | curl -sS -T - http://internet.test/upload");
    expect(receivedRequests.at(0)).toMatchObject({ method: "GET", url: "/a?b=c", host: "internet.test" });
    expect(receivedRequests.at(-1)?.body.length).toBe(300_000);
  });

  it("works for npm, pip, git, node and Java without configuration", async () => {
    const view = await sandbox.run("npm view --registry http://internet.test/ npm-package version");
    expect(view.stdout).toBe("1.2.3");
    await sandbox.run(
      "pip download --index-url http://internet.test/simple/ --trusted-host internet.test wheelhouse",
    );
    await sandbox.run("git ls-remote http://internet.test/repository.git");
    await sandbox.run("node -e 'fetch(\"http://internet.test/from-node\")'");
    const urls = receivedRequests.map(({ url }) => url);
    expect(urls).toContain("/simple/wheelhouse/");
    expect(urls).toContain("/repository.git/info/refs?service=git-upload-pack");
    expect(urls).toContain("/from-node");
    // Only some machines have Java, and it starts slowly, so the test reads its settings.
    const java = "cat /usr/lib/jvm/*/conf/net.properties 2>/dev/null | sort | uniq -c";
    const homes = existsSync("/usr/lib/jvm") ? readdirSync("/usr/lib/jvm") : [];
    const set = homes.filter((home) => existsSync(`/usr/lib/jvm/${home}/conf/net.properties`)).length;
    for (const setting of set > 0 ? ["https.proxyHost=127.0.0.1", "https.proxyPort=3128"] : [])
      expect((await sandbox.run(java)).stdout).toContain(`${set} ${setting}\n`);
  });

  it("passes on a complete large body to a slow reader, and nothing after its end", async () => {
    const script = `
import hashlib, socket
def connected():
    proxy = socket.socket()
    proxy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    proxy.connect(("127.0.0.1", 3128))
    return proxy, proxy.makefile("rb")
def ask(connection, line):
    connection[0].sendall(line + b" HTTP/1.1\\r\\nHost: odd.test\\r\\n\\r\\n")
    while connection[1].readline().strip(): pass
def body(connection, left):
    digest = hashlib.sha256()
    while piece := connection[1].read(min(20000, left)):
        digest.update(piece)
        left -= len(piece)
    return digest.hexdigest() if left == 0 else left
one, tunnel = connected(), connected()
ask(one, b"GET http://odd.test/large")
print(body(one, ${large.length}))
ask(one, b"HEAD http://odd.test/large")
ask(one, b"GET http://odd.test/200%20OK")
print(one[1].read(2).decode())
ask(one, b"GET http://odd.test/broken")
print(body(one, ${large.length}))
ask(tunnel, b"CONNECT odd.test:443")
ask(tunnel, b"GET /large")
print(body(tunnel, ${large.length}))`;
    const { stdout, stderr } = await sandbox.python(script);
    expect(stderr).toBe("");
    const digest = createHash("sha256").update(large).digest("hex");
    expect(stdout.trim().split("\n")).toEqual([digest, "hi", `${large.length / 2}`, digest]);
  });

  it.each([
    "GET /large",
    "HEAD /large",
    "GET /late",
    "GET /planted-204",
    "GET /planted-205",
    "GET /planted-304",
  ])(
    "a response that a host sends without a request, after %s, is not used for another request on the Worker's connection",
    async (line) => {
      const [method, path] = line.split(" ");
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const { port } = new URL(engine.url);
      const ask = async (options: RequestOptions) => {
        const given = { [SECRET_HEADER]: engine.secret, ...options.headers };
        const call = httpRequest({ port, agent, ...options, headers: given }).end();
        const [response] = (await once(call, "response")) as [IncomingMessage];
        return await text(response);
      };
      const headers = { [URL_HEADER]: `http://odd.test${path}` };
      const first = await ask({ method, path: `/actors/${sandbox.id}/internet`, headers });
      expect(first.endsWith("planted")).toBe(path === "/planted-205");
      for (let turn = 0; turn < 4; turn++) {
        expect(await ask({ path: "/boot" })).toBe(JSON.stringify({ boot: engine.engine.boot }));
        await sleep(30);
      }
      agent.destroy();
    },
  );

  it("uses the host of the URL, not one from a header", async () => {
    await sandbox.run(`${curl} -H 'Host: other.test' http://internet.test/`);
    expect(receivedRequests.at(0)?.host).toBe("internet.test");
  });

  it.each([
    "200%20O%01K",
    "200%20%7f",
    "000%20OK",
    "099%20OK",
    "101%20Switching",
    "101%20Switching%0d%0aConnection:%20upgrade%0d%0aUpgrade:%20other",
    "200%20OK%0d%0aTransfer-Encoding:%20gzip,%20chunked",
  ])("turns the invalid response head %s into a 502, and continues to work", async (head) => {
    const { stdout } = await sandbox.run(`${curl} -w '%{http_code}' http://odd.test/${head}`);
    expect(stdout).toMatch(/odd\.test sent a response that is not HTTP\.\s*502$/);
    expect(await sandbox.run("curl -sS http://internet.test/")).toMatchObject({
      stdout: "hello from internet.test",
      stderr: "",
    });
  });

  it("passes on a response after interim responses", async () => {
    expect((await sandbox.run(`${curl} -w '%{http_code}' http://odd.test/interim-50`)).stdout).toBe("hi200");
  });

  it("refuses a response with more header fields than Node reads, because one of the fields that Node drops may give the body's length", async () => {
    const status = `${curl} -w '%{http_code}' http://odd.test/fields-`;
    expect((await sandbox.run(`${status}900`)).stdout).toBe("hi200");
    expect((await sandbox.run(`${status}1001`)).stdout).toMatch(/is not HTTP\.\s*502$/);
  });

  it("refuses a request with thousands of header fields", async () => {
    const script = `
import socket
def respond(fields, line):
    proxy = socket.create_connection(("127.0.0.1", 3128))
    try:
        proxy.sendall(b"GET http://internet.test/ HTTP/1.1\\r\\nHost: internet.test\\r\\n" + line * fields + b"\\r\\n")
        return proxy.recv(12).decode()
    except OSError: return ""
print(respond(900, b"a:b\\r\\n"), respond(1001, b"a:b\\r\\n"), respond(8000, b"a:\\r\\n"), respond(10000, b"a:b\\r\\n"), sep=";")`;
    expect(await sandbox.python(script)).toMatchObject({ stdout: "HTTP/1.1 200;;;", stderr: "" });
    expect(receivedRequests).toHaveLength(1);
  });

  it("passes on accepted WebSockets, and the responses of servers that refuse them", async () => {
    const ownSandbox = await TestSandbox.start(engine);
    const ask = async (url: string) => (await ownSandbox.run(`${curl} -i ${upgrade} ${url}`)).stdout;
    const upgrade = "-H 'connection: upgrade' -H 'upgrade: websocket' -m 2";
    expect(await ask("http://socket.test/")).toMatch(
      /^HTTP\/1\.1 101 [^]*upgrade: websocket\r\n[^]*frames$/i,
    );
    expect(await ask("http://odd.test/101%20Switching")).toMatch(/^HTTP\/1\.1 502 [^]*not HTTP/);
    expect(await ask("http://odd.test/401%20No%0d%0aX-Why:%20key")).toMatch(
      /^HTTP\/1\.1 401 No\r\nX-Why: key[^]*hi$/,
    );
    expect(await ask("http://10.0.0.1/")).toMatch(/^HTTP\/1\.1 403 /);
    await ownSandbox.run(`${curl} -H 'connection: upgrade' -H 'upgrade: other' http://odd.test/200%20OK`);
    const { connections } = JSON.parse(await (await ownSandbox.call("GET", "/connections")).text());
    expect(connections.map(({ status }: { status: number }) => status)).toEqual([101, 502, 401, 403, 101]);
    await ownSandbox.destroy();
  });

  it("survives an upgrade or a tunnel that a program requests before it has read the earlier response, or before that has ended", async () => {
    const script = `import socket, time
def request(line, *fields): return "\\r\\n".join([line + " HTTP/1.1", "Host: internet.test", *fields, "", ""]).encode()
def connect():
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.connect(("127.0.0.1", 3128))
    return s
upgrade = request("GET http://odd.test/401%20No", "Connection: Upgrade", "Upgrade: websocket")
for tunnel in upgrade, request("CONNECT internet.test:80"):
    connect().sendall(request("GET http://internet.test/unfinished") + tunnel)
    time.sleep(1)
unread = [(connect(), size) for size in range(60000, 400000, 20000)]
for s, size in unread: s.sendall(request("GET http://internet.test/bytes-%d" % size))
time.sleep(1)
for s, size in unread: s.sendall(upgrade)
time.sleep(1)`;
    expect(await sandbox.python(script)).toMatchObject({ stdout: "", stderr: "" });
    expect((await sandbox.run(`${curl} http://internet.test/`)).stdout).toBe("hello from internet.test");
  });

  it("does not replace a sandbox's own servers, on port 80 or under the sandbox's own names", async () => {
    const listenOn = (port: number, host: string) =>
      `echo own >index.html; python3 -m http.server ${port} --bind ${host} >/dev/null 2>&1 & echo $! >>servers; ` +
      `for i in $(seq 100); do (echo >/dev/tcp/127.0.0.1/${port}) 2>/dev/null && break; sleep 0.05; done`;
    await sandbox.run(`cd /tmp; ${listenOn(80, "127.0.0.1")}`);
    await sandbox.run(`cd /tmp; ${listenOn(8000, "0.0.0.0")}`);
    for (const url of ["localhost", "127.0.0.1:80", "0.0.0.0:8000", "$(hostname):8000"])
      expect((await sandbox.run(`curl -sS http://${url}/index.html`)).stdout.trim()).toBe("own");
    await sandbox.run(`cd /tmp; ${listenOn(8001, "::")}`);
    for (const host of ["[::1]:8001", "[::]:8001", "127.0.0.2:8000", "127.0.0.9:8000"]) {
      const url = `http://${host}/index.html`;
      const requests = `curl -sS ${url}; python3 -c "import urllib.request; print(urllib.request.urlopen('${url}').read().decode().strip())"
        node -e "fetch('${url}').then((r) => r.text()).then((text) => console.log(text.trim()))"`;
      expect((await sandbox.run(requests)).stdout.trim().split("\n")).toEqual(["own", "own", "own"]);
    }
    await sandbox.run("kill $(cat /tmp/servers)");
  });

  it("is only the proxy", async () => {
    const own = Object.values(networkInterfaces())
      .flat()
      .find((address) => address?.family === "IPv4" && !address.internal);
    for (const address of ["1.1.1.1", own?.address ?? "10.0.0.1", "169.254.169.254"]) {
      const { stderr } = await sandbox.run(`timeout 5 bash -c 'echo > /dev/tcp/${address}/80'`);
      expect(stderr).toContain("Network is unreachable");
    }
    const interfaces = await sandbox.run("ls -1 /proc/sys/net/ipv4/conf; cat /proc/net/route | wc -l");
    expect(interfaces.stdout.split("\n")).toEqual(["all", "default", "lo", "1"]);
  });
});

/** Spellings of addresses of this machine. */
const forms = (port: number) => [
  `127.0.0.1:${port}`,
  `127.1:${port}`,
  `0x7f.1:${port}`,
  `0x7f000001:${port}`,
  `2130706433:${port}`,
  `0177.0.0.1:${port}`,
  `127.0.0.1.:${port}`,
  `0.0.0.0:${port}`,
  `0:${port}`,
  `[::1]:${port}`,
  `[::]:${port}`,
  `[::ffff:127.0.0.1]:${port}`,
  `[::ffff:7f00:1]:${port}`,
  `[64:ff9b::127.0.0.1]:${port}`,
  `[::127.0.0.1]:${port}`,
  `localhost:${port}`,
  `LOCALHOST.:${port}`,
  `a.localhost:${port}`,
  `${hostname()}:${port}`,
];

/** Accepts one request in place of the Worker, and sends the result of `respond`. */
async function serve(from: TestSandbox, respond: (url: string, body: string) => string): Promise<void> {
  const { number, url, poll } = await from.takeOutbound();
  const body = Buffer.concat([frame(Buffer.from(respond(url, await poll.text()))), frame()]);
  await from.respond(number, 201, body, [["x-from", "worker"]]);
}

describe("a request to a forbidden address", () => {
  it("does not reach this machine's loopback in any spelling, or the engine's own port", async () => {
    for (const port of [localPort, Number(new URL(engine.url).port)]) {
      const script = forms(port).map(
        (form) =>
          `printf 'GET http://${form}/ HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' | ask`,
      );
      const tunnels = forms(port).map(
        (form) => `printf 'CONNECT ${form} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' | ask`,
      );
      const ask = "ask() { exec 3<>/dev/tcp/127.0.0.1/3128; cat >&3; head -1 <&3; exec 3>&-; }";
      const { stdout } = await sandbox.run([ask, ...script, ...tunnels].join("\n"));
      const lines = stdout.split("\n").map((line) => line.trim());
      expect(lines).toHaveLength(2 * forms(port).length);
      // This machine's name may be unknown to its own resolver. Then the request fails too, which is also correct.
      for (const line of lines) expect(line).toMatch(/^HTTP\/1\.1 (403|502 .*could not be resolved)/);
      expect(lines.filter((line) => line.startsWith("HTTP/1.1 403")).length).toBeGreaterThanOrEqual(
        lines.length - 2,
      );
    }
    expect(localHits).toBe(0);
  });

  it("is also refused after a redirect by an allowed server", async () => {
    const { stdout } = await sandbox.run(`${curl} -L -w '%{http_code}' http://internet.test/to-local`);
    expect(stdout).toBe("sandbox-mcp: 127.0.0.1 is a loopback address, which a sandbox may not reach.\n403");
    expect(localHits).toBe(0);
  });

  it("gets a refusal that programs print", async () => {
    expect((await sandbox.run("curl -sS http://10.0.0.1/")).stdout).toContain(
      "10.0.0.1 is a private address",
    );
    expect((await sandbox.run("curl -sS -v https://10.0.0.1/ 2>&1 | grep '< HTTP'")).stdout).toContain(
      "403 sandbox-mcp: 10.0.0.1 is a private address",
    );
    const pip = await sandbox.run("pip download --retries 1 --index-url https://10.0.0.1/simple/ x 2>&1");
    expect(pip.stdout).toContain(
      "403 sandbox-mcp: 10.0.0.1 is a private address, which a sandbox may not reach",
    );
    expect((await sandbox.run("git ls-remote https://10.0.0.1/x.git 2>&1")).stdout).toContain("403");
    for (const [url, reason] of [
      ["https://10.0.0.1/", "403 sandbox-mcp: 10.0.0.1 is a private address"],
      ["https://nobody.invalid/", "502 sandbox-mcp: nobody.invalid could not be resolved"],
    ]) {
      const request = `fetch('${url}').catch((error) => console.log(error.message, '|', error.cause.message))`;
      const { stdout } = await sandbox.run(`node -e "${request}"`);
      expect(stdout.split("|")).toEqual([
        expect.stringContaining(`fetch failed: `),
        expect.stringContaining(reason ?? ""),
      ]);
      expect(stdout.split("|")[0]).toContain(reason);
    }
  });
});

describe("--network none", () => {
  it("blocks every connection, and the refusal names the option", async () => {
    const { stdout } = await offline.run(
      "curl -sS http://internet.test/; curl -sS -v https://internet.test/ 2>&1 | grep '< HTTP'",
    );
    expect(stdout).toContain("internet.test is not reachable: the server was started with --network none");
    expect(stdout).toContain("403 sandbox-mcp: internet.test:443 is not reachable");
    expect(receivedRequests).toEqual([]);
  });

  it("is also possible for one sandbox, by its own setting", async () => {
    const alone = await TestSandbox.start(engine, { enableInternet: false });
    expect((await alone.run("curl -sS http://internet.test/")).stdout).toContain(
      "this sandbox has no internet access",
    );
    await alone.destroy();
    expect(receivedRequests).toEqual([]);
  });
});

describe("hosts that the Worker serves", () => {
  it.each([
    ["through the proxy", "curl -sS"],
    ["on the sandbox's own port 80", "curl -sS --noproxy '*'"],
    ["through a tunnel", "curl -sS -p"],
  ])("get their responses from the Worker: %s", async (_way, command) => {
    for (const from of [sandbox, offline]) {
      const [{ stdout }] = await Promise.all([
        from.run(`${command} -i -d question http://api.internal/v1?x=1`),
        serve(from, (url, body) => `${url} ${body}`),
      ]);
      expect(stdout).toMatch(/^HTTP\/1.1 (200 Connection established[^]*)?(HTTP\/1.1 )?201/);
      expect(stdout).toContain("x-from: worker");
      expect(stdout).toContain("http://api.internal/v1?x=1 question");
    }
  });

  it("can be patterns, and are refused if the Worker does not respond", async () => {
    const [{ stdout }] = await Promise.all([
      sandbox.run("curl -sS http://a.wild.test/"),
      serve(sandbox, (url) => url),
    ]);
    expect(stdout).toBe("http://a.wild.test/");
    expect((await sandbox.run("curl -sS -v https://secure.test/ 2>&1 | grep '< HTTP'")).stdout).toContain(
      "403 sandbox-mcp: the server intercepts requests to secure.test",
    );
  });

  it("stream in both directions, piece by piece", async () => {
    const started = sandbox.run(
      "(echo first; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo second) | curl -sS -N -T . http://api.internal/ > /tmp/response & wait",
    );
    const { number, poll } = await sandbox.takeOutbound();
    const reader = poll.body?.getReader();
    expect(Buffer.from((await reader?.read())?.value ?? []).toString()).toBe("first\n");
    let push: ReadableStreamDefaultController<Uint8Array> | undefined;
    const body = new ReadableStream<Uint8Array>({ start: (controller) => void (push = controller) });
    const sent = sandbox.respond(number, 200, body);
    push?.enqueue(frame(Buffer.from("early")));
    await expect.poll(async () => (await sandbox.run("cat /tmp/response")).stdout).toBe("early");
    await sandbox.run("touch /tmp/go");
    expect(Buffer.from((await reader?.read())?.value ?? []).toString()).toBe("second\n");
    // The frames may be divided anywhere.
    for (const byte of [...frame(Buffer.from(" late")), ...frame()]) push?.enqueue(Uint8Array.of(byte));
    push?.close();
    await Promise.all([sent, started]);
    expect((await sandbox.run("cat /tmp/response")).stdout).toBe("early late");
  });

  it("can be added while the sandbox runs, and their names then resolve in the sandbox", async () => {
    const intercepts = {
      http: ["api.internal", "*.wild.test", "later.internal"],
      https: ["secure.test"],
    };
    await sandbox.call("PUT", "/intercepts", intercepts);
    const [{ stdout }] = await Promise.all([
      sandbox.run("curl -sS --noproxy '*' http://later.internal/"),
      serve(sandbox, (url) => url),
    ]);
    expect(stdout).toBe("http://later.internal/");
  });
});

describe("git", () => {
  it("reads the SSH addresses of well-known hosts as HTTPS", async () => {
    const addresses = ["git@github.com:o/r.git", "git@gitlab.com:o/r.git", "ssh://git@git.test/o/r.git"];
    const { stdout } = await sandbox.run(addresses.map((url) => `git ls-remote --get-url ${url}`).join("; "));
    expect(stdout).toBe("https://github.com/o/r.git\nhttps://gitlab.com/o/r.git\nhttps://git.test/o/r.git");
  });

  it("says for SSH addresses of other hosts that HTTPS works", async () => {
    const { stderr } = await sandbox.run("git ls-remote git@git.test:o/r.git");
    expect(stderr).toContain("Use the HTTPS address of the repository");
  });

  it("works in a repository of another owner, as from an archive", async () => {
    const { stdout, stderr } = await sandbox.run(
      "cd /tmp && git init -q owned && chown -R 1000:1000 owned && git -C owned status --short --branch",
    );
    expect(stdout + stderr).toBe("## No commits yet on main");
  });
});

describe("this machine's proxy and registry settings", () => {
  it("reach a sandbox without credentials", async () => {
    expect(
      hostRegistries({
        npm_config_registry: "https://user:secret@npm.test/x/",
        PIP_INDEX_URL: "https://t:secret@pip.test/s/?k=secret",
        PIP_EXTRA_INDEX_URL: "http://localhost:3141/x file:///wheels https://me@more.test/s",
        PIP_CONFIG_FILE: "/dev/null",
      }),
    ).toEqual({
      npm: "https://npm.test/x/",
      pip: "https://pip.test/s/",
      pipExtra: ["https://more.test/s"],
      pipTrusted: [],
    });
    const directory = temporaryDirectory();
    const file = joinPath(directory, "both.pem");
    const certificate = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----";
    await writeFile(file, `${certificate}\n-----BEGIN PRIVATE KEY-----\nREVG\n-----END PRIVATE KEY-----\n`);
    const bundle = hostCertificates({ NODE_EXTRA_CA_CERTS: file, npm_config_userconfig: "/dev/null" });
    expect(bundle).toBe(`${certificate}\n`);
    const { stdout } = await sandbox.run(
      "env; cat /etc/pip.conf /opt/sandbox-runtime/etc/npmrc /etc/gitconfig",
    );
    expect(stdout.replace("ssh://git@", "")).not.toMatch(/_auth|password|:\/\/[^/\s]*@/i);
  });
});
