/** The consent page in a real Chromium. The Worker listens on loopback. */
import { afterEach, describe, expect, it } from "vitest";
import { violations } from "../clients/axe.ts";
import {
  type Browser,
  type BrowserContext,
  devices,
  type Page,
  launchChromium,
} from "../clients/chromium.ts";
import { endLater } from "../setup/end-later.ts";
import { CLIENT_ID, CLIENT_SECRET, startGitHub } from "../setup/github.ts";
import { Client, type Tokens } from "../setup/oauth-client.ts";
import { OWNER_TOKEN, startOAuthServer } from "../setup/oauth-server.ts";
import { serve } from "../setup/serve.ts";
import { web } from "../setup/sign-in.ts";
import { sleep, until } from "../setup/until.ts";

const PHONE = { width: 375, height: 812 };
const NARROW = { width: 320, height: 640 };
const LAPTOP = { width: 1366, height: 768 };
const DESKTOP = { width: 1280, height: 900 };

const github = await startGitHub();
const server = await startOAuthServer({
  ANTHROPIC_API_KEY: "test-model-key",
  GITHUB_CLIENT_ID: CLIENT_ID,
  GITHUB_CLIENT_SECRET: CLIENT_SECRET,
  GITHUB_ALLOWED_USERS: "octocat",
  GITHUB_URL: github.origin,
  GITHUB_API_URL: github.origin,
});
const chromium = endLater(await launchChromium());
/** The client's own server, to which the browser is redirected. */
const callback = await serve(
  (_, response) => void response.end("<!doctype html><title>Client</title>You can close this page"),
);
let context: BrowserContext;
/** The browser's errors: requests that a policy blocked, exceptions, and files that were not found. */
let pageErrors: string[] = [];

afterEach(async () => {
  await context?.close();
});

async function open(options: Parameters<Browser["newContext"]>[0] = {}): Promise<Page> {
  context = await chromium.newContext({ viewport: DESKTOP, ...options });
  const page = await context.newPage();
  pageErrors = [];
  page.on("console", (message) => {
    if (message.type() === "error") pageErrors.push(message.text());
  });
  page.on("pageerror", (error) => pageErrors.push(error.message));
  return page;
}

async function newClient(
  metadata: Record<string, unknown> = {},
): Promise<{ client: Client; redirect_uri: string }> {
  const redirect_uri = `${callback}/callback`;
  const all = { client_name: "Claude Code", redirect_uris: [redirect_uri], ...metadata };
  return { client: await Client.register(web, all, server.origin), redirect_uri };
}

/** Opens the page of a new client in the browser. */
async function visit(
  page: Page,
  metadata: Record<string, unknown> = {},
  parameters: Record<string, string> = {},
) {
  const { client, redirect_uri } = await newClient(metadata);
  const url = await client.authorizationURL({ redirect_uri, ...parameters });
  const response = await page.goto(url);
  return { client, redirect_uri, url, status: response?.status() };
}

const token = (page: Page) => page.getByLabel("The server's token");
const approve = (page: Page) => page.getByRole("button", { name: "Approve with the token" });

/** The parameters that the client received at its callback, once the browser has opened it. */
async function callbackParameters(page: Page): Promise<URLSearchParams> {
  await page.waitForURL(`${callback}/callback?*`);
  expect(await page.title()).toBe("Client");
  return new URL(page.url()).searchParams;
}

