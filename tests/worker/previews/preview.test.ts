import { describe, expect, it, vi } from "vitest";
import { Workspace } from "../../../src/actors/workspace.ts";
import { CLOUDFLARE_PORT, reservePlatformPort } from "../../../src/shared/reserved-ports.ts";
import {
  evict,
  runInActor,
  killContainer,
  owner,
  principal,
  sh,
  until,
  isRunning,
  untilStopped,
} from "../support.ts";
import {
  expose,
  exposer,
  nextMessage,
  openSocket,
  PAGE,
  PREVIEW_HOST,
  outputOf,
  startServer,
  visit,
} from "./support.ts";

const sandbox = "shown";

/** The request that the server in the sandbox received. */
async function receivedRequest(url: string, init: RequestInit = {}) {
  const response = await visit(url, init);
  return (await response.json()) as { method: string; url: string; headers: Record<string, string> };
}

describe("a preview", () => {
  it("shows a server that listens only on loopback, at the preview's own address", async () => {
    await startServer(sandbox, 8000);
    const result = await exposer.call("expose_port", { sandbox, port: 8000 });
    expect(result.isError).toBe(false);
    const url = new URL(String(result.structured.url));
    expect(url.host).toMatch(/^8000-shown-[a-z2-7]{16}-[a-z0-9]{25}\.preview\.example$/);
    expect(url.host.split(".")[0]?.length).toBeLessThanOrEqual(63);
    expect(result.text).toContain(`url: ${url.href}`);
    const lifetime = Date.parse(String(result.structured.expires_at)) - Date.now();
    expect(Math.round(lifetime / 60_000)).toBe(60);
    expect(await receivedRequest(`${url.href}a%20b/../c?d=e`)).toMatchObject({
      method: "GET",
      url: "/c?d=e",
    });
  });

  it("keeps its address when its port is exposed again, and gets another address after it was closed", async () => {
    const first = await expose({ sandbox, port: 8000 });
    expect(await expose({ sandbox, port: 8000, expires_seconds: 7200 })).toBe(first);
    const sooner = await exposer.call("expose_port", { sandbox, port: 8000, expires_seconds: 60 });
    expect(sooner.text).toMatch(/^expires: in \d+ \w+, sooner than before \(\d+ \w+\)$/m);
    const closed = await exposer.call("expose_port", { sandbox, port: 8000, expose: false });
    expect(closed.structured).toMatchObject({ exposed: false });
    expect(closed.text).toBe("Port 8000 of sandbox shown is no longer exposed.");
    const ended = await visit(first, PAGE);
    expect(ended.status).toBe(410);
    expect(await ended.text()).toContain("This preview has ended");
    const second = await expose({ sandbox, port: 8000 });
    expect(second).not.toBe(first);
    expect((await visit(first)).status).toBe(410);
    expect((await visit(second)).status).toBe(200);
  });

  it("gets another address when its port is exposed again after LINK_KEY has changed", async () => {
    const before = await expose({ sandbox, port: 8000 });
    const rotated = { LINK_KEY: "the-next-key-of-all-links" };
    expect((await visit(before, {}, rotated)).status).toBe(404);
    const after = await expose({ sandbox, port: 8000 }, exposer.withVariables(rotated));
    expect((await visit(after, {}, rotated)).status).toBe(200);
    expect(await expose({ sandbox, port: 8000 }, exposer.withVariables(rotated))).toBe(after);
  });

  it("sends the server the host localhost, and the preview's host in X-Forwarded-Host", async () => {
    const url = await expose({ sandbox, port: 8000 });
    const { origin, host } = new URL(url);
    const { headers } = await receivedRequest(url, {
      headers: {
        origin,
        referer: `${origin}/before?a=b`,
        cookie: "a=1; b=2",
        authorization: "Bearer theirs",
      },
    });
    expect(headers).toMatchObject({
      host: "localhost:8000",
      origin: "http://localhost:8000",
      referer: "http://localhost:8000/before?a=b",
      "x-forwarded-host": host,
      "x-forwarded-proto": "https",
      cookie: "a=1; b=2",
      authorization: "Bearer theirs",
    });
    expect(
      (await receivedRequest(url, { headers: { origin: "https://other.example" } })).headers.origin,
    ).toBe("https://other.example");
  });

  it("passes no token or cookie of the MCP server into a sandbox, and not the preview's token", async () => {
    const url = await expose({ sandbox, port: 8000 });
    const ours: Record<string, string>[] = [
      { authorization: "Bearer test-owner-token" },
      { authorization: "test-owner-token" },
      { authorization: "Bearer: test-owner-token" },
      { authorization: "Bearer test-owner-token extra" },
      { authorization: "Bearer Bearer test-owner-token" },
      { authorization: "Bearer other, Bearer test-owner-token" },
      { authorization: 'Token token="test-owner-token"' },
      { authorization: `Basic ${btoa("someone:test-owner-token")}` },
      { authorization: `Basic ${btoa("test-owner-token:")}` },
      { authorization: `Token ${Array.from({ length: 100 }, (_, n) => `word${n}`).join(" ")}` },
      { "cf-worker": "sandbox-mcp.example" },
      { authorization: `bearer owner:${"a".repeat(16)}:${"b".repeat(32)}` },
      { cookie: "__Host-sandbox-mcp-a=1; kept=1; sandbox-mcp-b=2; CF_Authorization=3" },
      // Two headers, in the order in which they arrive.
      { cookie: "kept=1, __Host-sandbox-mcp-a=1" },
      { "cf-access-jwt-assertion": "4", "cf-access-client-secret": "5" },
    ];
    for (const headers of ours) {
      const receivedHeaders = (await receivedRequest(url, { headers })).headers;
      expect(receivedHeaders.authorization).toBeUndefined();
      expect(receivedHeaders.cookie).toBe("cookie" in headers ? "kept=1" : undefined);
      expect(
        Object.keys(receivedHeaders).filter((name) => /cf-access|cf-worker|sandbox-mcp|engine/.test(name)),
      ).toEqual([]);
    }
  });

  it("passes on the valid HTTP status 599, and reports invalid ones", async () => {
    const url = await expose({ sandbox, port: 8000 });
    expect((await visit(`${url}status?is=599`)).status).toBe(599);
    const invalid = await visit(`${url}status?is=999`);
    expect([invalid.status, await invalid.text()]).toEqual([
      502,
      expect.stringContaining("not a valid HTTP status"),
    ]);
    // A 101 that no upgrade requested, and status lines that Node reads but refuses to write.
    // A transfer coding that would be lost.
    const coded = "200 OK\r\nTransfer-Encoding: gzip, chunked";
    for (const line of ["101 Switching Protocols", "099 Odd", "200 \u0001", coded])
      expect((await visit(`${url}line?is=${encodeURIComponent(line)}`)).status).toBe(502);
  });

  it("sets cookies only for its own host, and no policies for other hosts", async () => {
    const url = await expose({ sandbox, port: 8000 });
    const parameters = new URLSearchParams([
      ["set-cookie", "a=1; Domain=preview.example; Path=/"],
      ["set-cookie", "b=2; path=/; DOMAIN = .example;HttpOnly"],
      ["clear-site-data", '"cookies"'],
      ["strict-transport-security", "max-age=1; includeSubDomains"],
      ["alt-svc", 'h3=":1"'],
      ["x-robots-tag", "all"],
      ["x-own", "kept"],
    ]);
    const { headers } = await visit(`${url}headers?${parameters}`);
    expect(headers.getSetCookie()).toEqual(["a=1; Path=/", "b=2; path=/;HttpOnly"]);
    for (const name of ["clear-site-data", "strict-transport-security", "alt-svc"])
      expect(headers.get(name)).toBeNull();
    expect(headers.get("x-robots-tag")).toBe("noindex, nofollow");
    expect(headers.get("x-own")).toBe("kept");
    const policyFor = async (policy: string) =>
      (await visit(`${url}headers?referrer-policy=${policy}`)).headers.get("referrer-policy");
    for (const policy of ["unsafe-url", "no-referrer,strict-origin-when-cross-origin"])
      expect(await policyFor(policy)).toBe("same-origin");
    expect(await policyFor("no-referrer")).toBe("no-referrer");
  });

  it("rewrites a redirect to localhost to its own address, and does not follow redirects", async () => {
    const url = await expose({ sandbox, port: 8000 });
    const rows: [string, string][] = [
      ["http://localhost:8000/a?b#c", `${url}a?b#c`],
      ["http://127.0.0.1:8000", url.slice(0, -1)],
      ["/a", "/a"],
      ["http://localhost:80001/a", "http://localhost:80001/a"],
      ["http://localhost:8001/a", "http://localhost:8001/a"],
      ["http://localhost:8000.evil.example/", "http://localhost:8000.evil.example/"],
      ["https://other.example/", "https://other.example/"],
    ];
    for (const [to, location] of rows) {
      const response = await visit(`${url}redirect?to=${encodeURIComponent(to)}`, { redirect: "manual" });
      expect(response.status).toBe(302);
      expect(response.headers.get("location")).toBe(location);
    }
  });

  it("streams in both directions, and passes encoded bodies unchanged", async () => {
    const url = await expose({ sandbox, port: 8000 });
    const stream = await visit(`${url}stream`);
    const reader = stream.body?.getReader();
    expect(new TextDecoder().decode((await reader?.read())?.value)).toBe("begun");
    await reader?.cancel();
    await until(async () => (await outputOf(sandbox, 8000)).includes("stream closed"));

    const piece = new Uint8Array(65_536).fill(7);
    const hash = new Uint8Array(
      await crypto.subtle.digest("SHA-256", new Uint8Array(64 * piece.length).fill(7)),
    );
    let remaining = 64;
    const body = new ReadableStream<Uint8Array>({
      pull: (controller) => (remaining-- > 0 ? controller.enqueue(piece) : controller.close()),
    });
    const upload = await visit(`${url}upload`, { method: "PUT", body });
    expect(await upload.text()).toBe(hash.toHex());

    const zipped = await visit(`${url}gzip`);
    expect(zipped.headers.get("content-encoding")).toBe("gzip");
    expect(await zipped.text()).toBe("a".repeat(100_000));
  });

  it("supports WebSockets: text, subprotocol and close", async () => {
    const url = await expose({ sandbox, port: 8000 });
    const { origin } = new URL(url);
    const offered = { origin, "sec-websocket-protocol": "vite-hmr" };
    const { response, socket, greeting } = await openSocket(url, offered);
    expect(response.headers.get("sec-websocket-protocol")).toBe("vite-hmr");
    expect(JSON.parse(greeting)).toMatchObject({ host: "localhost:8000", origin: "http://localhost:8000" });
    socket.send("echo");
    expect(await nextMessage(socket)).toBe("echo");
    socket.close(1000, "over");
    await until(async () => (await outputOf(sandbox, 8000)).includes("closed"));
    // The program chooses none of these.
    const other = await openSocket(url, { "sec-websocket-protocol": "unknown, other" });
    expect(other.response.headers.get("sec-websocket-protocol")).toBeNull();
    expect(JSON.parse(other.greeting)).toMatchObject({ "sec-websocket-protocol": "unknown, other" });
    other.socket.close();
  });

  it("continues after its actor was evicted", async () => {
    const url = await expose({ sandbox, port: 8000 });
    await evict(sandbox);
    expect((await visit(url)).status).toBe(200);
    expect(await expose({ sandbox, port: 8000 })).toBe(url);
  });

  it("works for an IPv6 server", async () => {
    await startServer(sandbox, 54_321, "::1");
    const url = await expose({ sandbox, port: 54_321 });
    expect((await visit(url)).status).toBe(200);
    await exposer.call("expose_port", { sandbox, port: 54_321, expose: false });
  });
});

