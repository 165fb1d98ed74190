/** Links in results, as resources and as URLs in text, and the files that they serve. */
import { runInDurableObject } from "cloudflare:test";
import { beforeAll, describe, expect, it } from "vitest";
import type { Sandbox } from "../../../src/index.ts";
import { mcpHeaders, messagesIn } from "../../setup/mcp-client.ts";
import { type Caller, actorOf, owner, principal, sh } from "../support.ts";

const sandbox = "result-links";

interface LinkBlock {
  type: string;
  uri: string;
  name: string;
  size?: number;
  text?: string;
}

/** The blocks of a result for a client of this revision. With null, the client sends no revision. */
async function blocks(
  name: string,
  args: Record<string, unknown>,
  caller: Caller = owner,
  revision: string | null = "2025-06-18",
): Promise<LinkBlock[]> {
  const message = { jsonrpc: "2.0", id: 1, method: "tools/call", params: { name, arguments: args } };
  const response = await caller.http("/mcp", {
    method: "POST",
    headers: {
      ...mcpHeaders(caller.token),
      ...(revision === null ? {} : { "mcp-protocol-version": revision }),
    },
    body: JSON.stringify(message),
  });
  return (messagesIn(await response.text()).at(-1)?.result?.content ?? []) as LinkBlock[];
}

const linksIn = (content: LinkBlock[]) =>
  content.filter(({ type }) => type === "resource_link").map(({ uri, name, size }) => ({ uri, name, size }));

const urlsIn = (content: { text?: string }[]) =>
  content.flatMap(({ text = "" }) =>
    Array.from(text.matchAll(/https:\/\/[^/ ]+(\/files\/[\w.-]+)/g), ([, path = ""]) => path),
  );

async function first(content: LinkBlock[]): Promise<Response> {
  const [path = "none"] = urlsIn(content);
  return owner.http(path, { headers: { authorization: "" } });
}

beforeAll(async () => {
  await sh(sandbox, "printf 'PK\\x03\\x04\\x00' >b.zip; seq 100000 >long.txt; echo short >short.txt");
  await owner.call("run_code", {
    sandbox,
    code: "from PIL import Image; Image.new('RGB', (2000, 2000)).save('/workspace/large.png')",
  });
});

describe("read_file links to", () => {
  it.each([
    ["a binary file", "b.zip", 5],
    ["a file that is too large", "long.txt", 588_895],
    ["the original of a scaled image", "large.png", expect.any(Number)],
  ])("%s", async (_what, path, size) => {
    const content = await blocks("read_file", { sandbox, path });
    const [link, ...more] = linksIn(content);
    expect(more).toEqual([]);
    expect(link).toEqual({ uri: `sandbox://${sandbox}/${path}`, name: `/workspace/${path}`, size });
    const response = await first(content);
    expect([response.status, response.headers.get("content-disposition")]).toEqual([
      200,
      expect.stringContaining(path),
    ]);
    expect((await response.arrayBuffer()).byteLength).toBe(link?.size);
  });

  it("no file that it shows completely, and no part that the caller selected", async () => {
    for (const args of [
      { path: "short.txt" },
      { path: "long.txt", limit: 3 },
      { path: "long.txt", offset: 9 },
    ]) {
      const content = await blocks("read_file", { sandbox, ...args });
      expect([linksIn(content), urlsIn(content)]).toEqual([[], []]);
    }
  });

  it("an image that it cannot show, in the error", async () => {
    await sh(sandbox, "printf '\\x89PNG\\r\\n\\x1a\\n\\x00' >broken.png");
    const content = await blocks("read_file", { sandbox, path: "broken.png" });
    expect(await (await first(content)).text()).toContain("PNG");
  });
});

it("a client of a revision without resource links gets only the URL", async () => {
  for (const revision of [null, "2025-03-26"]) {
    const content = await blocks("read_file", { sandbox, path: "b.zip" }, owner, revision);
    expect([linksIn(content).length, urlsIn(content).length]).toEqual([0, 1]);
  }
});

