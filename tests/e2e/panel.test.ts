/** The panel in a real Chromium: its pages, live updates, and long lists and outputs. */
import { readFileSync } from "node:fs";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { type Browser, type BrowserContext, type Page, launchChromium } from "../clients/chromium.ts";
import { PanelPage } from "../setup/panel-page.ts";
import { pidOf, tree } from "../setup/processes.ts";
import { type Server, startServer, TOKEN } from "../setup/server.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const state = temporaryDirectory();
let server: Server;
let chromium: Browser;
let panel: PanelPage;
let context: BrowserContext;
let page: Page;
let browserErrors: string[];

const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);
/** Writes to the named pipe `go`, from which a program reads. */
const resumeReader = (sandbox: string) =>
  call("run_command", { sandbox, session: "other", command: "echo on > go", timeout_seconds: 60 });

const rows = () => panel.rows();

/** The row of a file or directory in the tree. */
const rowOf = (tag: "a" | "summary", name: string) => `${tag}:has(bdi:text-is("${name}"))`;

const options = (port: string) => ({ flags: ["--state-dir", state, "--port", port] });

beforeAll(async () => {
  [server, chromium] = await Promise.all([startServer(options("0")), launchChromium()]);
  panel = await PanelPage.open(chromium, server.url);
  ({ context, page, browserErrors } = panel);
});
afterAll(async () => {
  await chromium?.close();
  await server?.stop();
});

/** Records the paths of a page's requests from now on, and counts its open calls. */
function requestsOf(of: Page) {
  const open = new Set<unknown>();
  const paths: string[] = [];
  of.on("request", (request) => {
    const { pathname } = new URL(request.url());
    paths.push(pathname);
    if (pathname === "/panel/mcp") open.add(request);
  });
  const close = (request: unknown) => void open.delete(request);
  of.on("requestfailed", close);
  of.on("requestfinished", close);
  return { paths, calls: () => open.size };
}