describe("a server that does not respond", () => {
  it("has a page that reloads until the server responds", async () => {
    const url = await expose({ sandbox, port: 8010 });
    const page = await visit(url, PAGE);
    expect(page.status).toBe(503);
    expect(page.headers.get("refresh")).toBe("1");
    expect(page.headers.get("x-robots-tag")).toBe("noindex, nofollow");
    expect(await page.text()).toContain("Waiting for the program");
    const script = await visit(url, { method: "POST", body: "a" });
    expect(script.status).toBe(503);
    expect(await script.text()).toContain("No program listens on this port yet");
    await startServer(sandbox, 8010);
    expect((await visit(url, PAGE)).status).toBe(200);
  });

  it("is reported as ended if it responded before", async () => {
    const url = await expose({ sandbox, port: 8010 });
    expect((await visit(url)).status).toBe(200);
    await sh(sandbox, "pkill -f 'server.js 8010'");
    await until(async () => (await visit(url)).status !== 200);
    await evict(sandbox);
    const page = await visit(url, PAGE);
    expect(page.status).toBe(502);
    expect(page.headers.get("refresh")).toBe("1");
    expect(await page.text()).toContain("The program on this port has ended or does not respond");
  });
});

describe("a server that does not speak plain HTTP", () => {
  it.each([
    { speaks: "The program expects TLS", port: 8020, listen: "require('https').createServer()" },
    {
      speaks: "The program does not use HTTP",
      port: 8021,
      listen: "require('net').createServer((client) => client.on('error', () => 0).end('+OK ready\\r\\n'))",
    },
  ])("has a page with the reason: $speaks", async ({ speaks, port, listen }) => {
    await sh(
      sandbox,
      `node -e "${listen}.listen(${port}, () => console.log('listening'))" >${port}.log 2>&1 & until grep -q listening ${port}.log; do sleep 0.1; done`,
    );
    const page = await visit(await expose({ sandbox, port }), PAGE);
    expect([page.status, page.headers.get("refresh")]).toEqual([502, "1"]);
    expect(await page.text()).toContain(speaks);
    await exposer.call("expose_port", { sandbox, port, expose: false });
  });
});

