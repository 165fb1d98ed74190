/** The client library in a program. */
import { createRequire } from "node:module";
import { join } from "node:path";
import { build } from "esbuild";
import type * as MiniflareModule from "miniflare";
import { describe, expect, it } from "vitest";
import { AccessError, CallError, ConnectionError, UnavailableError, connect } from "../../client/index.ts";
import { Connection } from "../../client/connection.ts";
import { follow } from "../../client/follow.ts";
import { textAt } from "../setup/preview.ts";
import { launchChromium } from "../clients/chromium.ts";
import { endLater } from "../setup/end-later.ts";
import { TOKEN, repository, startServer } from "../setup/server.ts";
import { until } from "../setup/until.ts";
import { serve } from "../setup/serve.ts";

// The client must work with a server that allows only short waits.
const server = endLater(await startServer({ env: { MAX_WAIT_SECONDS: "1" } }));
const client = endLater(connect({ url: server.url, token: TOKEN }));
const sandbox = client.sandbox("library");

describe("code", () => {
  it("returns the value, output and plots, and keeps variables", async () => {
    await sandbox.runCode("numbers = [1, 4, 9]");
    const run = await sandbox.runCode(
      "import matplotlib.pyplot as plt\nprint('plotting')\nplt.plot(numbers); plt.show()\nsum(numbers)",
    );
    expect(run).toMatchObject({ isSuccess: true, stdout: "plotting\n", result: "14", isTruncated: false });
    expect(run.leftOut).toBeUndefined();
    expect(run.images).toHaveLength(1);
    expect(String.fromCharCode(...run.images[0]!.data.slice(1, 4))).toBe("PNG");
  });

  it("returns the exception as data", async () => {
    const run = await sandbox.runCode("1 / 0");
    expect(run).toMatchObject({ isSuccess: false, state: "failed", error: { name: "ZeroDivisionError" } });
  });

  it.each([
    ["text", "'x' * 100_000", /omitted/, "python"],
    ["list", "list(range(20_000))", /19000 more/, "python"],
    ["array", "Array(20_000).fill(7)", /19000 more items/, "javascript"],
    [
      "image",
      "from IPython.display import Image\nImage(data=b'\\x89PNG\\r\\n\\x1a\\n' + bytes(18_000_000), format='png')",
      /image is left out/,
      "python",
    ],
    [
      "table",
      "class Table:\n    def __repr__(self): return 'a table'\n    def _repr_html_(self): return '<table>' + 'x' * 300_000\nTable()",
      /html of 300007 characters is left out/,
      "python",
    ],
    [
      "page of HTML",
      "({ [Symbol.for('Jupyter.display')]: () => ({ 'text/plain': 'a page', 'text/html': 'x'.repeat(300_000) }) })",
      /html of 300000 characters is left out/,
      "javascript",
    ],
  ] as const)("reports that a long %s is cut", async (_what, code, leftOut, language) => {
    const run = await sandbox.runCode(code, { language });
    expect(run).toMatchObject({
      isSuccess: true,
      isTruncated: true,
      leftOut: expect.stringMatching(leftOut),
    });
    expect({ html: run.html, images: run.images }).toEqual({ html: [], images: [] });
  });

  it("returns a table's complete HTML beside a cut text", async () => {
    const code =
      "({ [Symbol.for('Jupyter.display')]: () => ({ 'text/plain': 'a page', 'text/html': 'x'.repeat(100_000) }) })";
    const run = await sandbox.runCode(code, { language: "javascript" });
    expect(run).toMatchObject({ result: "a page", html: ["x".repeat(100_000)], isTruncated: false });
  });
});

