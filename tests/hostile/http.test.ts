/** HTTP with hostile methods, paths, headers, bodies and connections. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import * as fc from "fast-check";
import { HOST_CAPNP_CONNECT } from "miniflare";
import { describe, expect, it } from "vitest";
import { pidOf, portsOf, statusNumber, tree } from "../setup/processes.ts";
import { endLater } from "../setup/end-later.ts";
import { startServer, TOKEN } from "../setup/server.ts";
import { tool } from "../setup/tool.ts";
import { expectHarmless, HEADERS, LONG, nastyString, postRaw, sendRaw, tries } from "./support.ts";
import { sleep, until } from "../setup/until.ts";

const RUNS = 8;

/** The tokens of principals for tests that run at the same time, because each fills its principal's limits and waits for their end. */
const OTHERS = {
  answers: "token-of-the-answers",
  downloads: "token-of-the-downloads",
  closing: "token-of-the-closing",
  resetting: "token-of-the-resetting",
  calls: "token-of-the-calls",
  batches: "token-of-the-batches",
};
const AUTH_TOKENS = Object.entries(OTHERS).map(([name, token]) => ({
  name,
  sha256: createHash("sha256").update(token).digest("hex"),
  scopes: ["sandbox:read", "sandbox:write", "sandbox:exec"],
}));

interface CallAnswer {
  id: number;
  result: { isError?: boolean; content: { text: string }[]; structuredContent?: Record<string, unknown> };
}

const server = endLater(
  await startServer({
    flags: ["--network", "none"],
    env: { MAX_CONCURRENT_RUNS: String(RUNS), AUTH_TOKENS: JSON.stringify(AUTH_TOKENS) },
  }),
);
const authority = new URL(server.url).host;

const LIST = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list", params: {} });

async function stillServes(): Promise<void> {
  const { status, text } = await postRaw(server.url, LIST);
  expect({ status, tools: text.includes("run_command") }).toEqual({ status: 200, tools: true });
}

/** Memory of the Worker's process, MiB. */
function memory(): number {
  return statusNumber(pidOf("workerd", tree(server.child.pid ?? 0)), "VmRSS") / 1024;
}

describe("when clients send unusual methods and paths", () => {
  const PATHS = [
    "/",
    "/mcp",
    "/mcp/",
    "/MCP",
    "//mcp",
    "/mcp/..",
    "/%2e%2e/mcp",
    "/mcp?x=1",
    "/health",
    "/execute",
    "/tasks/x/result",
    "/tasks/%00/result",
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-authorization-server",
    "/cdn-cgi/handler/scheduled",
    "/cdn-cgi/mf/reload",
    "/__proto__",
    "/constructor",
    "/.dev.vars",
    "/.git/config",
    `/${"a".repeat(8000)}`,
    "/%",
    "/%ff%fe",
    "/\u00e9",
  ];
  const METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS PROPFIND PURGE MCP get TRACE".split(" ");
  it.each(METHODS)("every path responds, and never with 500: %s", async (method) => {
    for (const path of PATHS) {
      const head = `${method} ${encodeURI(path).replaceAll("%25", "%")} HTTP/1.1\r\nHost: ${authority}\r\nAuthorization: Bearer ${TOKEN}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`;
      const response = await sendRaw(server.url, [head], 5000);
      const status = Number(/^HTTP\/1\.1 (\d+)/.exec(response)?.[1]);
      // workerd itself responds with 501 to methods that a Worker cannot receive.
      if (status !== 501) expectHarmless(status, response, head);
    }
    await stillServes();
  });
});