describe("a sandbox with an open preview", () => {
  const idle = "idle-shown";

  it("runs while a WebSocket or a request is open, and then stops", async () => {
    await startServer(idle, 8000);
    const url = await expose({ sandbox: idle, port: 8000 });
    const { socket } = await openSocket(url);
    const expire = () => runInActor(idle, (actor) => actor.onActivityExpired());
    await expire();
    expect(await isRunning(idle)).toBe(true);
    const reader = (await visit(`${url}stream`)).body?.getReader();
    await reader?.read();
    socket.close(1000, "over");
    await until(async () => (await outputOf(idle, 8000)).includes("closed"));
    await expire();
    expect(await isRunning(idle)).toBe(true);
    await reader?.cancel();
    await until(async () => (await outputOf(idle, 8000)).includes("stream closed"));
    await expire();
    await untilStopped(idle);
    expect((await visit(url)).status).toBe(503);
  });

  it("keeps running if a request arrives while the unused sandbox is saved", async () => {
    const shown = "idle-visited";
    await startServer(shown, 8000);
    const url = await expose({ sandbox: shown, port: 8000 });
    const { saveToStop } = Workspace.prototype;
    const { promise: hasBegun, resolve: begin } = Promise.withResolvers<void>();
    const { promise: isSlow, resolve: goOn } = Promise.withResolvers<void>();
    const saving = vi.spyOn(Workspace.prototype, "saveToStop").mockImplementationOnce(async function (
      this: Workspace,
      ...wait
    ) {
      begin();
      await isSlow;
      return saveToStop.apply(this, wait);
    });
    let expired = Promise.resolve();
    // A server that has just started counts as busy, and then nothing is saved yet.
    await until(async () => {
      expired = runInActor(shown, (actor) => actor.onActivityExpired());
      await Promise.race([expired, hasBegun]);
      return saving.mock.calls.length > 0;
    });
    expect((await visit(url)).status).toBe(200);
    goOn();
    await expired;
    expect((await visit(url)).status).toBe(200);
    saving.mockRestore();
    await owner.call("destroy_sandbox", { sandbox: shown });
  });

  it("stays usable while its previews have their maximum of connections", async () => {
    await startServer(idle, 8000);
    const url = await expose({ sandbox: idle, port: 8000 });
    const responses = await Promise.all(
      Array.from({ length: 200 }, () => visit(url, { headers: { upgrade: "websocket" } })),
    );
    const sockets = responses.flatMap(({ webSocket }) => webSocket ?? []);
    expect(sockets.length).toBe(192);
    expect(await sh(idle, "echo works")).toBe("works\n");
    for (const socket of sockets) {
      socket.accept();
      socket.close(1000, "over");
    }
    await until(async () => (await visit(url)).status === 200);
  });

  it("shows the preview again after user code killed sandboxd and sandboxd was restarted", async () => {
    const url = await expose({ sandbox: idle, port: 8000 });
    const killed = "until ! pgrep -x sbxd | grep -qx $old; do sleep 0.05; done";
    await sh(idle, `old=$(pgrep -xo sbxd); kill -9 $old; ${killed}`);
    await until(async () => (await visit(url)).status === 200);
    // For a moment, a new child of sandboxd has sandboxd's name.
    await expect.poll(() => sh(idle, "pgrep -x sbxd | wc -l")).toBe("1\n");
    await owner.call("destroy_sandbox", { sandbox: idle });
  });
});