describe("commands", () => {
  it("return output and exit code, with variables and standard input", async () => {
    const run = await sandbox.runCommand('echo "$GREETING"; cat; echo oops >&2; exit 3', {
      env: { GREETING: "hello" },
      stdin: "from stdin",
    });
    expect(run).toMatchObject({
      isSuccess: false,
      exitCode: 3,
      stdout: "hello\nfrom stdin",
      stderr: "oops\n",
    });
  });

  it("share a session's directory", async () => {
    const session = sandbox.session("build");
    await session.runCommand("mkdir -p /tmp/deep && cd /tmp/deep");
    expect((await session.runCommand("pwd")).stdout).toBe("/tmp/deep\n");
  });

  it("pass on output while they run", async () => {
    const parts: string[] = [];
    let firstBeforeEnd = false;
    const running = sandbox.runCommand("echo one; while [ ! -e /tmp/go ]; do sleep 0.05; done; echo two", {
      onOutput({ text: part }) {
        if (parts.length === 0) {
          firstBeforeEnd = part === "one\n";
          void sandbox.files.write("/tmp/go", "");
        }
        parts.push(part);
      },
    });
    expect((await running).stdout).toBe("one\ntwo\n");
    expect(firstBeforeEnd).toBe(true);
    expect(parts.join("")).toBe("one\ntwo\n");
  });

  it("return all of a long output", async () => {
    const { stdout, isTruncated } = await sandbox.runCommand("seq 200000");
    expect(stdout.split("\n")).toHaveLength(200_001);
    expect(isTruncated).toBe(false);
    const less = await sandbox.runCommand("seq 60000", { maxOutput: 1000 });
    expect(less).toMatchObject({ isTruncated: true, stdout: stdout.slice(0, 1000) });
    const whole = await sandbox.runCommand("printf x😀; sleep 1; echo end", { maxOutput: 2 });
    expect(whole).toMatchObject({ isTruncated: true, stdout: "x" });
  });

  it("are followed until a deadline, with all output until then", async () => {
    const connection = new Connection({ url: server.url, token: TOKEN });
    const command = "echo begun; sleep 1000";
    const first = await connection.call("run_command", { command, sandbox: "library", wait_seconds: 0 });
    const { id } = first.data;
    await expect
      .poll(async () => (await connection.call("get_result", { id, wait_seconds: 0 })).data.stdout)
      .toBe("begun\n");
    const left = await follow(connection, first, { deadline: Date.now() + 2500 });
    expect(left).toMatchObject({ data: { state: "running" }, stdout: "begun\n", isTruncated: false });
    await connection.call("cancel_run", { id });
    await connection.close();
  });

  it("are cancelled in the sandbox when the caller aborts them", async () => {
    const abort = new AbortController();
    const running = sandbox.runCommand("echo $$; sleep 1000", {
      signal: abort.signal,
      onOutput: () => abort.abort(),
    });
    await expect(running).rejects.toThrow("aborted");
    const [latest] = await sandbox.runs(1);
    expect(latest).toMatchObject({ state: "cancelled", title: expect.stringContaining("sleep 1000") });
  });

  it.each([
    ["throws", () => expect.fail("no more")],
    ["rejects", () => Promise.reject(new Error("no more"))],
  ])("are cancelled if their listener %s", async (_how, onOutput) => {
    await expect(sandbox.runCommand("echo 1; sleep 1000", { onOutput })).rejects.toThrow("no more");
    expect((await sandbox.runs(1))[0]).toMatchObject({ state: "cancelled" });
  });

  it("can be found by their id", async () => {
    const { id } = await sandbox.runCommand("echo kept");
    expect(await client.result(id)).toMatchObject({ id, stdout: "kept\n", exitCode: 0 });
  });
});

describe("a server that refuses calls temporarily", () => {
  it("gets the call again after the time that it names", async () => {
    let named = 0;
    let tooEarly = 0;
    const { flaky, requestCount } = sandboxRefusing("get_result", (count) => {
      if (count === 1) named = Date.now() + 1000;
      else if (Date.now() < named) tooEarly++;
      return [429, 502, undefined][count - 1];
    });
    const run = await flaky.runCommand("echo before; sleep 1; echo after");
    expect(run).toMatchObject({ isSuccess: true, stdout: "before\nafter\n" });
    expect(requestCount()).toBeGreaterThan(2);
    expect(tooEarly).toBe(0);
  });

  it("causes an error with the run's id if it asks the client to wait for a day", async () => {
    const { flaky } = sandboxRefusing("get_result", () => 429, "86400");
    let id = "";
    const running = flaky.runCommand("sleep 1000", { onStart: (started) => (id = started) });
    const error = await running.catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(UnavailableError);
    expect(error).toMatchObject({ code: "rate_limited", runID: id });
    expect((await sandbox.runs(1))[0]).toMatchObject({ id, state: "running" });
    await client.cancel(id);
  });

  it("gets the cancellation of an aborted run again", async () => {
    const { flaky, requestCount } = sandboxRefusing("cancel_run", (count) => (count === 1 ? 429 : undefined));
    const abort = new AbortController();
    const options = { signal: abort.signal, onOutput: () => abort.abort() };
    await expect(flaky.runCommand("echo 1; sleep 1000", options)).rejects.toThrow("aborted");
    expect(requestCount()).toBe(2);
    expect((await sandbox.runs(1))[0]).toMatchObject({ state: "cancelled" });
  });

  it("does not delay an abort by its Retry-After", async () => {
    const { flaky } = sandboxRefusing("cancel_run", () => 429, "86400");
    const abort = new AbortController();
    let id = "";
    const options = {
      signal: abort.signal,
      onStart: (started: string) => (id = started),
      onOutput: () => abort.abort(),
    };
    await expect(flaky.runCommand("echo 1; sleep 1000", options)).rejects.toThrow("aborted");
    await client.cancel(id);
  });

  it("is polled at most half as often as it allows while commands print all the time", async () => {
    const { flaky, requestCount } = sandboxRefusing("get_result", () => undefined);
    const startedAt = Date.now();
    const loop = "for i in $(seq 200); do echo $i; sleep 0.02; done";
    await Promise.all(["a", "b", "c"].map((name) => flaky.session(name).runCommand(loop)));
    const minutes = (Date.now() - startedAt) / 60_000;
    // The server allows 1,200 calls a minute. Three calls get the results and are not polls. Three more are a margin, because the
    // first poll does not wait.
    expect(requestCount() - 6).toBeLessThan(600 * minutes);
  });

  /**
   * A sandbox of a client with a `fetch` that refuses some calls of `tool`. `statusOf` returns the status of the nth
   * call, or undefined to pass it on.
   */
  function sandboxRefusing(tool: string, statusOf: (count: number) => number | undefined, retryAfter = "1") {
    let count = 0;
    const flakyFetch: typeof fetch = async (input, init) => {
      const { params } = JSON.parse(typeof init?.body === "string" ? init.body : "{}");
      const status = params?.name === tool ? statusOf(++count) : undefined;
      if (status === undefined) return fetch(input, init);
      return new Response("", { status, headers: { "retry-after": retryAfter } });
    };
    const flaky = connect({ url: server.url, token: TOKEN, fetch: flakyFetch }).sandbox("library");
    return { flaky, requestCount: () => count };
  }
});