describe("when clients send hostile headers", () => {
  it("the server responds to any content of a header, and never with 500", async () => {
    const value = fc.oneof(
      nastyString,
      fc.constantFrom(
        "Bearer",
        "Bearer ",
        "Bearer a b",
        `bearer ${TOKEN}x`,
        `Basic ${btoa("a:b")}`,
        "*/*;q=9",
        "text/html",
        "application/json; charset=utf-16",
        "application/json;;;",
        "null",
        "http://localhost:1",
        "http://[::1",
        "2025-03-26",
        "2026-07-28",
        "9999-99-99",
        "gzip",
        "identity, br",
        "bytes=0-1",
      ),
    );
    const name = fc.constantFrom(
      "authorization",
      "content-type",
      "accept",
      "origin",
      "mcp-protocol-version",
      "mcp-session-id",
      "mcp-method",
      "mcp-name",
      "last-event-id",
      "content-encoding",
      "x-forwarded-host",
      "x-forwarded-for",
      "cf-connecting-ip",
      "expect",
      "te",
      "range",
      "if-none-match",
      "cookie",
      "upgrade",
    );
    await fc.assert(
      fc.asyncProperty(name, value, async (key, text) => {
        const safe = text.replaceAll(/[^\x20-\x7e\x80-\xff]/g, "?");
        const lines = Object.entries({ host: authority, ...HEADERS, [key]: safe })
          .map(([k, v]) => `${k}: ${v}\r\n`)
          .join("");
        const head = `POST /mcp HTTP/1.1\r\n${lines}Connection: close\r\nContent-Length: ${LIST.length}\r\n\r\n${LIST}`;
        const response = await sendRaw(server.url, [Buffer.from(head, "latin1")], 10_000);
        const status = Number(/^HTTP\/1\.1 (\d+)/.exec(response)?.[1]);
        if (status !== 501) expectHarmless(status, response, head);
      }),
      tries(120),
    );
    await stillServes();
  });

  it.each([
    [4000, "a:b", "401"],
    [2000, "accept:*/*", "401"],
    [10_000, "a:b", "401"],
    [10_000, "accept:*/*", "401"],
    [60_000, "a:b", "431"],
  ])(
    "a request with thousands of header lines gets a response, before the token is checked: %s of %s",
    async (count, line, status) => {
      const lines = `${line}\r\n`.repeat(count);
      const head = `POST /mcp HTTP/1.1\r\nHost: ${authority}\r\n${lines}Connection: close\r\nContent-Length: 0\r\n\r\n`;
      const response = await sendRaw(server.url, [head], 10_000);
      expect(/^HTTP\/1\.1 (\d+)/.exec(response)?.[1]).toBe(status);
      await stillServes();
    },
  );
});