describe("a preview works", () => {
  it("until its expiry, which also ends the requests in progress", async () => {
    await startServer("brief", 8000);
    const url = await expose({ sandbox: "brief", port: 8000, expires_seconds: 3 });
    const ending = nextMessage((await openSocket(url)).socket);
    const reader = (await visit(`${url}stream`)).body?.getReader();
    await reader?.read();
    expect(await ending).toMatch(/^closed/);
    await expect(reader?.read()).rejects.toThrow();
    const ended = await visit(url, PAGE);
    expect(ended.status).toBe(410);
    expect(ended.headers.get("refresh")).toBeNull();
    expect((await exposer.call("list_sandboxes")).text).not.toContain(url);
  });

  it("until it is closed, which also ends its WebSockets", async () => {
    const url = await expose({ sandbox: "brief", port: 8000 });
    const ending = nextMessage((await openSocket(url)).socket);
    await exposer.call("expose_port", { sandbox: "brief", port: 8000, expose: false });
    expect(await ending).toMatch(/^closed/);
    const closed = await exposer.call("expose_port", { sandbox: "brief", port: 8000, expose: false });
    expect(closed.text).toBe("Port 8000 of sandbox brief is not exposed.");
  });

  it("again in the next container, which an open tab does not start", async () => {
    const url = await expose({ sandbox: "brief", port: 8000 });
    await killContainer("brief");
    const page = () => visit(url, PAGE).then((response) => response.text());
    await until(() => page().then((text) => text.includes("The sandbox of this preview has stopped")));
    expect((await visit(url)).status).toBe(503);
    expect(await isRunning("brief")).toBe(false);
    await sh("brief", "true");
    expect(await page()).toContain("Waiting for the program");
    await startServer("brief", 8000);
    expect((await visit(url)).status).toBe(200);
    expect(await expose({ sandbox: "brief", port: 8000 })).toBe(url);
  });

  it("until its sandbox is destroyed, and an open tab does not create the sandbox again", async () => {
    const url = await expose({ sandbox: "brief", port: 8000 });
    await owner.call("destroy_sandbox", { sandbox: "brief" });
    for (const init of [PAGE, {}, { headers: { upgrade: "websocket" } }])
      expect((await visit(url, init)).status).toBe(410);
    expect(await isRunning("brief")).toBe(false);
    expect((await exposer.call("list_sandboxes")).text).not.toMatch(/^brief:/m);
    await startServer("brief", 8000);
    expect((await visit(url)).status).toBe(410);
    await owner.call("destroy_sandbox", { sandbox: "brief" });
  });
});

