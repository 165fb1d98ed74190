/** Live updates of the panel, and long lists and outputs, in a real Chromium. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Browser, type Page, launchChromium } from "../clients/chromium.ts";
import { PanelPage } from "../setup/panel-page.ts";
import { tree } from "../setup/processes.ts";
import { type Server, startServer } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const state = temporaryDirectory();
let server: Server;
let chromium: Browser;
let panel: PanelPage;
let page: Page;

const options = (port: string) => ({ flags: ["--state-dir", state, "--port", port] });

const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);
const resumeReader = (sandbox: string) =>
  call("run_command", { sandbox, session: "other", command: "echo on > go", timeout_seconds: 60 });

/** Records the paths of a page's requests from now on, and counts its open event streams. */
function requestsOf(of: Page) {
  const open = new Set<unknown>();
  const paths: string[] = [];
  of.on("request", (request) => {
    const { pathname } = new URL(request.url());
    paths.push(pathname);
    if (pathname === "/panel/stream") open.add(request);
  });
  const close = (request: unknown) => void open.delete(request);
  of.on("requestfailed", close);
  of.on("requestfinished", close);
  return { paths, streams: () => open.size };
}

beforeAll(async () => {
  [server, chromium] = await Promise.all([startServer(options("0")), launchChromium()]);
  panel = await PanelPage.openSignedIn(chromium, server.url);
  ({ page } = panel);
});
afterEach(() => page.evaluate(setHidden, false));
afterAll(async () => {
  await chromium?.close();
  await server?.stop();
});

describe("the stream of a page", () => {
  it("shows the changes of others, by one request for each page", async () => {
    await page.goto(`${panel.address}#/`);
    await page.reload();
    await page.waitForSelector("h1:text-is('Connect a client')");
    const { paths, streams } = requestsOf(page);
    await call("configure_sandbox", { sandbox: "by-another", env: { A: "b" } });
    await page.waitForSelector("nav a:has-text('by-another')");
    await page.click("nav a:has-text('by-another')");
    await page.waitForSelector("h1:text-is('by-another')");
    await call("run_command", { sandbox: "by-another", command: "echo of another" });
    await page.waitForSelector(".runs .title:text-is('echo of another')");
    expect([...new Set(paths)]).toEqual(["/panel/stream"]);
    // The page may request the new sandbox's runs and its own state separately or together.
    expect(streams()).toBeLessThanOrEqual(2);
  });

  it("shows a run on two pages, and on one that is opened later", async () => {
    await panel.run("two-pages", "mkfifo go; for i in 1 2 3; do echo line $i; cat go; done; echo end");
    await until(async () => (await panel.rows()).includes("line 1"));
    const second = await panel.openAnother();
    await until(async () => (await second.rows()).includes("line 1"));
    await resumeReader("two-pages");
    for (const each of [panel, second]) await until(async () => (await each.rows()).includes("line 2"));
    await resumeReader("two-pages");
    await resumeReader("two-pages");
    const third = await panel.openAnother();
    for (const each of [panel, second, third]) {
      await each.waitForState("succeeded");
      expect(await each.rows()).toEqual([...[1, 2, 3].flatMap((line) => [`line ${line}`, "on"]), "end"]);
    }
    await Promise.all([second.page.close(), third.page.close()]);
  });

  it("is closed while the page is hidden, and then continues without a gap", async () => {
    const { paths, streams } = requestsOf(page);
    await panel.run("hidden", "mkfifo go; for i in 1 2 3; do echo line $i; cat go; done");
    await until(async () => (await panel.rows()).includes("line 1"));
    await page.evaluate(setHidden, true);
    await until(() => streams() === 0);
    paths.length = 0;
    await resumeReader("hidden");
    await resumeReader("hidden");
    expect([paths, await panel.rows()]).toEqual([[], ["line 1"]]);
    await page.evaluate(setHidden, false);
    await until(async () => (await panel.rows()).includes("line 3"));
    await resumeReader("hidden");
    await panel.waitForState("succeeded");
    expect(await panel.rows()).toEqual([1, 2, 3].flatMap((line) => [`line ${line}`, "on"]));
  });

  it("continues without a gap after the server was killed and restarted", async () => {
    await panel.run("killed", "for i in $(seq 200); do echo line $i; done; sleep 1000");
    await until(async () => (await panel.rows()).includes("line 200"));
    // The actor stores output within a second.
    await call("get_result", { id: idOf(page), wait_seconds: 2 });
    const workerd = tree(server.child.pid ?? 0).find(({ command }) => /workerd serve/.test(command));
    process.kill(workerd?.pid ?? Number.NaN, "SIGKILL");
    await server.exited;
    await page.waitForSelector("[role=alert]:has-text('cannot be reached')");
    server = await startServer(options(new URL(server.url).port));
    await panel.waitForState("lost");
    await page.evaluate(() => document.querySelector(".log")?.scrollTo(0, 0));
    await until(async () => (await panel.rows()).includes("line 1"));
    const lines = (await panel.rows()).filter((row) => row.startsWith("line "));
    expect(lines).toEqual(lines.map((_, index) => `line ${index + 1}`));
    await page.evaluate(() => document.querySelector(".log")?.scrollTo(0, 1e6));
    await until(async () => (await panel.rows()).includes("line 200"));
    expect(await page.locator("[role=alert] .note").count()).toBe(0);
  });
});