describe("when clients send hostile bodies", () => {
  const envelope = (params: string) => `{"jsonrpc":"2.0","id":1,"method":"tools/list","params":${params}}`;
  const deep = (depth: number) => "[".repeat(depth) + "]".repeat(depth);
  const CORPUS: [string, string | Uint8Array<ArrayBuffer>][] = [
    ["nothing", ""],
    ["white space", " \n"],
    ["a body that is not JSON", "{"],
    ["a NUL", "\0"],
    ["NUL in JSON", '{"jsonrpc":"2.0\0"}'],
    ["a byte order mark", `\ufeff${LIST}`],
    ["broken UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d])],
    ["overlong UTF-8", new Uint8Array([0x22, 0xc0, 0xaf, 0x22])],
    ["a surrogate in UTF-8", new Uint8Array([0x22, 0xed, 0xa0, 0x80, 0x22])],
    ["UTF-16", new Uint8Array(Buffer.from(LIST, "utf16le"))],
    ["a number", "1"],
    ["null", "null"],
    ["a string", '"tools/list"'],
    ["a lone surrogate", envelope('{"a":"\\ud800"}')],
    ["__proto__", '{"__proto__":{"method":"tools/list"},"jsonrpc":"2.0","id":1}'],
    ["repeated keys", '{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/list","method":"x"}'],
    ["an empty batch", "[]"],
    ["a batch without requests", "[null,1,[],{}]"],
    ["a batch in a batch", `[[${LIST}]]`],
    ["deep JSON", deep(1000)],
    ["very deep JSON", deep(100_000)],
    ["JSON of the greatest depth that fits", deep(4_000_000)],
    ["deep arguments", envelope(`{"a":${deep(50_000)}}`)],
    [
      "deep arguments of a call",
      `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_code","arguments":${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}}}`,
    ],
    ["deep _meta", envelope(`{"_meta":{"a":${deep(50_000)}}}`)],
    ["a deep id", `{"jsonrpc":"2.0","id":${deep(5000)},"method":"tools/list"}`],
    ["a long id", `{"jsonrpc":"2.0","id":"${"x".repeat(1_000_000)}","method":"tools/list"}`],
    ["a long method", `{"jsonrpc":"2.0","id":1,"method":"${"x".repeat(1_000_000)}"}`],
    ["many keys", `{${Array.from({ length: 200_000 }, (_, key) => `"k${key}":1`).join(",")}}`],
    ["a huge number", envelope(`{"cursor":1${"0".repeat(100_000)}}`)],
    [
      "a batch of many requests",
      `[${Array.from({ length: 20_000 }, (_, id) => `{"jsonrpc":"2.0","id":${id},"method":"ping"}`).join(",")}]`,
    ],
    [
      "a batch of notifications",
      `[${Array.from({ length: 20_000 }, () => '{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}').join(",")}]`,
    ],
    [
      "a batch of requests with one id",
      `[${Array.from({ length: 500 }, () => '{"jsonrpc":"2.0","id":1,"method":"tools/list"}').join(",")}]`,
    ],
    ["a body above the limit", `"${"x".repeat(9 * 1024 * 1024)}"`],
  ];
  it.each(CORPUS)(
    "the response to a hostile body has less than 20 MB in every protocol revision, and the server continues: %s",
    async (_what, body) => {
      for (const version of [undefined, "2025-03-26", "2025-11-25", "2026-07-28"]) {
        const { status, text } = await postRaw(
          server.url,
          body,
          version ? { "mcp-protocol-version": version } : {},
        );
        expectHarmless(status, text, String(body).slice(0, 1000));
        // A response may repeat the request, but not multiply it.
        expect(text.length).toBeLessThan(20_000_000);
      }
      await stillServes();
    },
  );

  /** A batch of commands in separate sessions, long enough to run in parallel. */
  const batch = (count: number) => {
    const calls = Array.from({ length: count }, (_, id) => ({
      jsonrpc: "2.0",
      id,
      method: "tools/call",
      params: {
        name: "run_command",
        arguments: { sandbox: "batch", session: `s${id}`, command: `sleep 1; echo ${id}` },
      },
    }));
    return postRaw(`${server.url}?results=structured`, JSON.stringify(calls), {
      "mcp-protocol-version": "2025-03-26",
    });
  };

  /** The ids and states of the batch's runs. */
  const listStates = async () => {
    const { structured } = await tool(server.url, "list_runs", { sandbox: "batch", limit: 200 });
    return (structured.runs as { id: string; state: string }[]).map(({ id, state }) => `${id} ${state}`);
  };

  it("the quota applies to a batch of a hundred commands: each runs or is refused, and none is lost", async () => {
    const { status, text } = await batch(100);
    expectHarmless(status, text, "a hundred calls");
    const events = text.match(/^data: [[{].*$/gm)?.map((line) => line.slice("data: ".length)) ?? [text];
    const answers: CallAnswer[] = events.flatMap((json) => JSON.parse(json));
    expect(answers.map(({ id }) => id).toSorted((a, b) => a - b)).toEqual(
      Array.from({ length: 100 }, (_, id) => id),
    );
    const ran: string[] = [];
    let refused = 0;
    for (const { id, result } of answers) {
      const { structuredContent, isError, content } = result;
      if (isError) {
        expect(content[0]?.text).toMatch(/^You have \d+ runs at once, and your limit is 8\./);
        refused++;
      } else {
        expect(structuredContent).toMatchObject({ state: "succeeded", stdout: `${id}\n` });
        ran.push(`${structuredContent?.id} succeeded`);
      }
    }
    expect(ran.length).toBeGreaterThanOrEqual(RUNS);
    expect(refused).toBeGreaterThan(0);
    expect((await listStates()).toSorted()).toEqual(ran.toSorted());
    await stillServes();
  });
});

describe("when clients misuse connections", () => {
  const head = (extra: string) =>
    `POST /mcp HTTP/1.1\r\nHost: ${authority}\r\nAuthorization: Bearer ${TOKEN}\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n${extra}\r\n`;

  it("a hundred clients that send one byte at a time do not block other clients", async () => {
    const { hostname, port } = new URL(server.url);
    const sockets: Socket[] = Array.from({ length: 100 }, (_, index) => {
      const socket = connect(Number(port), hostname);
      socket.on("error", () => undefined);
      socket.write(index % 2 ? "POST /mcp HTTP/1.1\r\nHo" : head("Content-Length: 100000\r\n"));
      return socket;
    });
    for (let round = 0; round < (LONG ? 60 : 6); round++) {
      for (const socket of sockets) if (!socket.destroyed) socket.write("x");
      await stillServes();
      const { text } = await tool(server.url, "run_command", { command: "echo served" });
      expect(text).toContain("served");
    }
    for (const socket of sockets) socket.destroy();
    await stillServes();
  });

  it("clients that do not read their response, or disconnect before it, use no resources afterwards", async () => {
    const rounds: number[] = [];
    const large = JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name: "read_file", arguments: { path: "large" } },
    });
    await tool(server.url, "run_command", { command: "yes 0123456789 | head -c 200000 > large" });
    const { hostname, port } = new URL(server.url);
    for (let round = 0; round < 4; round++) {
      for (let batch = 0; batch < (LONG ? 40 : 8); batch++) {
        const sockets = Array.from({ length: 20 }, () => {
          const socket = connect(Number(port), hostname);
          socket.on("error", () => undefined);
          socket.pause();
          socket.write(head(`Content-Length: ${large.length}\r\n`) + large);
          return socket;
        });
        await sleep(150);
        for (const socket of sockets) socket.resetAndDestroy();
      }
      await stillServes();
      rounds.push(memory());
    }
    const [, second = 0, , fourth = 0] = rounds;
    expect(fourth, `MiB after each round: ${rounds.map(Math.round).join(", ")}`).toBeLessThan(second + 100);
  });
});