describe("a person", () => {
  it("unticks scopes, enters a wrong token and then the right one, and is sent back with the scopes that stayed ticked", async () => {
    const page = await open();
    const { client, redirect_uri } = await visit(page);
    expect(await page.getByRole("heading", { level: 1 }).textContent()).toBe(
      "Claude Code asks for access to your sandboxes",
    );
    await page.getByRole("checkbox", { name: "tasks:run" }).uncheck();
    await page.getByText("sandbox:write").click();
    await token(page).fill("wrong");
    await approve(page).click();
    expect(await page.getByRole("alert").textContent()).toContain("This is not the server's token");
    expect(await page.title()).toBe("Error: Claude Code asks for access");
    expect(await token(page).getAttribute("aria-invalid")).toBe("true");
    expect(await token(page).inputValue()).toBe("");
    expect(await token(page).evaluate((field) => field === document.activeElement)).toBe(true);
    // Chromium reports the status of the page with the error.
    expect(pageErrors.splice(0)).toEqual([expect.stringContaining("status of 403")]);
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      expect(await violations(page)).toEqual([]);
    }
    // The page keeps the unticked scopes.
    await token(page).fill(OWNER_TOKEN);
    await approve(page).click();
    const code = (await callbackParameters(page)).get("code") ?? "";
    const tokens: Tokens = await (await client.exchange(code, { redirect_uri })).json();
    expect(tokens.scope).toBe("sandbox:read sandbox:exec");
    expect(pageErrors).toEqual([]);
    expect(await context.cookies()).toEqual([]);
  });

  it("approves with the keyboard alone, by the Enter key in the token's field", async () => {
    const page = await open();
    await visit(page);
    const focused = () =>
      page.evaluate(() => {
        const element = document.activeElement;
        const outline = element ? getComputedStyle(element).outlineStyle : "none";
        return `${element?.getAttribute("value") ?? element?.getAttribute("name") ?? ""} ${outline}`;
      });
    await until(async () => (await focused()) === "token solid");
    await page.keyboard.type(OWNER_TOKEN);
    const order: string[] = [];
    for (const key of [...Array(4).fill("Shift+Tab"), ...Array(7).fill("Tab")]) {
      await page.keyboard.press(key);
      order.push(await focused());
      if (order.length === 2) await page.keyboard.press("Space");
    }
    expect(order).toEqual([
      "tasks:run solid",
      "sandbox:exec solid",
      "sandbox:write solid",
      "sandbox:read solid",
      "sandbox:write solid",
      "sandbox:exec solid",
      "tasks:run solid",
      "token solid",
      "owner solid",
      "github solid",
      "deny solid",
    ]);
    await token(page).press("Enter");
    expect((await callbackParameters(page)).has("code")).toBe(true);
  });

  it("does not approve by the Enter key that the person holds on another site's page", async () => {
    const page = await open();
    const { client, redirect_uri } = await newClient();
    const url = await client.authorizationURL({ redirect_uri });
    // The callback's server is another site if its name is another one.
    await page.goto(callback.replace("127.0.0.1", "localhost"));
    for (const fragment of ["", "#token"]) {
      const [opened] = await Promise.all([
        page.waitForEvent("popup"),
        page.evaluate((at) => void window.open(at), url + fragment),
      ]);
      // As a browser with a password manager does.
      await token(opened).evaluate(
        (field, value) => ((field as HTMLInputElement).value = value),
        OWNER_TOKEN,
      );
      await opened.keyboard.press("Enter");
      await sleep(500);
      expect(opened.url()).toBe(url + fragment);
    }
  });

  it("approves with GitHub by a click, but not by the second click of a double click on another page", async () => {
    github.user = { id: 583231, login: "octocat" };
    const page = await open();
    const { client, redirect_uri, url } = await visit(page);
    const button = page.getByRole("button", { name: "GitHub" });
    const box = await button.boundingBox();
    const [x, y] = [(box?.x ?? 0) + 20, (box?.y ?? 0) + 20];
    // This page opens a second page above it, which sends the first page to the consent page. The first click closes the second
    // page, and the second click reaches the consent page.
    await page.goto(callback);
    const [above] = await Promise.all([
      page.waitForEvent("popup"),
      page.evaluate((at) => void (window.open(at), 0), callback),
    ]);
    await above.evaluate((to) => {
      (window.opener as Window).location.href = to;
      addEventListener("mousedown", () => window.close());
    }, url);
    await button.waitFor();
    await above.mouse.move(x, y);
    // The page may close before it has replied to the browser's driver.
    await Promise.all([above.waitForEvent("close"), above.mouse.down().catch(() => undefined)]);
    await page.mouse.click(x, y);
    await sleep(1500);
    expect(page.url()).toBe(url);
    // On a busy machine the browser starts the button's delay late.
    await until(async () => {
      await page.mouse.click(x, y);
      await sleep(500);
      return page.url() !== url;
    });
    const code = (await callbackParameters(page)).get("code") ?? "";
    expect((await client.exchange(code, { redirect_uri })).status).toBe(200);
    expect(pageErrors).toEqual([]);
  });
});