describe("the panel", () => {
  it("accepts a sign-in by keyboard, and first says that there are no sandboxes", async () => {
    await page.waitForSelector("a:text-is('Sign in')");
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.waitForSelector("h1:text-is('Sign in to the panel')");
    // The field for the token has the focus.
    await page.keyboard.type(TOKEN);
    await page.keyboard.press("Enter");
    await page.waitForSelector("h1:text-is('Your sandboxes')");
    await page.waitForSelector("main :text('No sandboxes yet')");
    expect(await page.locator("h1, h2").allInnerTexts()).toEqual(["Your sandboxes", "Recent runs"]);
    await page.click("main a:text-is('Connect a client')");
    await page.waitForSelector("h1:text-is('Connect a client')");
    expect(await page.locator("h1").count()).toBe(1);
    expect(await page.innerText("main")).toContain(server.url);
    expect(await page.evaluate(() => document.cookie)).toBe("");
    expect(browserErrors.splice(0)).toEqual([expect.stringContaining("401")]);
  });

  it("first shows sandboxes and recent runs, and has a link to clients' configuration", async () => {
    await call("run_command", { sandbox: "one", command: "echo of one" });
    await call("run_code", { sandbox: "two", code: "40 + 2" });
    await page.goto(`${panel.address}#/`);
    await page.waitForSelector("h1:text-is('Your sandboxes')");
    await page.waitForSelector("main a:has(.title:text-is('two')):has-text('used just now')");
    const recent = page.locator("[aria-labelledby=recent] li");
    await expect
      .poll(() => recent.allInnerTexts())
      .toEqual([
        expect.stringMatching(/40 \+ 2\s+two, code, just now/),
        expect.stringMatching(/echo of one\s+one, command, just now/),
      ]);
    expect(await recent.first().locator("time").getAttribute("title")).toMatch(/20\d\d/);
    expect(await page.innerText("main")).not.toContain("mcpServers");
    expect(await page.innerText("aside.more")).toContain("keeps them for 30 days after the run");

    await context.grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.click("header a:text-is('Connect a client')");
    await page.click("button[aria-label='Copy the configuration of Cursor']");
    await page.waitForSelector("button:text-is('Copied')");
    const copied = await page.evaluate("navigator.clipboard.readText()");
    expect(copied).toContain('\n  "mcpServers": {\n');
    expect(JSON.parse(String(copied)).mcpServers.sandbox.url).toBe(server.url);
    // Over plain HTTP, browsers have no clipboard for scripts.
    await page.evaluate("Object.defineProperty(window, 'isSecureContext', { value: false })");
    await page.click("button[aria-label='Copy the address']");
    await page.waitForSelector("button[aria-label='Copy the address']:text-is('Copied')");
    expect(await page.evaluate("navigator.clipboard.readText()")).toBe(server.url);

    await page.click("a.brand");
    await recent.filter({ hasText: "echo of one" }).locator("a").click();
    await page.waitForSelector("h1:text-is('one')");
    await until(async () => (await rows()).includes("of one"));
    expect(browserErrors).toEqual([]);
  });

  it("runs a command, shows its output as it grows, and cancels it", async () => {
    await panel.run(
      "grows",
      "mkfifo go; printf '\\e[31mfirst\\e[0m\\n1 %%\\r2 %%\\n'; cat go; echo last; sleep 1000",
    );
    await until(async () => (await rows()).includes("2 %"));
    expect(await rows()).toEqual(["first", "2 %"]);
    expect(await page.getAttribute(".row span", "class")).toBe("f1");
    await resumeReader("grows");
    await until(async () => (await rows()).includes("last"));
    expect(await rows()).toEqual(["first", "2 %", "on", "last"]);
    await page.focus("button:text-is('Cancel')");
    await page.keyboard.press("Enter");
    await panel.waitForState("cancelled");
    await until(() => page.evaluate(() => document.activeElement?.tagName === "H2"));
    await page.waitForSelector(".runs .state:text-is('cancelled')");
  });

  it("continues after a broken connection without a missing or repeated line", async () => {
    await panel.run("grows", "for i in $(seq 5); do echo line $i; cat go; done");
    await until(async () => (await rows()).includes("line 1"));
    await context.setOffline(true);
    await resumeReader("grows");
    await page.waitForSelector("[role=alert]:has-text('cannot be reached')");
    await resumeReader("grows");
    await context.setOffline(false);
    await until(async () => (await rows()).includes("line 3"));
    for (const line of [4, 5]) {
      await resumeReader("grows");
      await until(async () => (await rows()).includes(`line ${line}`));
    }
    await resumeReader("grows");
    await panel.waitForState("succeeded");
    expect(await rows()).toEqual([1, 2, 3, 4, 5].flatMap((line) => [`line ${line}`, "on"]));
    browserErrors.length = 0;
  });

  it("does not move output that its user has scrolled, even before the browser reports that", async () => {
    await panel.run("scrolled", "mkfifo go; seq 200; cat go; sleep 1000");
    await until(async () => (await rows()).includes("200"));
    const height = () => page.evaluate(() => document.querySelector(".log")?.scrollHeight ?? 0);
    const before = await height();
    await page.evaluate(() => {
      addEventListener("scroll", (event) => event.stopImmediatePropagation(), true);
      document.querySelector(".log")?.scrollTo(0, 0);
    });
    await resumeReader("scrolled");
    await until(async () => (await height()) > before);
    expect(await page.evaluate(() => document.querySelector(".log")?.scrollTop)).toBe(0);
    await page.reload();
  });

  it("shows hostile output as text, and renders the visible part of megabytes", async () => {
    const hostile = String.raw`printf '<script>document.title="x"</script><img src=x onerror=alert(1)>\n'
printf '\e]0;title\a\e]8;;https://evil.example\e\\link\e]8;;\e\\ \e[2J\e[?1049h\e[999;999Hstill\e(B here\n'
printf 'a\u202egnp.exe b\u0007\u0085\n\xff\xfe\e'; printf '[31;999;38;5;300mred\e[\n'
head -c 3000000 /dev/zero | tr '\0' x; printf '\nthe end\n'`;
    await panel.run("hostile", hostile);
    await panel.waitForState("succeeded");
    await until(async () => (await rows()).at(-1) === "the end");
    expect(await page.locator(".log").innerText()).not.toContain("evil.example");
    expect(await page.locator(".log .row").count()).toBeLessThan(200);
    await page.evaluate(() => document.querySelector(".log")?.scrollTo(0, 0));
    await page.waitForSelector(".row:has-text('<script>')");
    await page.click("summary:text-is('Show all')");
    expect(await page.innerText(".source")).toBe(hostile.replaceAll("\u202e", "⟨U+202E⟩"));
    const [html, link, bidi = "", bytes] = await rows();
    expect(html).toBe('<script>document.title="x"</script><img src=x onerror=alert(1)>');
    expect(link).toBe("link still here");
    expect(bidi).toMatch(/^a⟨U\+202E⟩gnp\.exe b\u2407/);
    expect(bytes).toContain("red");
    expect(await page.locator(".log").locator("script, a, img").count()).toBe(0);
    expect(await page.title()).toBe("Sandboxes");
    expect(browserErrors).toEqual([]);
  });

  it("shows a sandbox's state, exposes a port, makes a checkpoint and restores it", async () => {
    await call("write_file", { sandbox: "grows", path: "kept.txt", content: "before" });
    await page.goto(`${panel.address}#/grows/about`);
    await page.waitForSelector("div:has(dt:text-is('Internet access')) dd:text-is('unrestricted')");
    await call("configure_sandbox", { sandbox: "grows", allow_hosts: ["*.example.com"] });
    await page.waitForSelector("dd:text-is('only *.example.com')");
    await call("configure_sandbox", { sandbox: "grows", internet: "full" });
    await page.fill("#port", "8000");
    await page.click("button:text-is('Expose port')");
    await page.waitForSelector("a:text-is('Open port 8000')");
    await page.fill("#label", "a state");
    await page.click("button:text-is('Save checkpoint')");
    await page.waitForSelector("bdi:text-is('a state')");
    await call("write_file", { sandbox: "grows", path: "kept.txt", content: "after" });
    page.once("dialog", (dialog) => void dialog.accept());
    await page.click("button:text-is('Restore')");
    await page.waitForSelector(".note:has-text('is restored to its files')");
    // The page has not consumed the notice of the restart, which is for the model.
    const read = await call("read_file", { sandbox: "grows", path: "kept.txt" });
    expect(read).toContain("The sandbox was stopped to restore a checkpoint");
    expect(read).toContain("```\nbefore\n```");
  });

  it("types lines into a command that runs in a terminal, with a preview beside it", async () => {
    const content = `const page = '<title>app</title><h1>the app</h1><script>top.location = "about:blank"</script>';
const respond = (_, response) => response.setHeader("content-type", "text/html").end(page);
require("http").createServer(respond).listen(8000, () => process.stdout.write("name? "));
process.stdin.on("data", (line) => console.log("hello " + line));`;
    await call("write_file", { sandbox: "grows", path: "app.js", content });
    await call("expose_port", { sandbox: "grows", port: 8000 });
    await panel.run("grows", "node app.js", { isInteractive: true });
    await page.click("button:text-is('Show as text')");
    await until(async () => (await rows()).includes("name? "));
    await page.fill("#line", "panel");
    await page.press("#line", "Enter");
    await until(async () => (await rows()).some((row) => row.endsWith("hello panel")));
    await page.click("button:text-is('Open port 8000')");
    await page.frameLocator("iframe").locator("h1:text-is('the app')").waitFor();
    // The app's script has not navigated the panel.
    expect(page.url()).toContain("/panel#/grows/runs/");
    await page.click("button:text-is('Ctrl+C')");
    await page.waitForSelector("section.run .state:not(.running)");
    expect(browserErrors.splice(0).filter((text) => !/navigat/.test(text))).toEqual([]);
  });

  it("reads a file to its end whatever its name is, and creates one only on request", async () => {
    const lying = "a has 3 bytes; b.txt";
    const content = `${"0123456789".repeat(6000)}end`;
    await call("write_file", { sandbox: "hostile", path: lying, content });
    await page.goto(`${panel.address}#/hostile/files//workspace/${encodeURIComponent(lying)}`);
    await page.waitForSelector("textarea");
    expect(await page.inputValue("textarea")).toBe(content);
    // The page only shows this file, because its lines end in different ways.
    await call("write_file", { sandbox: "hostile", path: "fixed.txt", content: "\u202egnp.exe\r\n\n" });
    await page.goto(`${panel.address}#/hostile/files//workspace/fixed.txt`);
    expect(await page.innerText("section.run pre")).toContain("⟨U+202E⟩gnp.exe");
    await call("run_command", { sandbox: "hostile", command: "printf kept > $'bad\\xff'" });
    await page.goto(`${panel.address}#/hostile/files//workspace/bad%EF%BF%BD`);
    await page.waitForSelector("p:has-text('name is not UTF-8')");
    expect(await page.locator("section.run button").count()).toBe(0);
    await page.goto(`${panel.address}#/hostile/files//workspace/new.txt`);
    await page.waitForSelector("p:has-text('This file does not exist')");
    expect(await page.locator("textarea, section.run [aria-label^='Download']").count()).toBe(0);
    await page.click("button:text-is('Create file')");
    await page.fill("textarea", "made\n");
    await page.click("button:text-is('Save')");
    await page.waitForSelector(".note:text-is('Saved.')");
    expect(await call("read_file", { sandbox: "hostile", path: "new.txt" })).toBe("```\nmade\n```");
    await page.waitForSelector(rowOf("a", "new.txt"));
  });

  it("shows files as a tree, edits one, and asks before it overwrites somebody else's change", async () => {
    await call("write_file", { sandbox: "grows", path: "deep/er/notes.txt", content: "one\r\ntwo\r\n" });
    await page.goto(`${panel.address}#/grows/files`);
    await page.click(rowOf("summary", "deep"));
    await page.click(rowOf("summary", "er"));
    await page.click(rowOf("a", "notes.txt"));
    await page.fill("textarea", "one\n2\n");
    await page.click("button:text-is('Save')");
    await page.waitForSelector(".note:text-is('Saved.')");
    const bytes = { sandbox: "grows", path: "deep/er/notes.txt", encoding: "base64" };
    expect(await call("read_file", bytes)).toContain(btoa("one\r\n2\r\n"));
    await page.fill("textarea", "mine\n");
    await call("write_file", { sandbox: "grows", path: "deep/er/notes.txt", content: "theirs\n" });
    const dialogShown = page.waitForEvent("dialog");
    const click = page.click("button:text-is('Save')");
    const dialog = await dialogShown;
    expect(dialog.message()).toContain("has changed");
    await dialog.dismiss();
    await click;
    expect(await call("read_file", { ...bytes, encoding: "utf-8" })).toBe("```\ntheirs\n```");
    // The text survives a visit to another page.
    await page.click("text=Close");
    await page.click(rowOf("a", "notes.txt"));
    await page.waitForSelector("textarea");
    expect(await page.inputValue("textarea")).toBe("mine\n");
    await page.click("button:text-is('Undo changes')");
  });

  it("uploads files that are dropped on it, and downloads one", async () => {
    await page.evaluate(() => {
      const dataTransfer = new DataTransfer();
      for (const name of ["<b>one.txt", "two.txt"]) dataTransfer.items.add(new File([`in ${name}`], name));
      document
        .querySelectorAll("summary")[1]
        ?.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
    });
    await page.waitForSelector(".note:has-text('Uploaded to /workspace/deep: <b>one.txt, two.txt')");
    await page.click(rowOf("a", "<b>one.txt"));
    const download = page.waitForEvent("download");
    await page.click("section button:text-is('Download')");
    expect(readFileSync(await (await download).path(), "utf8")).toBe("in <b>one.txt");
  });

  it("renders the visible part of a directory of 10,000 files with hostile names, and finds one", async () => {
    await call("run_command", {
      sandbox: "hostile",
      command: String.raw`mkdir many && cd many && seq 10000 | xargs touch && touch $'0\n<img src=x>' $'0\u202egpj' && printf '\377\0' >0.bin`,
    });
    await page.goto(`${panel.address}#/hostile/files`);
    await page.click(rowOf("summary", "many"));
    const find = page.locator("[aria-label='Find in many']");
    await find.waitFor();
    await until(async () => (await page.locator(".tree .entry").count()) < 60);
    expect(await page.locator(".tree img").count()).toBe(0);
    expect(await page.locator("bdi:text-is('0\\\\n<img src=x>')").count()).toBe(1);
    await find.fill("1234");
    await until(async () => (await page.locator(".tree details details .entry").count()) === 1);
    await page.waitForSelector(rowOf("a", "1234"));
    await find.fill("");
    await page.click(rowOf("a", "0.bin"));
    await page.waitForSelector("section pre:has-text('2 bytes')");
    expect(browserErrors).toEqual([]);
  });

  it("is accessible at every width, light and dark", async () => {
    for (const [name, hash] of [
      ["first", ""],
      ["run", "#/grows"],
      ["files", "#/grows/files//workspace/kept.txt"],
      ["about", "#/grows/about"],
    ] as const) {
      await page.goto(`${panel.address}${hash}`);
      await page.waitForSelector("main h1");
      if (name === "files") await page.waitForSelector("textarea");
      if (name === "run") {
        await page.click(".runs a >> nth=-1");
        await page.waitForSelector(".log .row");
      }
      expect(await panel.findDefects()).toEqual([]);
    }
  });

  it("offers only what the signed-in person may do", async () => {
    const reader = await PanelPage.open(chromium, server.url);
    await reader.signIn(["sandbox:write", "sandbox:exec"]);
    const { page: other } = reader;
    await other.click("nav a:has-text('grows')");
    await other.waitForSelector("h1:text-is('grows')");
    await other.click(".runs a >> nth=0");
    await other.waitForSelector(".log .row");
    await other.click("nav >> text=Files");
    await other.click(rowOf("a", "kept.txt"));
    expect(await other.isEditable("textarea")).toBe(false);
    await other.click("nav >> text=Overview");
    await other.waitForSelector("dt:text-is('State')");
    const buttons = await other.locator("button").allInnerTexts();
    expect(buttons).toEqual(["Skip to the sandbox", "Sign out"]);
    expect(await other.locator("form").count()).toBe(0);
    await other.context().close();
  });

  it("lets its user decide which hosts a sandbox may reach, by a link that a client opens", async () => {
    const signedIn = await PanelPage.openSignedIn(chromium, server.url);
    const authorization = `Bearer ${TOKEN}`;
    const allowHosts = async (...hosts: string[]) => {
      const args = { sandbox: "asking", allow_hosts: hosts };
      return JSON.stringify(await client.callTool({ name: "configure_sandbox", arguments: args }));
    };
    const client = new Client(
      { name: "test", version: "1" },
      { capabilities: { elicitation: { url: {} } }, versionNegotiation: { mode: "auto" } },
    );
    let decided: Promise<void> | undefined;
    client.setRequestHandler("elicitation/create", async ({ params }) => {
      decided ??= (async () => {
        // The first request comes from another origin, so the browser sends no session cookie.
        await signedIn.page.goto(`data:text/html,<a href="${"url" in params ? params.url : ""}">go</a>`);
        await signedIn.page.click("a");
        await signedIn.page.waitForSelector("strong:text-is('two.example.com')");
        expect(await signedIn.page.innerText("main")).toContain("asking");
        // The page accepts this click when the pointer has been over the page for a second.
        await signedIn.page.mouse.move(1, 1);
        await signedIn.page.click("button:text-is('Allow')");
        await signedIn.page.waitForSelector("h1:text-is('Allowed')");
      })();
      return { action: "accept" as const };
    });
    const requestInit = { headers: { authorization } };
    await client.connect(new StreamableHTTPClientTransport(new URL(server.url), { requestInit }));
    try {
      await allowHosts("one.example.com");
      expect(await allowHosts("one.example.com", "two.example.com")).toContain("two.example.com");
      expect(decided).toBeDefined();
      await decided;
    } finally {
      await client.close();
      await signedIn.context.close();
    }
  });

  it("shows nothing after a sign-out", async () => {
    await page.click("button:text-is('Sign out')");
    await page.waitForSelector("a:text-is('Sign in')");
    expect(await page.innerText("body")).not.toContain("grows");
    expect(await context.cookies()).toEqual([]);
  });
});