describe("when clients send bodies in chunks of one byte", () => {
  const CHUNKS = 100_000;

  /** Sends a request with a body of spaces, and returns the beginning of the response. */
  async function sendByteByByte(path: string, type: string): Promise<string> {
    const { hostname, port } = new URL(server.url);
    const socket = connect(Number(port), hostname);
    socket.on("error", () => undefined);
    const responded = new Promise<string>((resolve) =>
      socket.once("data", (data) => resolve(data.toString("latin1", 0, 12))),
    );
    const head = [`POST ${path} HTTP/1.1`, `Host: ${authority}`, `Content-Type: ${type}`];
    const more = [`Authorization: Bearer ${TOKEN}`, "Accept: application/json, text/event-stream"];
    socket.write([...head, ...more, "Transfer-Encoding: chunked", "", ""].join("\r\n"));
    for (let sent = 0; sent < CHUNKS; sent += 10_000)
      if (!socket.write("1\r\n \r\n".repeat(10_000)))
        await new Promise<void>((resolve) => socket.once("drain", () => resolve()));
    socket.write("0\r\n\r\n");
    const status = await responded;
    socket.destroy();
    return status;
  }

  it.each([
    ["/mcp", "application/json", "HTTP/1.1 400"],
    ["/oauth/token", "application/x-www-form-urlencoded", "HTTP/1.1 4"],
  ])("a body takes no more memory than its size: %s", async (path, type, status) => {
    await stillServes();
    const before = memory();
    let peak = before;
    const measuring = setInterval(() => (peak = Math.max(peak, memory())), 100);
    expect(await sendByteByByte(path, type)).toContain(status);
    clearInterval(measuring);
    // 100,000 pieces take half a gigabyte if JavaScript receives them one by one.
    expect(peak - before).toBeLessThan(150);
    await stillServes();
  });
});