describe("files", () => {
  it("are written, edited, listed, read and removed", async () => {
    expect(await sandbox.files.write("notes/a b#.txt", "one\n")).toMatchObject({ size: 4 });
    await sandbox.files.edit("notes/a b#.txt", [{ oldText: "one", newText: "two" }]);
    expect(await sandbox.files.readText("notes/a b#.txt")).toBe("two\n");
    const entries = await sandbox.files.list("notes");
    expect(entries.map(({ path }) => path)).toEqual(["a b#.txt"]);
    await sandbox.files.remove("notes", { recursive: true });
    await expect(sandbox.files.read("notes/a b#.txt")).rejects.toMatchObject({ code: "not_found" });
  });

  it("can be written and read as streams", async () => {
    const block = new Uint8Array(65_536).fill(7);
    let remaining = 320;
    const source = new ReadableStream<Uint8Array>({
      pull: (controller) => (remaining-- > 0 ? controller.enqueue(block) : controller.close()),
    });
    expect(await sandbox.files.upload("/tmp/big", source)).toMatchObject({ size: 320 * 65_536 });
    let bytes = 0;
    for await (const part of await sandbox.files.download("/tmp/big")) bytes += part.length;
    expect(bytes).toBe(320 * 65_536);
  });

  it("do not exist after their upload was aborted", async () => {
    const abort = new AbortController();
    const endless = new ReadableStream<Uint8Array>({
      async pull(controller) {
        controller.enqueue(new Uint8Array(1024));
        await new Promise((resolve) => setTimeout(resolve, 10));
        abort.abort();
      },
    });
    const upload = sandbox.files.upload("/tmp/endless", endless, { signal: abort.signal });
    await expect(upload).rejects.toThrow("aborted");
    await expect(sandbox.files.read("/tmp/endless")).rejects.toMatchObject({ code: "not_found" });
  });

  it("never leave the sandbox by their path", async () => {
    await sandbox.files.write("../../../tmp/up.txt", "up");
    expect(await sandbox.files.readText("/tmp/up.txt")).toBe("up");
  });
});

it("the client runs in a Worker", async () => {
  const program = `import { connect } from "./client/index.ts";
export default {
  async fetch() {
    const sandbox = connect(${JSON.stringify({ url: server.url, token: TOKEN })}).sandbox("library");
    const { images } = await sandbox.runCode("import matplotlib.pyplot as plt; plt.plot([1, 4, 9]); plt.show()");
    await sandbox.files.write("a.txt", new Blob(["from a Worker"]).stream());
    return Response.json([images.length, await sandbox.files.readText("a.txt")]);
  },
};`;
  const { outputFiles } = await build({
    stdin: { contents: program, resolveDir: repository, loader: "ts" },
    bundle: true,
    format: "esm",
    conditions: ["workerd", "worker", "browser"],
    write: false,
  });
  const script = outputFiles[0]?.text ?? "";
  const wrangler = createRequire(createRequire(import.meta.url).resolve("wrangler/package.json"));
  const { Miniflare, convertV4MiniflareOptions } = wrangler("miniflare") as typeof MiniflareModule;
  const worker = new Miniflare(
    convertV4MiniflareOptions({ script, modules: true, compatibilityDate: "2026-01-01", cf: false }),
  );
  try {
    const response = await worker.dispatchFetch("http://worker.invalid/");
    expect(await response.json()).toEqual([1, "from a Worker"]);
  } finally {
    await worker.dispose();
  }
});

