/**
 * Previews in a real Chromium: a development server, a WebSocket, and pages that attack the server and other
 * previews.
 */
import { cpSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type Page, launchChromium } from "../clients/chromium.ts";
import { endLater } from "../setup/end-later.ts";
import { repository, startServer, TOKEN } from "../setup/server.ts";
import { textAt } from "../setup/preview.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();
let page: Page;

const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);
const run = (sandbox: string, command: string) => call("run_command", { sandbox, command });

async function expose(sandbox: string, port: number): Promise<string> {
  const [, url = ""] = /^url:\s+(\S+)$/m.exec(await call("expose_port", { sandbox, port })) ?? [];
  return url;
}

/** Starts a web server in a sandbox. `body` is the code that handles a request. */
async function serve(sandbox: string, port: number, body: string): Promise<string> {
  const content = `require("http").createServer((request, response) => { ${body} }).listen(${port}, "127.0.0.1");`;
  await call("write_file", { sandbox, path: `${port}.js`, content });
  await run(sandbox, `node ${port}.js >${port}.log 2>&1 &`);
  return expose(sandbox, port);
}

/** Copies an installed package with its dependencies. */
function copyPackage(name: string, to: string): void {
  const from = join(repository, "node_modules", name);
  if (existsSync(join(to, name)) || !existsSync(from)) return;
  mkdirSync(dirname(join(to, name)), { recursive: true });
  cpSync(from, join(to, name), { recursive: true });
  const { dependencies, optionalDependencies } = JSON.parse(readFileSync(join(from, "package.json"), "utf8"));
  for (const other of Object.keys({ ...dependencies, ...optionalDependencies })) copyPackage(other, to);
}

const site = join(directory, "site");
copyPackage("vite", join(site, "node_modules"));
writeFileSync(join(site, "index.html"), '<h1></h1><script type="module" src="/main.js"></script>');
writeFileSync(
  join(site, "main.js"),
  `import { text } from "./text.js";
const show = (shown) => (document.querySelector("h1").textContent = shown);
show(text);
import.meta.hot.accept("./text.js", (changed) => show(changed.text));`,
);
writeFileSync(join(site, "text.js"), 'export const text = "first";');
const server = endLater(await startServer({ flags: ["--mount", site] }));
const chromium = endLater(await launchChromium());
afterEach(async () => {
  await page?.context().close();
});

/** Opens a page, and waits until it contains an element for the selector `shown`. */
async function open(url: string, shown?: string): Promise<void> {
  page = await (await chromium.newContext()).newPage();
  await page.goto(url);
  if (shown !== undefined) await page.waitForSelector(shown);
}

describe("a browser", () => {
  it("sees edits to a Vite project as they are made, without loading the page again", async () => {
    const url = await expose("site", 5173);
    await open(url);
    expect(await page.textContent("h1")).toBe("Waiting for the program");
    await run(
      "site",
      "cd site && node node_modules/vite/bin/vite.js --port 5173 --strictPort >/tmp/vite.log 2>&1 &",
    );
    await page.waitForSelector("h1:text-is('first')");
    await page.evaluate(() => ((globalThis as { mark?: number }).mark = 1));
    await call("write_file", {
      sandbox: "site",
      path: "site/text.js",
      content: 'export const text = "second";',
    });
    await page.waitForSelector("h1:text-is('second')");
    expect(await page.evaluate(() => (globalThis as { mark?: number }).mark)).toBe(1);
  });

  it("sees that a program has ended, and sees its page again after a restart", async () => {
    const program = (text: string) =>
      `response.setHeader("content-type", "text/html"); response.end("<h1>${text}</h1>");`;
    await open(await serve("ended", 8000, program("before")), "h1:text-is('before')");
    await run("ended", "pkill -f 8000.js");
    await page.reload();
    expect(await page.textContent("h1")).toBe("The program no longer responds");
    await serve("ended", 8000, program("after"));
    await page.waitForSelector("h1:text-is('after')");
    await call("destroy_sandbox", { sandbox: "ended" });
    await page.reload();
    expect(await page.textContent("h1")).toBe("This preview has ended");
    await page.reload();
    expect(await call("list_sandboxes", {})).not.toMatch(/^ended:/m);
  });
});