describe.concurrent("when clients make the server keep data in memory", () => {
  /** Opens connections that send these bytes, and neither send nor read more until `work` has ended. */
  async function stalled<T>(
    count: number,
    sent: string,
    work: () => Promise<T>,
    close = (socket: Socket) => socket.destroy(),
  ): Promise<T> {
    const { hostname, port } = new URL(server.url);
    const sockets = Array.from({ length: count }, () => connect(Number(port), hostname).pause());
    try {
      for (const socket of sockets) socket.on("error", () => undefined).write(sent);
      return await work();
    } finally {
      for (const socket of sockets) close(socket);
    }
  }

  const authorized = (token: string) => ({ authorization: `Bearer ${token}` });
  const head = (token: string, length: number) =>
    `POST /mcp HTTP/1.1\r\nhost: ${authority}\r\n${Object.entries({ ...HEADERS, ...authorized(token) })
      .map(([name, value]) => `${name}: ${value}\r\n`)
      .join("")}content-length: ${length}\r\n\r\n`;
  const read = (id: number) => ({
    jsonrpc: "2.0",
    id,
    method: "resources/read",
    params: { uri: "sandbox://default/part" },
  });
  const reads = (count: number) => JSON.stringify(Array.from({ length: count }, (_, id) => read(id)));
  // Six answers, because the memory of 200 calls (3 MiB) is free again when they have ended.
  const isWithheld = async (token: string) =>
    (await postRaw(server.url, reads(6), authorized(token))).text.includes("withheld");

  it("the memory for unread answers is limited and freed when the connections close, and commands still run", async () => {
    const token = OTHERS.answers;
    const run = (command: string) => tool(server.url, "run_command", { command }, { token });
    expect((await run("head -c 700000 /dev/zero >part")).isError).toBe(false);
    const batch = reads(100);
    await stalled(2, head(token, batch.length) + batch, async () => {
      await until(() => isWithheld(token));
      expect((await run("echo still here")).text).toContain("still here");
    });
    await until(async () => !(await isWithheld(token)));
  });

  it("the memory for unread downloads is limited and freed when the connections close, and calls still run", async () => {
    const files = ["a", "b", "c", "d"];
    const command = `yes 0123456789 | head -c 20000000; head -c 1000000 /dev/zero >big; truncate -s 20000000 ${files.join(" ")}`;
    const token = OTHERS.downloads;
    const ofLog = await tool(server.url, "run_command", { command }, { token });
    const ofFiles = files.map((file) => tool(server.url, "file_link", { path: file }, { token }));
    const answers = [ofLog, ...(await Promise.all(ofFiles))];
    const paths = answers.map(({ text }) => /\/files\/[\w.-]+/.exec(text)?.[0] ?? "");
    const [path = ""] = paths;
    const { hostname, port } = new URL(server.url);
    const sockets: Socket[] = [];
    /** Requests a whole file, and reads only the beginning of the response. */
    const download = async (link: string) => {
      const socket = connect(Number(port), hostname).on("error", () => undefined);
      sockets.push(socket);
      socket.write(`GET ${link} HTTP/1.1\r\nhost: ${authority}\r\n\r\n`);
      const [data] = await once(socket, "data");
      socket.pause();
      return String(data).slice(0, "HTTP/1.1 200".length);
    };
    try {
      for (let count = 0; count < 64; count++)
        expect(await download(paths[count % paths.length] ?? "")).toBe("HTTP/1.1 200");
      expect(await download(path)).toBe("HTTP/1.1 429");
      const { origin } = new URL(server.url);
      expect((await fetch(origin + path, { headers: { range: "bytes=0-99" } })).status).toBe(206);
      // The principal's own downloads have a separate limit.
      const own = await fetch(`${origin}/sandboxes/default/files/big`, {
        headers: authorized(token),
      });
      expect([own.status, (await own.arrayBuffer()).byteLength]).toEqual([200, 1_000_000]);
      await stillServes();
      const here = await tool(server.url, "run_command", { command: "echo still here" }, { token });
      expect(here.text).toContain("still here");
    } finally {
      for (const socket of sockets) socket.destroy();
    }
    await until(async () => {
      const freed = (await download(path)) === "HTTP/1.1 200";
      sockets.at(-1)?.destroy();
      return freed;
    });
  });

  it.each([
    ["close", OTHERS.closing, (socket: Socket) => socket.destroy()],
    ["are reset", OTHERS.resetting, (socket: Socket) => socket.resetAndDestroy()],
  ])(
    "the memory for incomplete bodies is limited, and freed with their connections: they %s",
    async (_, token, close) => {
      const length = 8 * 1024 * 1024;
      // A long body waits 40 s for room.
      const status = async () => (await postRaw(server.url, LIST.padEnd(length), authorized(token))).status;
      const work = async () => {
        await until(async () => (await status()) === 429, 100_000);
        await stillServes();
      };
      // The memory has room for one.
      await stalled(5, head(token, length) + " ".repeat(length - 1), work, close);
      await until(async () => (await status()) === 200);
      await stillServes();
    },
  );

  it("the memory for many calls at once is limited, and freed when the connections close", async () => {
    const token = OTHERS.calls;
    const status = async () => (await postRaw(server.url, LIST, authorized(token))).status;
    await stalled(2100, `${head(token, 1000)} `, () => until(async () => (await status()) === 429));
    await until(async () => (await status()) === 200);
    await stillServes();
  });

  it("the memory for many calls in batches is limited, and freed when the connections close", async () => {
    const [sandbox, token] = ["waiting", OTHERS.batches];
    const slow = { sandbox, command: "sleep 600", wait_seconds: 0 };
    const { structured } = await tool(server.url, "run_command", slow, { token });
    expect(structured.state).toBe("running");
    const batchOf = (message: object) =>
      JSON.stringify(Array.from({ length: 100 }, (_, id) => ({ jsonrpc: "2.0", id, ...message })));
    const params = { name: "get_result", arguments: { id: structured.id, wait_seconds: 50 } };
    const waiting = batchOf({ method: "tools/call", params });
    const pings = batchOf({ method: "ping" });
    const status = async () => (await postRaw(server.url, pings, authorized(token))).status;
    const disconnecting = new AbortController();
    const { signal } = disconnecting;
    // The responses are kept, because Node closes the connection of an unread response that is garbage.
    const responses: Response[] = [];
    const send = async () => {
      const headers = { ...HEADERS, ...authorized(token) };
      responses.push(await fetch(server.url, { method: "POST", headers, body: waiting, signal }));
    };
    const batches = Array.from({ length: 42 }, () => send().catch(() => undefined));
    const statuses = () => responses.map((response) => response.status);
    try {
      await expect.poll(statuses, { timeout: 45_000 }).toContain(429);
    } finally {
      disconnecting.abort();
    }
    await Promise.all(batches);
    await until(async () => (await status()) === 200);
    await tool(server.url, "destroy_sandbox", { sandbox }, { token });
    await stillServes();
  });

  it("an upload link works again after a connection was reset", async () => {
    const args = { path: "uploaded", direction: "upload", max_bytes: 9 };
    const [url = ""] = /http:\S+/.exec((await tool(server.url, "file_link", args)).text) ?? [];
    const upload = async (body: string) => (await fetch(url, { method: "PUT", body })).status;
    const sent = `PUT ${new URL(url).pathname} HTTP/1.1\r\nhost: ${authority}\r\ncontent-length: 9\r\n\r\npart`;
    const { hostname, port } = new URL(server.url);
    const sockets: Socket[] = [];
    await until(async () => {
      // A body that is too large is refused while the link is free.
      if ((await upload("0123456789")) === 409) return true;
      sockets.push(connect(Number(port), hostname).on("error", () => undefined));
      sockets.at(-1)?.write(sent);
      return false;
    });
    for (const socket of sockets) socket.resetAndDestroy();
    await until(async () => (await upload("0123456789")) === 413);
    expect(await upload("whole")).toBe(201);
  });
});

