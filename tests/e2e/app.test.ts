/** The panel in a client's chat (MCP Apps), in a real Chromium. The client uses the extension's own `AppBridge`. */
import { describe, expect, inject, it } from "vitest";
import type { Opening, TestHost } from "../setup/app-host/host.ts";
import { startAppHost } from "../setup/app-host/serve.ts";
import { violations } from "../clients/axe.ts";
import { launchChromium } from "../clients/chromium.ts";
import { endLater } from "../setup/end-later.ts";
import { TOKEN } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";

/** The functions that tests/setup/app-host/host.ts defines in the client's page. They are called in the browser only. */
declare const testHost: TestHost;

const server = inject("server");
const client = await startAppHost();
const chromium = endLater(await launchChromium());
const context = await chromium.newContext({ viewport: { width: 720, height: 900 } });
context.setDefaultTimeout(60_000);
const page = await context.newPage();
/** Errors that the browser reported. */
const pageErrors: string[] = [];
page.on("console", (message) => {
  // The client asks for an event stream, which this server does not offer.
  if (message.type() === "error" && !/ 405 /.test(message.text())) pageErrors.push(message.text());
});
page.on("pageerror", (error) => pageErrors.push(error.message));
/** The App's document: a frame in the proxy's frame in the client's page. */
const app = page.frameLocator("iframe").frameLocator("iframe");

const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);

/** Writes to the named pipe `go`, from which a program reads. */
const resumeReader = (sandbox: string) =>
  call("run_command", { sandbox, session: "other", command: "echo on > go", timeout_seconds: 60 });

/** Makes the client call a tool and show the panel beside it. */
async function open(
  tool: string,
  args: Record<string, unknown>,
  more: Pick<Opening, "context" | "isNarrow"> = {},
): Promise<void> {
  await page.goto(client.url);
  const opening = { endpoint: server.url, token: TOKEN, proxy: client.proxy, tool, args, ...more };
  await page.evaluate((what) => testHost.open(what as Opening), opening as object);
}

const pageRequests = () => page.evaluate(() => testHost.pageRequests);
const rows = () => app.locator(".log .row").allInnerTexts();
const state = (name: string) => app.locator(`section.run .state:text-is('${name}')`).waitFor();

/** The frame with the App's document. */
async function appFrame() {
  const frame = page.frames().at(-1);
  if (!frame) throw new Error("there is no App");
  return frame;
}

describe.each([
  ["that passes on the whole call", false],
  ["that passes on only a call's tool and arguments", true],
])("the app in a client %s", (_words, isNarrow) => {
  const sandbox = isNarrow ? "app-narrow" : "app.whole";

  it("shows the output of a run while the call still waits for it, and can cancel the run", async () => {
    const command = "mkfifo go; echo first; cat go; echo last; sleep 1000";
    await open("run_command", { sandbox, command }, { isNarrow });
    await until(async () => (await rows()).includes("first"));
    await resumeReader(sandbox);
    await until(async () => (await rows()).includes("last"));
    expect(await rows()).toEqual(["first", "on", "last"]);
    await app.locator("button:text-is('Cancel')").click();
    await state("cancelled");
    await app.locator(".runs .state:text-is('cancelled')").waitFor();
    expect(await app.locator(".runs bdi").allInnerTexts()).toContain(command);
    expect(pageErrors.splice(0)).toEqual([]);
  });

  it("shows the run of a call that has ended", async () => {
    await open("run_command", { sandbox, command: "echo done already" }, { isNarrow });
    await state("succeeded");
    await until(async () => (await rows()).length > 0);
    expect(await rows()).toEqual(["done already"]);
    // The chat keeps the focus, so that its user can continue to type.
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("INPUT");
  });
});