it("a program gets the body of a GET request, also an empty one", async () => {
  const program = "request.pipe(response);";
  const url = new URL(await serve("got", 8000, program));
  await until(async () => (await textAt(url)) === "");
  expect([await textAt(url), await textAt(url, ""), await textAt(url, "hello")]).toEqual(["", "", "hello"]);
});

describe("a page of a preview", () => {
  it("reads nothing of the server, its cookies or another preview", async () => {
    const hostile = await serve(
      "hostile",
      8000,
      'console.log(request.url, request.headers.cookie); response.setHeader("content-type", "text/html"); response.end("<p>hostile</p>");',
    );
    const other = await serve("private", 8000, 'response.end("the other sandbox");');
    const { origin } = new URL(server.url);
    await open(hostile, "p:text-is('hostile')");
    await page.context().addCookies([
      { name: "sandbox-mcp-session", value: "of-the-server", url: origin },
      { name: "sandbox-mcp-session", value: "of-the-server", url: origin.replace("127.0.0.1", "localhost") },
    ]);
    const tried = await page.evaluate(
      async ({ at, elsewhere, token }) => {
        const outcome = (url: string, init?: RequestInit) =>
          fetch(url, { credentials: "include", ...init }).then(
            async (response) => `${response.status} ${await response.text()}`,
            () => "refused",
          );
        const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" });
        const json = { "content-type": "application/json", accept: "application/json, text/event-stream" };
        const servers = [at, at.replace("127.0.0.1", "localhost"), at.replace("127.0.0.1", "app.localhost")];
        const outcomes: string[] = [];
        for (const one of servers)
          for (const path of ["/mcp", "/", "/execute", "/authorize", "/health"]) {
            outcomes.push(await outcome(one + path));
            outcomes.push(await outcome(one + path, { method: "POST", body }));
            const headers = { ...json, authorization: `Bearer ${token}` };
            outcomes.push(await outcome(one + path, { method: "POST", body, headers }));
          }
        outcomes.push(await outcome(elsewhere));
        document.cookie = "planted=1; domain=localhost; path=/";
        document.cookie = "planted=1; domain=.localhost; path=/";
        return { outcomes: [...new Set(outcomes)], cookies: document.cookie };
      },
      { at: origin, elsewhere: other, token: TOKEN },
    );
    expect(tried).toEqual({ outcomes: ["refused"], cookies: "" });
    const cookies = await page.context().cookies();
    expect(cookies.filter(({ name }) => name === "planted")).toEqual([]);
    // The page's own requests have no such cookie either.
    await page.goto(new URL("/again", hostile).href);
    const log = await run("hostile", "cat 8000.log");
    expect(log).toContain("/again");
    expect(log).not.toContain("of-the-server");
  });

  it("cannot be read by another preview that shows it in a frame", async () => {
    const other = await serve(
      "private",
      8001,
      'response.setHeader("content-type", "text/html"); response.end("<p id=secret>secret</p>");',
    );
    await open(await expose("hostile", 8000), "p:text-is('hostile')");
    const read = await page.evaluate(async (url) => {
      const frame = document.body.appendChild(document.createElement("iframe"));
      frame.src = url;
      await new Promise((resolve) => frame.addEventListener("load", resolve));
      try {
        return frame.contentWindow?.document.body.textContent ?? "nothing";
      } catch (error) {
        return (error as Error).name;
      }
    }, other);
    expect(["SecurityError", "nothing"]).toContain(read);
  });
});

describe("code in a sandbox", () => {
  it("does not reach the preview of another sandbox", async () => {
    const url = await expose("private", 8000);
    expect(await textAt(new URL(url))).toBe("the other sandbox");
    const output = await run("hostile", `curl -sS -m 20 ${url}; curl -sS -m 20 --noproxy '*' ${url}; true`);
    expect(output).not.toContain("the other sandbox");
  });
});
