/** The page of an upload link in a real Chromium. */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, inject, it } from "vitest";
import { violations } from "../clients/axe.ts";
import { type BrowserContextOptions, type Page, launchChromium } from "../clients/chromium.ts";
import { endLater } from "../setup/end-later.ts";
import { callTool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const directory = temporaryDirectory();
const server = inject("server");
const chromium = endLater(await launchChromium());
let page: Page;

const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);
const sandbox = "uploads";

async function link(path: string, more: Record<string, unknown> = {}): Promise<string> {
  const created = await call("file_link", { sandbox, path, direction: "upload", ...more });
  const [, url = ""] = /^url:\s+(\S+)$/m.exec(created) ?? [];
  return url;
}

async function open(url: string, options: BrowserContextOptions = {}): Promise<void> {
  page = await (await chromium.newContext(options)).newPage();
  await page.goto(url);
}

const message = () => page.innerText("#message");
const content = (path: string) => call("run_command", { sandbox, command: `sha256sum <${path}` });

/** Drops files of these sizes on the page. */
const drop = (sizes: readonly number[]) =>
  page.evaluate((given) => {
    const dataTransfer = new DataTransfer();
    for (const [index, size] of given.entries())
      dataTransfer.items.add(new File(["x".repeat(size)], `dropped ${index} <b>.txt`));
    document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, sizes);

afterEach(async () => {
  await page?.context().close();
});

describe("the page of an upload link", () => {
  it("sends a file that is dropped on it, shows the progress, and then describes the received file", async () => {
    const path = "dropped.txt";
    await open(await link(path));
    const session = await page.context().newCDPSession(page);
    const throughput = { downloadThroughput: 1e6, uploadThroughput: 1e6 };
    await session.send("Network.emulateNetworkConditions", { offline: false, latency: 0, ...throughput });
    await drop([3_000_000]);
    await page.waitForFunction(() => {
      const { value, hidden } = document.querySelector("progress") as HTMLProgressElement;
      return !hidden && value > 0 && value < 1;
    });
    expect(await message()).toMatch(/^dropped 0 <b>\.txt: \d+ %$/);
    expect(await page.isDisabled("button")).toBe(true);
    await page.waitForSelector("#message:has-text('Uploaded')");
    const digest = createHash("sha256").update("x".repeat(3_000_000)).digest("hex");
    expect(await message()).toBe(`Uploaded: dropped 0 <b>.txt, 3000000 bytes, SHA-256 ${digest}`);
    expect(await page.isVisible("form")).toBe(false);
    expect(await content(path)).toContain(digest);
  });

  it("can be used by keyboard alone", async () => {
    const chosen = join(directory, "chosen.txt");
    writeFileSync(chosen, "chosen");
    await open(await link("chosen.txt"));
    // The test begins to wait before the key press, so that it cannot miss the file dialog.
    const chooser = page.waitForEvent("filechooser");
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("file");
    await page.keyboard.press("Enter");
    await (await chooser).setFiles(chosen);
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("BUTTON");
    await page.keyboard.press("Enter");
    await page.waitForSelector("#message:has-text('Uploaded')");
    expect(await content("chosen.txt")).toContain(createHash("sha256").update("chosen").digest("hex"));
  });

  it("explains each failure: two files, a file that is too large, a link that is used up or has expired, a directory in its place", async () => {
    const url = await link("wrong.txt", { max_bytes: 1000 });
    await open(url);
    expect(await page.innerText("main")).toContain("At most 1000 bytes");
    await drop([1, 1]);
    expect(await message()).toContain("takes one file");
    await drop([1001]);
    expect(await message()).toContain("1001 bytes");
    const other = await page.context().newPage();
    await other.goto(url);
    await drop([10]);
    await page.waitForSelector("#message:has-text('Uploaded')");
    await page.close();
    page = other;
    await drop([10]);
    await page.waitForSelector("#message:has-text('already used')");
    const expiring = await link("late.txt", { expires_seconds: 5 });
    await page.goto(expiring);
    await until(async () => (await fetch(expiring)).status === 410);
    await drop([10]);
    await page.waitForSelector("#message:has-text('expired')");
    expect((await page.reload())?.status()).toBe(410);
    expect(await page.innerText("h1")).toContain("expired");
    const occupied = await link("taken");
    await call("run_command", { sandbox, command: "mkdir taken" });
    await page.goto(occupied);
    await drop([10]);
    await page.waitForSelector("#message:has-text('is a directory')");
  });

  it.each(["light", "dark"] as const)("fits a phone, and is accessible in %s mode", async (colorScheme) => {
    const path = `deep/${"directory/".repeat(12)}${"name".repeat(20)}.txt`;
    await open(await link(path, { max_bytes: 5_000_000 }), {
      viewport: { width: 320, height: 640 },
      colorScheme,
    });
    expect(await page.innerText("main")).toContain("At most 4.8 MiB");
    await drop([1, 1]);
    expect(await violations(page)).toEqual([]);
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBeLessThanOrEqual(320);
  });
});
