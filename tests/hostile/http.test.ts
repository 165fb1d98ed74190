/** HTTP with hostile methods, paths, headers, bodies and connections. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import * as fc from "../setup/chance.ts";
import { HOST_CAPNP_CONNECT } from "miniflare";
import { describe, expect, it } from "vitest";
import { pidOf, portsOf, tree } from "../setup/processes.ts";
import { endLater } from "../setup/end-later.ts";
import { startServer, TOKEN } from "../setup/server.ts";
import { tool } from "../setup/tool.ts";
import { expectHarmless, HEADERS, nastyString, postRaw, sendRaw, tries } from "./support.ts";
import { sleep, until } from "../setup/until.ts";

/** The tokens of principals whose tests fill their limits at the same time. */
const AUTH_TOKENS = ["answers", "downloads", "bodies", "calls"].map((name) => ({
  name,
  sha256: createHash("sha256").update(name).digest("hex"),
  scopes: ["sandbox:read", "sandbox:write", "sandbox:exec"],
}));

const server = endLater(
  await startServer({
    flags: ["--network", "none"],
    env: { AUTH_TOKENS: JSON.stringify(AUTH_TOKENS) },
  }),
);
const { host, hostname, port, origin } = new URL(server.url);

const LIST = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} });

async function stillServes(): Promise<void> {
  const { status, text } = await postRaw(server.url, LIST);
  expect({ status, tools: text.includes("run_command") }).toEqual({ status: 200, tools: true });
}

/** A connection that the server may end at any time. */
const open = (): Socket => connect(Number(port), hostname).on("error", () => undefined);

const statusOf = (response: string) => Number(/^HTTP\/1\.1 (\d+)/.exec(response)?.[1]);

const ends = (socket: Socket) => socket.destroy();
const resets = (socket: Socket) => socket.resetAndDestroy();

describe("hostile methods, paths and headers", () => {
  const PATHS = `/ /mcp //mcp /mcp/.. /%2e%2e/mcp /mcp?x=1 /execute /tasks/%00/result /cdn-cgi/mf/reload
    /__proto__ /.dev.vars /% /%ff%fe /\u00e9 /${"a".repeat(8000)}`.split(/\s+/);
  const METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND PURGE MCP get TRACE".split(" ");
  it.each(METHODS)("every path responds, and never with 500: %s", async (method) => {
    for (const path of PATHS) {
      const head = `${method} ${encodeURI(path).replaceAll("%25", "%")} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${TOKEN}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`;
      const response = await sendRaw(server.url, [head], 5000);
      // workerd itself responds with 501 to methods that a Worker cannot receive.
      if (statusOf(response) !== 501) expectHarmless(statusOf(response), response, head);
    }
    await stillServes();
  });

  it("the server responds to any content of a header, and never with 500", async () => {
    const values = ["Bearer", "Bearer a b", "*/*;q=9", "application/json;;;", "null", "http://[::1", "gzip"];
    const names = `authorization content-type accept origin mcp-protocol-version mcp-session-id mcp-method
      mcp-name last-event-id content-encoding x-forwarded-host cf-connecting-ip expect te range
      if-none-match cookie upgrade`.split(/\s+/);
    const value = fc.oneof(nastyString, fc.constantFrom(...values));
    const name = fc.constantFrom(...names);
    await fc.assert(
      fc.asyncProperty(name, value, async (key, text) => {
        const safe = text.replaceAll(/[^\x20-\x7e\x80-\xff]/g, "?");
        const lines = Object.entries({ host, ...HEADERS, [key]: safe }).map(([k, v]) => `${k}: ${v}\r\n`);
        const head = `POST /mcp HTTP/1.1\r\n${lines.join("")}Connection: close\r\nContent-Length: ${LIST.length}\r\n\r\n${LIST}`;
        const response = await sendRaw(server.url, [Buffer.from(head, "latin1")], 10_000);
        if (statusOf(response) !== 501) expectHarmless(statusOf(response), response, head);
      }),
      tries(120),
    );
    await stillServes();
  });
});