describe("a page with a long list or output", () => {
  it("renders only the visible ones of sixty sandboxes, and finds one by its name", async () => {
    const names = Array.from({ length: 60 }, (_, index) => `many-${index}`);
    await runInParallel(names, (sandbox) => call("configure_sandbox", { sandbox, env: { A: "b" } }));
    await page.goto(`${panel.address}#/`);
    const items = page.locator("nav.sandboxes li");
    await page.waitForSelector("nav.sandboxes.long");
    const sizeNow = async () => Number(await items.first().getAttribute("aria-setsize"));
    await until(async () => (await sizeNow()) >= 60);
    const size = await sizeNow();
    await until(async () => (await items.count()) < 50);
    expect(await items.count()).toBeGreaterThan(8);
    await page.evaluate(() => document.querySelector(".sandboxes .scroll")?.scrollTo(0, 1e6));
    await page.waitForSelector(`nav.sandboxes li[aria-posinset='${size}']`);
    expect(await items.count()).toBeLessThan(50);
    await page.fill("[aria-label='Find a sandbox']", "many-57");
    await until(async () => (await items.count()) === 1);
    await page.press("[aria-label='Find a sandbox']", "Tab");
    await page.keyboard.press("Enter");
    await page.waitForSelector("h1:text-is('many-57')");
    // The list scrolls to the sandbox in the page's address.
    await page.goto(`${panel.address}#/many-1`);
    await page.reload();
    await until(() => page.locator("nav.sandboxes [aria-current=page]").isVisible());
  });

  it("renders only the visible ones of 120 runs", async () => {
    const sandbox = "many-runs";
    const run = (number: number) => call("run_command", { sandbox, command: `: run ${number}` });
    await run(1);
    const others = Array.from({ length: 119 }, (_, index) => index + 2);
    await runInParallel(others, run);
    await page.goto(`${panel.address}#/${sandbox}`);
    const items = page.locator(".runs li");
    for (const shown of [100, 120]) {
      await page.click("button:text-is('Older runs')");
      await page.waitForSelector(`.runs li[aria-setsize='${shown}']`);
    }
    await until(async () => (await items.count()) < 60);
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    await page.waitForSelector(".runs .title:text-is(': run 1')");
    expect(await items.count()).toBeLessThan(60);
    // A page of an old run shows its command, even if the list no longer contains the run.
    const oldest = await page.getAttribute(".runs a:has(.title:text-is(': run 1'))", "href");
    await page.goto(`${panel.address}#/${sandbox}`);
    await page.goto(`${panel.address}${oldest}`);
    await page.reload();
    await page.waitForSelector("section.run h2 bdi:text-is(': run 1')");
    await page.waitForSelector("section.run p:has-text(' s')");
    expect(await page.locator(".runs .title:text-is(': run 1')").count()).toBe(0);
  });

  it("renders only the visible rows of megabytes of output, and says that only the end is shown", async () => {
    await panel.run("megabytes", "yes 0123456789 | head -c 4000000; echo; echo the end");
    await panel.waitForState("succeeded");
    await until(async () => (await panel.rows()).at(-1) === "the end");
    expect(await page.locator(".log *").count()).toBeLessThan(300);
    await page.waitForSelector("text=only its end is shown");
  });
});

/** Runs `work` for each item, several at the same time. */
async function runInParallel<T>(all: T[], work: (one: T) => Promise<unknown>): Promise<void> {
  const next = all.values();
  const worker = async () => {
    for (const one of next) await work(one);
  };
  await Promise.all(Array.from({ length: 8 }, worker));
}

/** Runs in the page. A headless browser never reports a page as hidden. */
function setHidden(isHidden: boolean): void {
  Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
  document.dispatchEvent(new Event("visibilitychange"));
}

/** The id of the open run. */
function idOf(of: Page): string {
  return decodeURIComponent(new URL(of.url()).hash.split("/").at(-1) ?? "");
}