describe("the page", () => {
  it("asks for the token again after the back button, refuses its old form clearly, and offers to start again", async () => {
    const page = await open();
    const { url } = await visit(page);
    const used = await page.locator("input[name=handle]").inputValue();
    await token(page).fill(OWNER_TOKEN);
    await approve(page).click();
    await callbackParameters(page);
    await page.goBack();
    expect(page.url()).toBe(url);
    // The browser did not keep the old page, which contained the token.
    expect(await page.locator("input[name=handle]").inputValue()).not.toBe(used);
    expect(await token(page).inputValue()).toBe("");
    await page
      .locator("input[name=handle]")
      .evaluate((field, value) => field.setAttribute("value", value), used);
    await token(page).fill(OWNER_TOKEN);
    await approve(page).click();
    expect(await page.getByRole("heading").textContent()).toBe("This page has expired");
    await page.getByRole("link", { name: "Start again" }).click();
    await token(page).fill(OWNER_TOKEN);
    await approve(page).click();
    expect((await callbackParameters(page)).has("code")).toBe(true);
  });

  it("fits the screens of a phone, a laptop and a desktop, with its heading and controls large enough to touch", async () => {
    const page = await open({ ...devices["Pixel 7"], viewport: PHONE });
    await visit(page);
    expect((await page.getByRole("heading", { level: 1 }).boundingBox())?.y).toBeGreaterThanOrEqual(0);
    for (const viewport of [PHONE, NARROW, DESKTOP]) {
      await page.setViewportSize(viewport);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(viewport.width);
      const targets = await page.locator("button, label.scope, input[type=password]").all();
      expect(targets).toHaveLength(8);
      for (const target of targets) expect((await target.boundingBox())?.height).toBeGreaterThanOrEqual(44);
    }
  });

  it("fits a laptop's screen, with the token's field in focus", async () => {
    const page = await open({ viewport: LAPTOP });
    await visit(page);
    const targets = await page.locator("h1, dl, label.scope, input[type=password], button").all();
    // The heading, the list, four scopes, the token's field and three buttons.
    expect(targets).toHaveLength(10);
    for (const target of targets) {
      const box = await target.boundingBox();
      expect((box?.y ?? Infinity) + (box?.height ?? 0)).toBeLessThanOrEqual(LAPTOP.height);
      expect(box?.y).toBeGreaterThanOrEqual(0);
    }
    expect(await page.evaluate(() => window.scrollY)).toBe(0);
    expect(await token(page).evaluate((field) => field === document.activeElement)).toBe(true);
  });

  it("says how to register an unknown client again, and has a link back to the client whose request is not valid", async () => {
    const page = await open({ viewport: PHONE });
    const { redirect_uri } = await newClient();
    const forgotten = new Client(web, "forgotten-client", undefined, server.origin);
    await page.goto(await forgotten.authorizationURL({ redirect_uri }));
    expect(await page.getByRole("heading").textContent()).toBe("This app is not registered");
    expect(await page.locator("main").innerText()).toMatch(/remove this server and add it again/);
    expect((await visit(page, {}, { code_challenge_method: "plain" })).status).toBe(400);
    expect(await page.getByRole("heading").textContent()).toBe("This request is not valid");
    await page.getByRole("link", { name: `Go back to ${new URL(redirect_uri).host}` }).click();
    expect((await callbackParameters(page)).get("error")).toBe("invalid_request");
  });
});