describe("the app in a client's chat", () => {
  it("opens the page that fits the tool: the list, or the tool's sandbox", async () => {
    await open("list_sandboxes", {});
    await app.locator("nav.sandboxes >> text=app.whole").waitFor();
    await call("write_file", { sandbox: "app.whole", path: "kept.txt", content: "kept" });
    await open("checkpoint_sandbox", { sandbox: "app.whole", label: "a state" });
    await app.locator("bdi:text-is('a state')").waitFor();
    expect(await app.locator("h1").innerText()).toBe("app.whole");
  });

  it("never navigates by itself, and lets the client open links", async () => {
    await open("expose_port", { sandbox: "app.whole", port: 8000 });
    const link = app.locator("a:text-is('Open port 8000')");
    const url = await link.getAttribute("href");
    await link.click();
    await until(async () => (await pageRequests()).links.length > 0);
    expect((await pageRequests()).links).toEqual([url]);
    await app.locator("nav >> text=Files").click();
    await app.locator("button:text-is('Refresh')").click();
    await app.locator("a:has(bdi:text-is('kept.txt'))").click();
    await app.locator("section button:text-is('Download')").click();
    await until(async () => (await pageRequests()).links.length > 1);
    const download = await fetch((await pageRequests()).links[1] ?? "");
    expect(await download.text()).toBe("kept");
    // The App has no upload: it may send bytes only through the client.
    expect(await app.locator("input[type=file]").count()).toBe(0);
    expect(pageErrors.splice(0)).toEqual([]);
  });

  it("asks for confirmation in its own page, and shows a preview", async () => {
    const content = `require("http").createServer((_, response) => response.setHeader("content-type", "text/html").end("<h1>the app</h1>")).listen(8000, () => console.log("listening"));`;
    await call("write_file", { sandbox: "app.whole", path: "app.js", content });
    await open("run_command", { sandbox: "app.whole", command: "node app.js" });
    await until(async () => (await rows()).includes("listening"));
    await app.locator("button:text-is('Open port 8000')").click();
    await app.frameLocator("iframe").locator("h1:text-is('the app')").waitFor();
    await app.locator("button:text-is('Cancel')").click();
    await app.locator("nav >> text=Overview").click();
    for (const answer of ["No", "Yes"]) {
      await app.locator("button:text-is('Delete sandbox')").click();
      await app.locator(`dialog button:text-is('${answer}')`).click();
      await app.locator("dialog").waitFor({ state: "detached" });
      const words = answer === "No" ? "running" : "does not exist yet";
      await app.locator(`.heading >> text=${words}`).waitFor();
    }
    expect(pageErrors.splice(0)).toEqual([]);
  });

  it("sends no requests while it is scrolled out of sight", async () => {
    await open("list_sandboxes", {});
    await app.locator("nav.sandboxes >> text=app-narrow").waitFor();
    const frame = await appFrame();
    await page.evaluate(() => {
      document.body.style.paddingTop = "5000px";
    });
    // The page's own observer was created earlier, so it has run when this one runs.
    await frame.evaluate(
      () =>
        new Promise<void>((done) => {
          new IntersectionObserver((entries) => {
            if (!entries.at(-1)?.isIntersecting) done();
          }).observe(document.body);
        }),
    );
    const { calls } = await pageRequests();
    // Waits longer than the page's interval between two requests.
    await call("run_command", { sandbox: "app-narrow", command: "sleep 6" });
    expect((await pageRequests()).calls).toBe(calls);
    await page.evaluate(() => scrollTo(0, 5000));
    await until(async () => (await pageRequests()).calls > calls);
  });

  it("shows a task that was given to an agent", async () => {
    await open("execute_task", { task: "[[done]] Write it" });
    await app.locator(".answer:has-text('All is written.')").waitFor();
    await state("succeeded");
    expect(await app.locator("section.run bdi").first().innerText()).toBe("[[done]] Write it");
  });

  it("shows hostile output as text", async () => {
    const command = String.raw`printf '<script>parent.postMessage("x","*")</script><img src=x onerror=alert(1)>\n\e]8;;https://evil.example\e\\link\e]8;;\e\\\n'`;
    await open("run_command", { sandbox: "app-hostile", command });
    await state("succeeded");
    await until(async () => (await rows()).length > 1);
    expect(await rows()).toEqual([
      '<script>parent.postMessage("x","*")</script><img src=x onerror=alert(1)>',
      "link",
    ]);
    expect(await app.locator(".log").locator("script, a, img").count()).toBe(0);
    expect(pageErrors.splice(0)).toEqual([]);
  });

  it("has the height of its content, and fills the screen on request", async () => {
    const availableDisplayModes = ["inline" as const, "fullscreen" as const];
    await open(
      "run_command",
      { sandbox: "app-hostile", command: "seq 500" },
      { context: { availableDisplayModes } },
    );
    await until(async () => (await rows()).includes("500"));
    const frame = await appFrame();
    const heights = () =>
      frame.evaluate(() => [document.documentElement.scrollHeight, innerHeight, document.body.offsetHeight]);
    // The frame shows the whole page, and is at most one pixel higher.
    await until(async () => {
      const [whole = 0, seen = 0, high = 0] = await heights();
      return whole <= seen && seen - high <= 1;
    });
    expect((await heights())[0]).toBeLessThan(1200);
    await app.locator("button:text-is('Full screen')").click();
    await app.locator("nav.sandboxes >> text=app-hostile").waitFor();
    expect((await pageRequests()).modes).toEqual(["fullscreen"]);
    await app.locator("button:text-is('Back to the chat')").click();
    await app.locator("nav.sandboxes").waitFor({ state: "hidden" });
  });

  it("follows the client's light or dark mode, and is accessible", async () => {
    await page.emulateMedia({ colorScheme: "light" });
    await open(
      "run_command",
      { sandbox: "app-hostile", command: "echo seen" },
      { context: { theme: "dark" } },
    );
    await until(async () => (await rows()).includes("seen"));
    const frame = await appFrame();
    const background = () => frame.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const dark = await background();
    for (const theme of ["dark", "light"] as const) {
      await page.evaluate((wanted) => testHost.tell({ theme: wanted }), theme);
      await until(async () => ((await background()) === dark) === (theme === "dark"));
      for (const width of [375, 720]) {
        await page.setViewportSize({ width, height: 900 });
        expect(await frame.evaluate(() => document.documentElement.scrollWidth)).toBe(width);
        expect(await violations(frame)).toEqual([]);
      }
    }
    expect(await frame.evaluate(() => document.cookie)).toBe("");
  });
});