describe("hostile bodies", () => {
  const envelope = (params: string) => `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":${params}}`;
  const deep = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
  const batch = (count: number, message: string) => `[${Array<string>(count).fill(message).join(",")}]`;
  const CORPUS: [string, string | Uint8Array<ArrayBuffer>][] = [
    ["a byte order mark", `\ufeff${LIST}`],
    ["a surrogate in UTF-8", new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22])],
    ["a lone surrogate", envelope('{"a":"\\ud800"}')],
    ["__proto__", '{"__proto__":{"method":"tools/list"},"jsonrpc":"2.0","id":1}'],
    ["repeated keys", '{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list","method":"x"}'],
    ["an empty batch", "[]"],
    ["a batch without requests", "[null,1,[],{}]"],
    ["JSON of the greatest depth that fits", deep(4_000_000)],
    ["deep arguments", envelope(`{"a":${deep(50_000)}}`)],
    ["a deep id", `{"jsonrpc":"2.0","id":${deep(900)},"method":"tools/list"}`],
    ["a long id", `{"jsonrpc":"2.0","id":"${"x".repeat(1_000_000)}","method":"tools/list"}`],
    ["a batch of many requests", batch(20_000, '{"jsonrpc":"2.0","id":1,"method":"ping"}')],
    ["a batch of notifications", batch(100, '{"jsonrpc":"2.0","method":"notifications/cancelled"}')],
  ];
  it.each(CORPUS)("in every protocol revision, the response is bounded and not 500: %s", async (_, body) => {
    for (const version of [undefined, "2025-03-26", "2025-11-25", "2026-07-28"]) {
      const headers = version && { "mcp-protocol-version": version };
      const { status, text } = await postRaw(server.url, body, { ...headers });
      expectHarmless(status, text, String(body).slice(0, 1000));
      // A response may repeat the request, but not multiply it.
      expect(text.length).toBeLessThan(20_000_000);
    }
    await stillServes();
  });
});