describe("expose_port", () => {
  it("exposes port 3000 on the local platform", async () => {
    await startServer(sandbox, 3000);
    expect((await visit(await expose({ sandbox, port: 3000 }))).status).toBe(200);
    await exposer.call("expose_port", { sandbox, port: 3000, expose: false });
  });

  it("says whether nothing listens on the port", async () => {
    const silent = await exposer.call("expose_port", { sandbox, port: 8999 });
    expect(silent.text).toContain("listening: nothing on port 8999 yet; the URL works when");
    await startServer(sandbox, 8999, "::1");
    const served = await exposer.call("expose_port", { sandbox, port: 8999 });
    expect(served.text).not.toContain("listening:");
    await exposer.call("expose_port", { sandbox, port: 8999, expose: false });
  });

  it("refuses ports that the platform uses, and other numbers", async () => {
    const refused = async (port: number) => {
      const result = await exposer.call("expose_port", { sandbox, port });
      return result.isError && result.text.includes(`Port ${port} of a sandbox is used by the server`);
    };
    for (const port of [3128, 8671]) expect(await refused(port)).toBe(true);
    const local = reservePlatformPort(CLOUDFLARE_PORT);
    for (const port of [3000, 8671]) expect(await refused(port)).toBe(true);
    reservePlatformPort(local);
    for (const port of [-1, 1023, 65_536, 1.5, "8000"])
      expect((await exposer.call("expose_port", { sandbox, port })).isError).toBe(true);
  });

  it("says which setting is missing if the server cannot show previews", async () => {
    const nowhere = await owner.call("expose_port", { sandbox, port: 8000 });
    expect(nowhere.isError).toBe(true);
    expect(nowhere.text).toContain("PREVIEW_HOST is not set");
  });

  it("needs sandbox:exec, and list_sandboxes shows the address", async () => {
    const url = await expose({ sandbox, port: 8000 });
    const mine = await exposer.call("list_sandboxes");
    expect(mine.text).toMatch(new RegExp(`port 8000 is exposed for \\d+ \\w+: ${url}`));
    const reader = (await principal("preview-reader", ["sandbox:read"])).withVariables({ PREVIEW_HOST });
    expect((await reader.send("expose_port", { port: 8000 })).status).toBe(403);
  });

  it("limits how many ports of a sandbox are exposed", async () => {
    for (let port = 9000; port < 9018; port++) await expose({ sandbox, port });
    const refused = await exposer.call("expose_port", { sandbox, port: 9100 });
    expect(refused.isError).toBe(true);
    expect(refused.text).toContain("20 ports of this sandbox are exposed");
    // The preview of an exposed port can be renewed.
    await expose({ sandbox, port: 9000 });
    for (let port = 9000; port < 9018; port++)
      await exposer.call("expose_port", { sandbox, port, expose: false });
  });

  it("never exposes another principal's sandbox", async () => {
    const other = (await principal("other-exposer")).withVariables({ PREVIEW_HOST });
    const theirs = new URL(await expose({ sandbox, port: 8000 }, other));
    const mine = new URL(await expose({ sandbox, port: 8000 }));
    expect(theirs.hostname).not.toBe(mine.hostname);
    expect((await visit(theirs)).status).toBe(503);
    // The other principal's token in the label of this principal's sandbox.
    const [, token = ""] = /-([a-z0-9]+)\./.exec(theirs.hostname) ?? [];
    const swapped = mine.hostname.replace(/-[a-z0-9]+\./, `-${token}.`);
    expect((await visit(`https://${swapped}/`)).status).toBe(404);
    expect((await other.call("list_sandboxes")).text).not.toContain(mine.hostname);
    await other.call("destroy_sandbox", { sandbox });
  });
});