it("the whole output is linked if it was cut, and is served after its sandbox is gone", async () => {
  const name = "result-links-log";
  const command = "seq 100000; echo error >&2";
  const content = await blocks("run_command", { sandbox: name, command });
  const [link] = linksIn(content);
  expect(link).toMatchObject({ uri: expect.stringMatching(/^sandbox:\/\/runs\/[^/]+\/log$/), size: 588_901 });
  const id = link?.uri.split("/")[3] ?? "";
  for (const args of [{ id }, { id, cursor: 0 }])
    expect(linksIn(await blocks("get_result", args))).toEqual([link]);
  expect(linksIn(await blocks("get_result", { id, cursor: 60_000 }))).toEqual([]);
  await owner.call("destroy_sandbox", { sandbox: name });

  const [path = ""] = urlsIn(content);
  const response = await owner.http(path);
  expect(Object.fromEntries(response.headers)).toMatchObject({
    "content-type": "text/plain",
    "content-length": "588901",
    "content-disposition": expect.stringContaining(`${id}.log`),
    "content-security-policy": "sandbox; default-src 'none'",
    "accept-ranges": "bytes",
  });
  const log = await response.text();
  expect(log.length).toBe(588_901);
  expect(log.replace("error\n", "")).toBe(Array.from({ length: 100_000 }, (_, n) => `${n + 1}\n`).join(""));
  const range = (value: string) => owner.http(path, { headers: { range: value } });
  expect(await (await range("bytes=300000-300009")).text()).toBe(log.slice(300_000, 300_010));
  expect((await range("bytes=588901-")).status).toBe(416);
  expect((await owner.http(path, { method: "HEAD" })).headers.get("content-length")).toBe("588901");
  expect((await owner.http(path, { method: "PUT", body: "x" })).status).toBe(403);
  expect((await owner.http(path.replace(/.$/, (last) => (last === "A" ? "B" : "A")))).status).toBe(403);
  // Deletes the run's results, as the account does to make room.
  await runInDurableObject<Sandbox, void>(await actorOf(name), async (actor) => {
    await actor.evictRuns(1e12, Date.now() + 1000);
  });
  const removed = await owner.http(path);
  expect([removed.status, await removed.text()]).toEqual([410, expect.stringContaining("no longer exists")]);
});

it("a log of several megabytes is served unchanged from R2", async () => {
  const command = "head -c 9000000 /dev/urandom | base64 -w 0 | tee sent | sha256sum; cat sent";
  const content = await blocks("run_command", { sandbox, command });
  const [path = ""] = urlsIn(content);
  const bytes = new Uint8Array(await (await owner.http(path)).arrayBuffer());
  const sum = new TextDecoder().decode(bytes.subarray(0, 64));
  const sent = bytes.subarray(bytes.length - 12_000_000);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", sent));
  expect(digest.toHex()).toBe(sum);
});

describe("a task's artifacts", () => {
  let content: LinkBlock[];
  beforeAll(async () => {
    const reader = await principal("links-tasks", ["tasks:run", "sandbox:read"]);
    content = await blocks("execute_task", { task: "[[write]] linked" }, reader);
  });

  it("are linked in the task's result", async () => {
    const links = linksIn(content);
    expect(links.map(({ name }) => name)).toContain("changes.diff");
    const [link] = links;
    expect(link?.uri).toMatch(/^sandbox:\/\/runs\/[^/]+\/artifacts\//);
    expect(urlsIn(content)).toHaveLength(links.length);
    // The server may be destroying the task's sandbox now.
    const response = await first(content);
    expect([response.status, (await response.arrayBuffer()).byteLength]).toEqual([200, link?.size]);
  });

  it("have URLs only for tokens with sandbox:read", async () => {
    const tasks = await principal("links-tasks", ["tasks:run"]);
    const id = linksIn(content)[0]?.uri.split("/")[3];
    const shown = await blocks("get_result", { id }, tasks);
    expect(linksIn(shown)).toEqual(linksIn(content));
    expect(urlsIn(shown)).toEqual([]);
  });
});

it("a token without sandbox:read gets no links", async () => {
  const runner = await principal("links-runner", ["sandbox:exec"]);
  const content = await blocks("run_command", { command: "seq 100000" }, runner);
  expect(content.map(({ type }) => type)).toEqual(["text"]);
  expect(urlsIn(content)).toEqual([]);
  await runner.call("destroy_sandbox", { sandbox: "default" });
});

it("an interactive page in a result of code is linked", async () => {
  const code = "class Chart:\n    def _repr_html_(self): return '<script>1</script>' * 100_000\nChart()";
  const content = await blocks("run_code", { sandbox, code });
  expect(linksIn(content)).toEqual([
    {
      uri: expect.stringMatching(/\/\.outputs\/\w+\.html$/),
      name: expect.any(String),
      size: expect.any(Number),
    },
  ]);
  const response = await first(content);
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "text/html"]);
  expect(await response.text()).toContain("<script>1</script>");
});

it("code that prints the description of a page cannot link another file", async () => {
  const code =
    "class Chart:\n    def __repr__(self): return '[An interactive page, HTML of 1 bytes: /workspace/.outputs/../../etc/passwd.html]'\nChart()";
  expect(linksIn(await blocks("run_code", { sandbox, code }))).toEqual([]);
});
