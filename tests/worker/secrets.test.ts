/** `SECRETS`: keys that code in a sandbox uses and never sees, from the tool call to the API and back. */
import { env, exports } from "cloudflare:workers";
import { beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { Sandbox } from "../../src/index.ts";
import type { Connection } from "../../src/shared/connection-log.ts";
import { SCOPES } from "../../src/shared/principal.ts";
import { type Arrived, PRIVATE_VALUE as VALUE } from "../setup/private-secrets.ts";
import { type Caller, actorOf, evictActor, owner, principal, connectionsOf } from "./support.ts";

const BEARER = `Bearer ${VALUE}`;
const MASKED = "*".repeat(VALUE.length);

/** The SDK's entrypoint for requests of containers. */
interface ProxyExports {
  ContainerProxy(options: { props: object }): Fetcher;
}

const sandbox = "vault";
let caller: Caller;

async function sh(command: string): Promise<string> {
  const { structured, text } = await caller.call("run_command", { sandbox, command });
  if (structured.state !== "succeeded") throw new Error(`${command}: ${text}`);
  expect(text).not.toContain(VALUE);
  return String(structured.stdout);
}

/** The requests that arrived at the API since the last call of this function. */
async function takeArrived(): Promise<Arrived[]> {
  return await (await fetch(env.PRIVATE_URL)).json<Arrived[]>();
}

beforeAll(async () => {
  caller = await principal("secrets", SCOPES);
});

beforeEach(takeArrived);

describe("code in a sandbox uses an API whose secret is not in the sandbox", () => {
  it.each([
    ["curl", "curl -sS https://api.private.test/echo"],
    ["curl over plain HTTP", "curl -sS http://api.private.test/echo"],
    // With -0 curl offers no HTTP/1.1 in TLS.
    ["a client of HTTP/1.0", "curl -0 -sS https://api.private.test/echo"],
    // Java's HttpClient announces an empty body.
    [
      "a client that announces an empty body",
      "curl -sS -H 'content-length: 0' https://api.private.test/echo",
    ],
    [
      "a program that insists on a key",
      'curl -sS -H "authorization: Bearer $PRIVATE_API_KEY" https://api.private.test/echo',
    ],
  ])("by %s", async (_client, command) => {
    const response = JSON.parse(await sh(command));
    expect(await takeArrived()).toEqual([
      { host: "api.private.test", url: "/echo", authorization: BEARER, body: "" },
    ]);
    expect(response.given).toBe(`Bearer ${MASKED}`);
  });

  it("by npm, and by Go, Java, Bun, requests and httpx if the machine has them", async () => {
    const program = `mkdir -p /tmp/clients && cd /tmp/clients
      cat >Ask.java <<'END'
      import java.net.*; import java.net.http.*;
      class Ask { public static void main(String[] a) throws Exception { System.out.println(HttpClient.newHttpClient().send(
        HttpRequest.newBuilder(URI.create("https://api.private.test/java")).build(), HttpResponse.BodyHandlers.ofString()).statusCode()); } }
END
      printf 'package main\nimport "net/http"\nfunc main() { if _, e := http.Get("https://api.private.test/go"); e != nil { panic(e) } }\n' >ask.go
      npm ping --registry https://api.private.test/npm >/dev/null 2>&1; echo npm
      ! java --list-modules 2>/dev/null | grep -q jdk.compiler || { java -XX:TieredStopAtLevel=1 Ask.java >/dev/null; echo java; }
      ! command -v go >/dev/null || { go run ask.go; echo go; }
      ! command -v bun >/dev/null || { bun -e 'await fetch("https://api.private.test/bun")' >/dev/null; echo bun; }
      for name in requests httpx; do
        ! python3 -c "import $name" 2>/dev/null || { python3 -c "import $name; $name.get('https://api.private.test/$name')"; echo $name; }
      done`;
    const programs = (await sh(program)).trim().split("\n");
    expect(programs[0]).toBe("npm");
    const received = (await takeArrived()).map(({ url }) => url.split("/")[1]);
    expect([...new Set(received)]).toEqual(programs);
  });

  it.each(["a task", "Python", "JavaScript"])("in %s", async (place) => {
    const ask = `node -e "fetch('https://api.private.test/echo').then(r => r.text()).then(console.log)"`;
    const python =
      "import urllib.request\nprint(urllib.request.urlopen('https://api.private.test/echo').read().decode())";
    const javascript = "await (await fetch('https://api.private.test/echo')).text()";
    // The task runs this program as its agent, because the program has the agent's name.
    const agent = `mkdir -p /tmp/bin && printf '#!/bin/sh\n%s\n' ${JSON.stringify(ask)} >/tmp/bin/opencode && chmod +x /tmp/bin/opencode`;
    if (place === "a task") {
      await sh(agent);
      await caller.call("configure_sandbox", {
        sandbox,
        env: { PATH: `/tmp/bin:${(await sh("printf %s $PATH")).trim()}` },
      });
    }
    const [tool, args] = {
      "a task": ["execute_task", { task: "Ask.", agent: "opencode" }],
      Python: ["run_code", { code: python, language: "python" }],
      JavaScript: ["run_code", { code: javascript, language: "javascript" }],
    }[place] as [string, Record<string, unknown>];
    await caller.call(tool, { sandbox, ...args });
    expect(await takeArrived()).toMatchObject([{ url: "/echo", authorization: BEARER }]);
  });

  it("by git, as a password", async () => {
    expect(await sh("git clone -q https://git.private.test/repo.git r && cat r/private.txt")).toBe(
      "of the private repository\n",
    );
    const sent = (await takeArrived()).map(({ authorization }) => authorization);
    expect([...new Set(sent)]).toEqual([`Basic ${btoa(`user:${VALUE}`)}`]);
  });

  it("by a parameter of the query, and with a body", async () => {
    const response = await sh("curl -sS -d asked 'https://a.query.test/echo?x=1&key=mine'");
    expect(JSON.parse(response).given).toBe(MASKED);
    const url = `/echo?x=1&key=${encodeURIComponent(VALUE)}`;
    expect(await takeArrived()).toMatchObject([{ host: "a.query.test", url, body: "asked" }]);
  });
});

describe("an API's response that ends early", () => {
  it.each([
    ["in the middle", "broken/identity"],
    ["in the middle of compressed data", "broken/gzip"],
    ["because it does not have its declared encoding", "coded/gzip"],
  ])("ends early for the client too: %s", async (_why, path) => {
    // Exit code 18 of curl: the body is incomplete.
    expect(await sh(`curl -sS -o /dev/null https://api.private.test/${path} 2>/dev/null; echo $?`)).toBe(
      "18\n",
    );
  });
});

describe("an API's unusual response", () => {
  const ask = async (head: string) =>
    await sh(`curl -sS -m 10 -w ' %{http_code}' 'https://api.private.test/raw/${encodeURIComponent(head)}'`);

  it.each([
    ["the status 101", "HTTP/1.1 101 Switching Protocols\r\n\r\n"],
    [
      "the status 101 with a protocol",
      "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    [
      "a range that was not requested",
      "HTTP/1.1 206 Part\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab",
    ],
    ["an invalid status", "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n"],
    [
      "a body with the transfer coding gzip",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
  ])("ends with a readable error: %s", async (_what, head) => {
    expect(await ask(head)).toMatch(/sandbox-mcp: [^]* 502$/);
  });

  it.each([
    ["a body with the status 204", "HTTP/1.1 204 None\r\nContent-Length: 3\r\n\r\nabc", " 204"],
    ["the status 205", "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", " 205"],
    [
      "interim responses",
      "HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
      "hi 200",
    ],
  ])("is passed on: %s", async (_what, head, shown) => {
    expect(await ask(head)).toBe(shown);
  });
});

it("the proxy keeps the bytes of non-ASCII headers in both directions", async () => {
  const head = "HTTP/1.1 200 OK\r\nX-Name: é文.pdf\r\nContent-Length: 2\r\n\r\nhi";
  const shown = "-o /dev/null -w '%header{x-name} %{http_code}'";
  expect(await sh(`curl -sS ${shown} 'https://api.private.test/raw/${encodeURIComponent(head)}'`)).toBe(
    "é文.pdf 200",
  );
  const response = JSON.parse(await sh("curl -sS -H 'x-name: é文' https://api.private.test/echo"));
  expect(response.name).toBe("c3a9e69687");
});

describe("an unusual request", () => {
  it("is ended at the API when the program disconnects before the response", async () => {
    const urls: string[] = [];
    await sh("curl -sS -m 1 https://api.private.test/silent || true");
    await expect
      .poll(async () => urls.push(...(await takeArrived()).map(({ url }) => url)) && urls)
      .toEqual(["/silent", "/silent closed"]);
  });

  it.each([
    ["with a secret", "token:secrets"],
    ["without one", "token:without-secrets"],
  ])("is in the log when the program disconnects before the response: %s", async (_kind, principalID) => {
    await sh("true");
    const logged: Connection[] = [];
    const made = vi.spyOn(Sandbox.prototype, "connectionMade");
    made.mockImplementation((connection) => void logged.push(connection));
    const urls: string[] = [];
    try {
      const containerId = (await actorOf(sandbox, caller)).id.toString();
      const handler = { method: "policy", params: { internet: "full", principalID } };
      const props = {
        containerId,
        className: "Sandbox",
        outboundByHostOverrides: { "api.private.test": handler },
      };
      const proxy = (exports as unknown as ProxyExports).ContainerProxy({ props });
      // On a busy machine, the first requests may not have been sent before their programs disconnect.
      for (let ms = 250; ms <= 8000 && !urls.includes("/silent"); ms *= 2) {
        const signal = AbortSignal.timeout(ms);
        const request = new Request("https://api.private.test/silent", {
          method: "POST",
          body: "sent",
          signal,
        });
        await expect(proxy.fetch(request)).rejects.toThrow();
        urls.push(...(await takeArrived()).map(({ url }) => url));
      }
      expect(urls).toContain("/silent");
      await expect.poll(() => logged).not.toEqual([]);
      const secret = principalID === caller.principalID ? { secret: "api" } : {};
      const expected = {
        host: "api.private.test",
        port: 443,
        method: "POST",
        status: 499,
        bytes: 0,
        ...secret,
      };
      for (const { at: _at, ...connection } of logged) expect(connection).toEqual(expected);
    } finally {
      made.mockRestore();
    }
    // Later tests do not get the end of the connection.
    await expect
      .poll(async () => urls.push(...(await takeArrived()).map(({ url }) => url)) && urls)
      .toContain("/silent closed");
  });

  const sendToProxy = (text: string) =>
    sh(
      `python3 - <<'END'
import socket, ssl
s = socket.create_connection(("127.0.0.1", 3128)); s.settimeout(10)
s.sendall(b"CONNECT api.private.test:443 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"); s.recv(1000)
t = ssl.create_default_context().wrap_socket(s, server_hostname="api.private.test")
t.sendall(${JSON.stringify(text)}.encode()); got = b""
while more := t.recv(65536): got += more
print(got.decode())
END`,
    );

  it("inside a body of unknown length stays part of that body", async () => {
    const inner = "GET /inner HTTP/1.1\r\nHost: api.private.test\r\n\r\n";
    const body = `${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n`;
    const head = "Host: api.private.test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    expect(await sendToProxy(`DELETE /echo HTTP/1.1\r\n${head}${body}`)).toContain("200 OK");
    expect(await takeArrived()).toMatchObject([{ url: "/echo", authorization: BEARER, body: inner }]);
    expect(await sendToProxy(`GET /echo HTTP/1.1\r\n${head}${body}`)).toMatch(/ 502 [^]*sandbox-mcp: /);
    expect(await takeArrived()).toEqual([]);
  });

  it("is sent without the user and password in its URL, and is refused if it names another host or upgrades to a WebSocket", async () => {
    const head = "Host: api.private.test\r\nConnection: close\r\n";
    const asUser = `GET https://me:pw@api.private.test/echo HTTP/1.1\r\n${head}\r\n`;
    expect(await sendToProxy(asUser)).toMatch(/^HTTP\/1\.1 200 /);
    expect(await takeArrived()).toMatchObject([{ url: "/echo", authorization: BEARER }]);
    const other = await sendToProxy(`GET https://git.private.test/echo HTTP/1.1\r\n${head}\r\n`);
    expect(other).toContain("403");
    const socket = head.replace("close", "upgrade\r\nUpgrade: websocket");
    expect(await sendToProxy(`GET /echo HTTP/1.1\r\n${socket}\r\n`)).toContain("501");
    expect(await takeArrived()).toEqual([]);
  });
});

describe("the value of a secret", () => {
  it("leaves no trace in the memory, environment, files and processes of the sandbox", async () => {
    // A kernel and a program that used the value still run.
    await caller.call("run_code", {
      sandbox,
      code: "import urllib.request as r; kept = r.urlopen('https://api.private.test/echo').read(); print(len(kept))",
    });
    await sh(
      `node -e "fetch('https://api.private.test/pieces').then(r => r.text()).then(t => { globalThis.t = t; require('fs').writeFileSync('/tmp/used', t); setInterval(() => {}, 1e6) })" >/tmp/log 2>&1 & until [ -s /tmp/used ]; do sleep 0.05; done; cat /tmp/used`,
    );
    expect(await takeArrived()).toHaveLength(2);
    const found = JSON.parse(await sh(`python3 - <<'END'\n${SEARCH}\nEND`));
    expect(found.traces).toEqual([]);
    // The search really reads the places that could have the value.
    expect(found.processes).toBeGreaterThan(4);
    expect(found.controls).toEqual(["environment", "file", "memory"]);
    await sh("pkill -f setInterval");
  });

  it("is masked in a response's body and headers, in pieces and compressed", async () => {
    const head = await sh("curl -sS -D - -o /dev/null https://api.private.test/echo");
    expect(head).toContain(`x-echo: Bearer ${MASKED}`);
    expect(head).toContain(`set-cookie: a=Bearer ${MASKED}`);
    expect(head).toMatch(/^content-length: \d+\r$/m);
    expect(await sh("curl -sS https://api.private.test/pieces")).toBe(`begins Bearer ${MASKED} ends`);
    expect(await sh("curl -sS --compressed https://api.private.test/gzip")).toBe(`gzip Bearer ${MASKED}`);
    expect(await sh("curl -sS --compressed https://api.private.test/brotli")).toBe(`br Bearer ${MASKED}`);
    // The platform decodes only encodings with a lower-case name.
    const coded = await sh(
      "curl -sS https://api.private.test/coded/x-own https://api.private.test/coded/GZIP",
    );
    for (const coding of ["x-own", "GZIP"]) expect(coded).toContain(`cannot search for secrets: ${coding}`);
    // The platform has decoded the body, so its compressed length does not apply.
    const heads = await sh(
      "curl -sSI https://api.private.test/gzip; curl -sSI https://api.private.test/brotli",
    );
    expect(heads).toMatch(/200 OK[^]*200 OK/);
    expect(heads).not.toMatch(/content-(?:length|encoding)/i);
  });

  it("is masked completely in a response to a request for a range", async () => {
    const response = JSON.parse(
      await sh("curl -sS -r 0-9 -H 'accept-encoding: gzip' https://api.private.test/echo"),
    );
    expect(response).toEqual({ given: `Bearer ${MASKED}`, accept: "identity" });
  });

  it("is not sent along a redirect to another host", async () => {
    await sh("curl -sSkL https://api.private.test/moved");
    const landed = `/landed?from=Bearer%20${"*".repeat(encodeURIComponent(VALUE).length)}`;
    expect(await takeArrived()).toEqual([
      { host: "api.private.test", url: "/moved", authorization: BEARER, body: "" },
      { host: "other.private.test", url: landed, body: "" },
    ]);
  });

  it("is not sent to another host, port or TLS name, even if the request contains the placeholder", async () => {
    const key = '-H "authorization: Bearer $PRIVATE_API_KEY"';
    await sh(`curl -sSk ${key} https://other.private.test/echo`);
    await sh(`curl -sSk ${key} https://api.private.test:8443/echo`);
    const authorization = "Bearer sandbox-mcp-secret-api";
    expect(await takeArrived()).toMatchObject([
      { host: "other.private.test", authorization },
      { host: "api.private.test:8443", authorization },
    ]);
    const proxied = "curl -sSk -x http://127.0.0.1:3128";
    const tries = [
      `${proxied} --connect-to other.private.test:443:api.private.test:443 https://other.private.test/echo`,
      `${proxied} -H 'host: other.private.test' https://api.private.test/echo`,
      `${proxied} -H 'host: api.private.test' https://git.private.test/echo`,
      `${proxied} -H 'host: other.private.test' http://api.private.test/echo`,
    ];
    for (const one of tries) expect(await sh(`${one} 2>&1 || true`)).not.toContain("given");
    expect(await takeArrived()).toEqual([]);
  });

  it("is used only for its principals, and requests to other hosts are unchanged", async () => {
    const other = await owner.call("run_command", {
      sandbox: "no-vault",
      command: "curl -sSk https://api.private.test/echo; env | grep -c PRIVATE_API_KEY",
    });
    expect(other.structured.stdout).toBe('{"given":""}0\n');
    // This is the host's own certificate, which the sandbox does not trust.
    expect(await sh("curl -sS https://other.private.test/echo 2>&1 || true")).toContain("certificate");
  });
});

describe("the interception", () => {
  it("continues for running programs after the actor was evicted", async () => {
    const loop =
      "until [ -e /tmp/enough ]; do curl -sSk https://api.private.test/loop -o /dev/null; sleep 0.1; done";
    await sh(`rm -f /tmp/enough /tmp/ended; (${loop}; touch /tmp/ended) >/dev/null 2>&1 &`);
    await evictActor(await actorOf(sandbox, caller));
    // Wakes the actor without a request to its container.
    await caller.call("list_sandboxes", {});
    await takeArrived();
    const hasSecret = async () =>
      (await takeArrived()).map(({ authorization }) => authorization).includes(BEARER);
    await expect.poll(hasSecret).toBe(true);
    // Waits for the loop's end, because its last connection could otherwise be counted under the next policy.
    await sh("touch /tmp/enough; until [ -e /tmp/ended ]; do sleep 0.05; done");
  });
});

describe("the operator's policy", () => {
  it("comes before secrets: a host with a secret must be allowed too", async () => {
    await caller.call("configure_sandbox", { sandbox, allow_hosts: ["git.private.test"] });
    const { text } = await caller.call("run_command", {
      sandbox,
      command:
        "curl -sS https://api.private.test/echo; curl -sS http://api.private.test/echo; curl -sS -o /dev/null -w '%{http_code}' https://git.private.test/echo",
    });
    expect(text).toContain("connections to api.private.test (2 times) were refused");
    expect(text).toContain("200");
    await caller.call("configure_sandbox", { sandbox, internet: "full" });
    expect(await takeArrived()).toHaveLength(1);
  });
});

describe("the description of secrets", () => {
  it("has names and hosts in list_sandboxes, for the principals that may use them", async () => {
    const { structured, text } = await caller.call("list_sandboxes", {});
    expect(structured.secrets).toEqual([
      { name: "api", hosts: ["api.private.test"], variable: "PRIVATE_API_KEY" },
      { name: "git", hosts: ["git.private.test"] },
      { name: "query", hosts: ["*.query.test"] },
    ]);
    expect(text).toContain("secret api: added to requests to api.private.test");
    expect(JSON.stringify(structured) + text).not.toContain(VALUE);
    expect((await owner.call("list_sandboxes", {})).structured.secrets).toEqual([]);
  });

  it("has the name of the used secret in the list of connections", async () => {
    await sh("curl -sS 'https://a.query.test/echo?key=mine'; curl -sSk https://other.private.test/echo");
    const lines = await connectionsOf(sandbox, caller);
    expect(lines).toMatch(/Z a\.query\.test 443 GET 200 \d+ query\n/);
    expect(lines).toMatch(/Z other\.private\.test 443 CONNECT 200 \d+ -\n/);
    expect(lines).not.toContain(VALUE);
  });
});

/**
 * Searches everything that root in the sandbox can read. Looks for the middle of the value, written backwards here, and for
 * things that the search must find. Its own process has the value and is left out.
 */
const SEARCH = `
import array, base64, json, os, re, subprocess, sys
value = ${JSON.stringify([...VALUE].toReversed().join(""))}[::-1].encode()
needles = {value[4:16]}
for before in range(3):
    # Whole groups of three bytes, which are the same in base64 whatever stands around them.
    part = value[3 + before:18 + before]
    needles |= {base64.b64encode(part), base64.urlsafe_b64encode(part)}
controls = {"memory": "yromem-ni-tpek"[::-1], "environment": "sandbox-mcp-secret-api", "file": "begins Bearer"}
traces, seen, processes = [], set(), 0
def look(where, data, kind):
    traces.extend(where for needle in needles if needle in data)
    if kind and controls[kind].encode() in data: seen.add(kind)
def pages(pid, start, end):
    with open(f"/proc/{pid}/pagemap", "rb") as file:
        file.seek(start >> 9)
        entries = array.array("Q", file.read((end - start) >> 9))
    begin = None
    for index, entry in enumerate([*entries, 0]):
        if entry >> 62 and begin is None: begin = index
        if not entry >> 62 and begin is not None:
            yield start + (begin << 12), start + (index << 12)
            begin = None
program = "x = 'yromem-ni-tpek'[::-1]; import sys; print(1, flush=True); sys.stdin.read()"
holder = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
holder.stdout.readline()
for pid in filter(str.isdigit, os.listdir("/proc")):
    if int(pid) == os.getpid(): continue
    try:
        look(f"environment of {pid}", open(f"/proc/{pid}/environ", "rb").read(), "environment")
        look(f"command of {pid}", open(f"/proc/{pid}/cmdline", "rb").read(), None)
        memory = open(f"/proc/{pid}/mem", "rb", 0)
        mappings = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw.*(?:\\n(?!Rss).*)*\\nRss: +([1-9])", open(f"/proc/{pid}/smaps").read(), re.M)
    except OSError: continue
    processes += 1
    for start, end, _ in mappings:
        for begin, until in pages(pid, int(start, 16), int(end, 16)):
            try:
                memory.seek(begin)
                look(f"memory of {pid}", memory.read(until - begin), "memory")
            except OSError: pass
holder.kill()
for top in ("/workspace", "/tmp", "/root", "/var", "/run", "/etc", "/dev/shm"):
    for folder, _, names in os.walk(top):
        for path in (os.path.join(folder, name) for name in names):
            try:
                if os.path.isfile(path) and not os.path.islink(path): look(path, open(path, "rb").read(), "file")
            except OSError: pass
print(json.dumps({"traces": traces, "processes": processes, "controls": sorted(seen)}))
`;