it("workerd listens on no other port, because miniflare's own port lets any program choose the host and read files", () => {
  const workerd = pidOf("workerd", tree(server.child.pid ?? 0));
  expect(portsOf(workerd)).toEqual([Number(new URL(server.url).port)]);
});

it("the engine listens on no port, because a flood of requests without its secret would delay all calls", () => {
  expect(portsOf(pidOf("engine", tree(server.child.pid ?? 0)))).toEqual([]);
});

it("workerd gives nobody a connection for remote calls, which would have no token and no limit of memory", async () => {
  const head = `CONNECT ${HOST_CAPNP_CONNECT} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`;
  expect(await sendRaw(server.url, [head], 5000)).toMatch(/^HTTP\/1\.1 500/);
  await stillServes();
});

it("the server survives requests to miniflare's own port, which any page of a preview can send", async () => {
  const ports = portsOf(server.child.pid ?? 0);
  expect(ports).not.toEqual([]);
  const upgrade = "connection: upgrade\r\nupgrade: websocket\r\n";
  const heads = ["", upgrade, `mf-loopback-secret: x\r\n${upgrade}`, "mf-loopback-secret: x\r\n"];
  for (const port of ports)
    for (const path of ["//", "/"])
      for (const head of heads) {
        const socket = connect(port, "127.0.0.1").on("error", () => undefined);
        socket.write(`GET ${path} HTTP/1.1\r\nhost: a\r\n${head}\r\n`);
        await sleep(20);
        socket.resetAndDestroy();
      }
  await sleep(500);
  await stillServes();
});