it("the client runs in a page of another origin", async () => {
  const entry = join(repository, "client/index.ts");
  const { outputFiles } = await build({
    stdin: { contents: `export * from ${JSON.stringify(entry)};`, resolveDir: repository, loader: "ts" },
    bundle: true,
    format: "iife",
    globalName: "library",
    platform: "browser",
    write: false,
  });
  const site = await serve((_request, response) => {
    response.writeHead(200, { "content-type": "text/html" });
    response.end("<!doctype html>");
  });
  const browser = await launchChromium();
  try {
    const page = await browser.newPage();
    await page.goto(site);
    await page.addScriptTag({ content: outputFiles[0]?.text ?? "" });
    const pageResult = await page.evaluate(
      async (given) => {
        const library: { connect: typeof connect } = Reflect.get(globalThis, "library");
        const inPage = library.connect(given).sandbox("library");
        const { images } = await inPage.runCode(
          "import matplotlib.pyplot as plt; plt.plot([1, 4, 9]); plt.show()",
        );
        await inPage.files.write("a.txt", "written");
        await inPage.files.upload("b.txt", new Blob(["streamed"]).stream());
        let printed = "";
        await inPage.runCommand("echo 1; sleep 0.1; echo 2", {
          onOutput: ({ text: part }) => void (printed += part),
        });
        let bytes = 0;
        for await (const part of await inPage.files.download("b.txt")) bytes += part.length;
        await inPage.files.remove("a.txt");
        const missing = await inPage.files.readText("a.txt").catch(({ code }: CallError) => code);
        const stranger = library.connect({ ...given, token: "of-somebody-else-0123" });
        const refused = await stranger.list().catch(({ code }: AccessError) => code);
        return [images.length, printed, bytes, missing, refused];
      },
      { url: server.url, token: TOKEN },
    );
    expect(pageResult).toEqual([1, "1\n2\n", 8, "not_found", "unauthorized"]);
  } finally {
    await browser.close();
  }
});

it("the client exposes a port, makes a checkpoint and restores it", async () => {
  await sandbox.files.write("state.txt", "before");
  const { checkpoint } = await sandbox.checkpoint("a label");
  await sandbox.files.write("state.txt", "after");
  await sandbox.restore(checkpoint);
  // The new container may take longer to respond than this server's calls wait.
  await expect.poll(() => sandbox.files.readText("state.txt").catch(String)).toBe("before");

  await sandbox.runCommand("nohup python3 -m http.server 8123 --directory /workspace >/dev/null 2>&1 &");
  const { url } = await sandbox.expose(8123);
  await until(async () => (await textAt(new URL("state.txt", url))) === "before");
});

it("the client destroys a sandbox", async () => {
  const other = client.sandbox("short-lived");
  await other.runCommand("true");
  await other.destroy();
  const { sandboxes } = await client.list();
  expect(sandboxes.map(({ name }) => name)).not.toContain("short-lived");
});

describe("errors", () => {
  it("have the server's code and hint", async () => {
    const refused = sandbox.files.edit("missing.txt", [{ oldText: "a", newText: "b" }]);
    await expect(refused).rejects.toBeInstanceOf(CallError);
    await expect(refused).rejects.toMatchObject({
      code: "not_found",
      hint: expect.stringContaining("list_files"),
    });
    await expect(sandbox.files.read("/tmp")).rejects.toMatchObject({ code: "is_directory" });
    await expect(sandbox.runCommand("true", { timeoutSeconds: -1 })).rejects.toMatchObject({
      code: "invalid_argument",
    });
  });

  it("distinguish a wrong token from an unreachable server", async () => {
    const stranger = connect({ url: server.url, token: "not-the-owner's-token" });
    await expect(stranger.list()).rejects.toBeInstanceOf(AccessError);
    await expect(stranger.sandbox("a").files.list()).rejects.toMatchObject({ code: "unauthorized" });
    await stranger.close();
    await expect(stranger.list()).rejects.toMatchObject({ code: "closed" });
    await expect(stranger.sandbox("a").files.list()).rejects.toMatchObject({ code: "closed" });
    const nobody = connect({ url: "http://127.0.0.1:9/mcp", token: TOKEN });
    await expect(nobody.list()).rejects.toBeInstanceOf(ConnectionError);
  });
});
