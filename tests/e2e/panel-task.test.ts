/** The page of a task in a real Chromium, with the real agent and a scripted model. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type Browser, type Page, launchChromium } from "../clients/chromium.ts";
import { idIn } from "../setup/mcp-client.ts";
import { PanelPage } from "../setup/panel-page.ts";
import { TOKEN } from "../setup/server.ts";
import { HOSTILE_TEXT } from "../setup/shared-server.ts";
import { callTool } from "../setup/tool.ts";

const server = inject("server");
let chromium: Browser;
let panel: PanelPage;
let page: Page;

const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);

beforeAll(async () => {
  chromium = await launchChromium();
  panel = await PanelPage.openSignedIn(chromium, server.url);
  ({ page } = panel);
});
afterAll(() => chromium?.close());

describe("the page of a task", () => {
  it("shows its steps as they happen, then its answer, its changes and its cost", async () => {
    await call("write_file", { sandbox: "tasks", path: "old.txt", content: "old\n" });
    const answer = await call("execute_task", {
      task: "[[work]] Write it",
      sandbox: "tasks",
      wait_seconds: 0,
    });
    await page.goto(`${panel.address}#/tasks/runs/${idIn({ text: answer })}`);
    await page.waitForSelector(".steps .call:has-text('Bash mkfifo')");
    expect(await page.locator(".steps li").allInnerTexts()).toEqual([
      expect.stringContaining("Started with"),
      "Write access is fine: I will write it.",
      "Write notes.txt",
      expect.stringContaining("Bash mkfifo"),
    ]);
    expect(await page.locator(".steps .call").first().innerText()).toBe("Write notes.txt");
    expect(await page.locator(".answer").count()).toBe(0);
    await call("run_command", { sandbox: "tasks", session: "other", command: "echo on > /tmp/go" });
    await panel.waitForState("succeeded");
    await page.waitForSelector(".answer");
    expect(await page.innerText(".answer")).toContain(
      "All is written. <img src=x onerror=alert(1)> ⟨U+202E⟩gnp.exe",
    );
    expect(await page.locator(".steps .failure").innerText()).toContain("failed: Exit code 2");
    expect(await page.locator(".changes .change").allInnerTexts()).toEqual([
      "created",
      "created",
      "deleted",
      "created",
    ]);
    expect(await page.locator(".diff .added").allInnerTexts()).toContain(
      "+<img src=x onerror=alert(1)> ⟨U+202E⟩gnp.exe\n",
    );
    expect(await page.locator(".diff .removed").first().innerText()).toBe("-old\n");
    expect(await page.locator(".task dl").innerText()).toMatch(/Tokens\s+40 read, 20 written/);
    expect(await page.locator("main img").count()).toBe(0);
  });

  it("shows the task's files, and downloads them", async () => {
    await page.click("[aria-label='View: notes.txt']");
    await page.waitForSelector(".changes pre:has-text('one')");
    expect(await page.locator(".changes pre").allInnerTexts()).toEqual([
      expect.stringContaining("<img src=x onerror=alert(1)> ⟨U+202E⟩gnp.exe"),
    ]);
    for (const [name, check] of [
      ["notes.txt", (bytes: Buffer) => expect(String(bytes)).toBe(`one\n${HOSTILE_TEXT}\n`)],
      ["kept.bin", (bytes: Buffer) => expect(bytes.length).toBe(3000)],
    ] as const) {
      const download = page.waitForEvent("download");
      await page.click(`[aria-label='Download: ${name}']`);
      check(readFileSync(await (await download).path()));
    }
    expect(panel.browserErrors).toEqual([]);
  });

  it("is accessible at every width, light and dark", async () => {
    expect(await panel.findDefects("task")).toEqual([]);
  });

  it("shows the program and its output if the task is a question", async () => {
    const body = JSON.stringify({ question: "[[product]] What is six times seven?", sandbox: "tasks" });
    const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
    const answer = await fetch(new URL("/execute", server.url), { method: "POST", headers, body });
    expect(answer.status).toBe(200);
    await page.goto(`${panel.address}#/tasks`);
    await page.click(".runs a:has-text('six times seven')");
    await page.waitForSelector(".task pre:has-text('print(6 * 7)')");
    await page.waitForSelector(".log .row:has-text('42')");
    expect(await page.innerText(".task dl")).toMatch(/Tokens\s+\d+ read/);
  });
});