describe("the updates of a page", () => {
  beforeAll(() => panel.signIn());
  afterEach(() => page.evaluate(setHidden, false));

  it("show the changes of others", async () => {
    await page.goto(`${panel.address}#/`);
    await page.reload();
    await page.waitForSelector("h1:text-is('Your sandboxes')");
    const { paths } = requestsOf(page);
    await call("configure_sandbox", { sandbox: "by-another", env: { A: "b" } });
    await page.waitForSelector("nav a:has-text('by-another')");
    await page.click("nav a:has-text('by-another')");
    await page.waitForSelector("h1:text-is('by-another')");
    await call("run_command", { sandbox: "by-another", command: "echo of another" });
    await page.waitForSelector(".runs .title:text-is('echo of another')");
    expect([...new Set(paths)]).toEqual(["/panel/mcp"]);
  });

  it("show a run on two pages, and on one that is opened later", async () => {
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

  it("pause while the page is hidden, and then continue without a gap", async () => {
    const { paths, calls } = requestsOf(page);
    await panel.run("hidden", "mkfifo go; for i in 1 2 3; do echo line $i; cat go; done");
    await until(async () => (await panel.rows()).includes("line 1"));
    await page.evaluate(setHidden, true);
    await until(() => calls() === 0);
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

  it("continue without a gap after the server was killed and restarted", async () => {
    await panel.run("killed", "for i in $(seq 200); do echo line $i; done; sleep 1000");
    await until(async () => (await panel.rows()).includes("line 200"));
    // The actor stores output within a second.
    await call("get_result", { id: idOf(page), wait_seconds: 2 });
    process.kill(pidOf("start", tree(server.child.pid ?? 0)), "SIGKILL");
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
    await until(async () => (await page.locator("[role=alert] .note").count()) === 0);
  });
});

describe("a page with a long list or output", () => {
  it("renders only the visible ones of sixty sandboxes, and finds one by its name", async () => {
    const names = Array.from({ length: 60 }, (_, index) => `Many-${index}`);
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
    await page.waitForSelector("h1:text-is('Many-57')");
    // The list scrolls to the sandbox in the page's address.
    await page.goto(`${panel.address}#/Many-1`);
    await page.reload();
    await until(() => page.locator("nav.sandboxes [aria-current=page]").isVisible());
  });

  it("renders only the visible ones of 60 runs", async () => {
    const sandbox = "many-runs";
    const run = (number: number) => call("run_command", { sandbox, command: `: run ${number}` });
    await run(1);
    const others = Array.from({ length: 59 }, (_, index) => index + 2);
    await runInParallel(others, run);
    await page.goto(`${panel.address}#/${sandbox}`);
    const items = page.locator(".runs li");
    await page.click("button:text-is('Older runs')");
    await page.waitForSelector(".runs li[aria-setsize='60']");
    await until(async () => (await items.count()) < 50);
    await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
    await page.waitForSelector(".runs .title:text-is(': run 1')");
    expect(await items.count()).toBeLessThan(50);
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