describe.concurrent("the memory of a principal's requests is limited, and freed when the connections end:", () => {
  /** Opens connections that send these bytes, and neither send nor read more until `work` has ended. */
  async function stalled<T>(count: number, sent: string, work: () => Promise<T>, close = ends): Promise<T> {
    const sockets = Array.from({ length: count }, () => open().pause());
    try {
      for (const socket of sockets) socket.write(sent);
      return await work();
    } finally {
      sockets.forEach(close);
    }
  }

  const authorized = (token: string) => ({ authorization: `Bearer ${token}` });
  const head = (token: string, length: number) =>
    `POST /mcp HTTP/1.1\r\nhost: ${host}\r\n${Object.entries({ ...HEADERS, ...authorized(token) })
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join("")}content-length: ${length}\r\n\r\n`;

  it("unread answers", async () => {
    const token = "answers";
    const run = (command: string) => tool(server.url, "run_command", { command }, { token });
    const params = { uri: "sandbox://default/part" };
    const reads = (count: number) =>
      JSON.stringify(
        Array.from({ length: count }, (_, id) => ({ jsonrpc: "2.0", id, method: "resources/read", params })),
      );
    // Six answers, because the memory of 200 calls (3 MiB) is free again when they have ended.
    const isWithheld = async () =>
      (await postRaw(server.url, reads(6), authorized(token))).text.includes("withheld");
    expect((await run("head -c 700000 /dev/zero >part")).isError).toBe(false);
    const batch = reads(100);
    await stalled(2, head(token, batch.length) + batch, async () => {
      await until(isWithheld);
      expect((await run("echo still here")).text).toContain("still here");
    });
    await until(async () => !(await isWithheld()));
  });

  it("unread downloads by links, and not those with the token", async () => {
    const token = "downloads";
    const files = ["a", "b", "c", "d"];
    const command = `head -c 1000000 /dev/zero >big; truncate -s 20000000 ${files.join(" ")}`;
    await tool(server.url, "run_command", { command }, { token });
    const links = files.map((path) => tool(server.url, "file_link", { path }, { token }));
    const paths = (await Promise.all(links)).map(({ text }) => /\/files\/[\w.-]+/.exec(text)?.[0] ?? "");
    const [path = ""] = paths;
    const sockets: Socket[] = [];
    /** Requests a whole file, and reads only the beginning of the response. */
    const download = async (link: string) => {
      const socket = open();
      sockets.push(socket);
      socket.write(`GET ${link} HTTP/1.1\r\nhost: ${host}\r\n\r\n`);
      const [data] = await once(socket, "data");
      socket.pause();
      return statusOf(String(data));
    };
    try {
      for (let count = 0; count < 64; count++)
        expect(await download(paths[count % files.length] ?? "")).toBe(200);
      expect(await download(path)).toBe(429);
      const own = await fetch(`${origin}/sandboxes/default/files/big`, { headers: authorized(token) });
      expect([own.status, (await own.arrayBuffer()).byteLength]).toEqual([200, 1_000_000]);
    } finally {
      sockets.forEach(ends);
    }
    await until(async () => {
      const status = await download(path);
      sockets.forEach(ends);
      return status === 200;
    });
  });

  const LONG_BODY = 8 * 1024 * 1024;
  it.each([
    // The memory has room for one of the long bodies. Another one waits 40 s for room.
    ["incomplete bodies", "bodies", LONG_BODY, 5, " ".repeat(LONG_BODY - 1), ends],
    ["many calls", "calls", 1000, 2100, " ", resets],
  ])("%s", async (_, token, length, count, sent, close) => {
    const body = LIST.padEnd(length);
    const status = async () => (await postRaw(server.url, body, authorized(token))).status;
    const work = async () => {
      await until(async () => (await status()) === 429);
      await stillServes();
    };
    await stalled(count, head(token, length) + sent, work, close);
    await until(async () => (await status()) === 200);
  });

  it("an upload by a link, which works again after a connection was reset", async () => {
    const args = { path: "uploaded", direction: "upload", max_bytes: 9 };
    const [url = ""] = /http:\S+/.exec((await tool(server.url, "file_link", args)).text) ?? [];
    const upload = async (body: string) => (await fetch(url, { method: "PUT", body })).status;
    const sent = `PUT ${new URL(url).pathname} HTTP/1.1\r\nhost: ${host}\r\ncontent-length: 9\r\n\r\npart`;
    const sockets: Socket[] = [];
    await until(async () => {
      // A body that is too large is refused while the link is free.
      if ((await upload("0123456789")) === 409) return true;
      sockets.push(open());
      sockets.at(-1)?.write(sent);
      return false;
    });
    sockets.forEach(resets);
    await until(async () => (await upload("0123456789")) === 413);
    expect(await upload("whole")).toBe(201);
  });
});

describe("the ports of the server", () => {
  it("are the one of workerd, because miniflare's own lets any program choose the host and read files", () => {
    const members = tree(server.child.pid ?? 0);
    expect(portsOf(pidOf("workerd", members))).toEqual([Number(port)]);
    expect(portsOf(pidOf("engine", members))).toEqual([]);
  });

  it("give nobody a connection for remote calls, which would have no token and no limit of memory", async () => {
    const head = `CONNECT ${HOST_CAPNP_CONNECT} HTTP/1.1\r\nHost: ${host}\r\n\r\n`;
    expect(statusOf(await sendRaw(server.url, [head], 5000))).toBe(500);
    await stillServes();
  });

  it("include miniflare's own, whose requests any page of a preview can send, and which the server survives", async () => {
    const ports = portsOf(server.child.pid ?? 0);
    expect(ports).not.toEqual([]);
    const upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
    for (const own of ports)
      for (const path of ["//", "/"])
        for (const head of ["", upgrade, `mf-loopback-secret: x\r\n${upgrade}`]) {
          const socket = connect(own, "127.0.0.1").on("error", () => undefined);
          socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n${head}\r\n`);
          await sleep(20);
          socket.resetAndDestroy();
        }
    await sleep(500);
    await stillServes();
  });
});
