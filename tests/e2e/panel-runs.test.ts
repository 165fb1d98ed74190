/** The page of a task, with the real agent and a scripted model, and the terminal of the panel, in a real Chromium. */
import { readFileSync } from "node:fs";
import { describe, expect, inject, it } from "vitest";
import { launchChromium } from "../clients/chromium.ts";
import { endLater } from "../setup/end-later.ts";
import { idIn } from "../setup/mcp-client.ts";
import { PanelPage } from "../setup/panel-page.ts";
import { TOKEN } from "../setup/server.ts";
import { HOSTILE_TEXT } from "../setup/shared-server.ts";
import { callTool } from "../setup/tool.ts";
import { until, untilText } from "../setup/until.ts";

const server = inject("server");
const chromium = endLater(await launchChromium());
const panel = await PanelPage.openSignedIn(chromium, server.url);
const { page } = panel;

const call = (name: string, args: Record<string, unknown>) => callTool(server.url, name, args);

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
    expect(await panel.findDefects()).toEqual([]);
  });

  it("shows the program and its output if the task is a question", async () => {
    const body = JSON.stringify({ question: "[[product]] What is six times seven?", sandbox: "tasks" });
    const headers = { authorization: `Bearer ${TOKEN}`, "content-type": "application/json" };
    const response = await fetch(new URL("/execute", server.url), { method: "POST", headers, body });
    expect(response.status).toBe(200);
    await page.goto(`${panel.address}#/tasks`);
    await page.click(".runs a:has-text('six times seven')");
    await page.waitForSelector(".task pre:has-text('print(6 * 7)')");
    await page.waitForSelector(".log .row:has-text('42')");
    expect(await page.innerText(".task dl")).toMatch(/Tokens\s+\d+ read/);
  });
});

/** The rows of the terminal without trailing spaces. */
const rows = async () =>
  (await page.locator(".xterm-rows > div").allTextContents()).map((row) =>
    row.replaceAll("\u00a0", " ").trimEnd(),
  );
const waitForText = (text: string) => untilText(async () => (await rows()).join("\n"), text);
const open = (command: string) => panel.run("term", command, { isInteractive: true });
/** Types into the terminal after it has the focus. */
const type = async (text: string) => {
  await page.waitForSelector(".xterm.focus");
  await page.keyboard.type(text);
};

describe("the terminal of the panel", () => {
  it("runs full-screen programs under the page's Content Security Policy", async () => {
    await call("write_file", { sandbox: "term", path: "notes.txt", content: "one\ntwo\n" });
    await open("vi -u NONE notes.txt");
    // When vi learns the size of the page's terminal, it draws again without the line that names the file.
    await waitForText("one\ntwo\n~\n");
    await type("ofrom the panel");
    await page.keyboard.press("Escape");
    await type(":wq\n");
    await panel.waitForState("succeeded");
    expect(await call("read_file", { sandbox: "term", path: "notes.txt" })).toBe(
      "```\none\nfrom the panel\ntwo\n```",
    );
    expect(panel.browserErrors).toEqual([]);
  });

  it("shows colours, fills its element, and loses the focus after Ctrl+]", async () => {
    const content = `process.stdin.resume();
console.log("\\x1b[31mred\\x1b[0m \\x1b[38;2;0;0;255mblue\\x1b[0m");
const printRows = () => console.log(process.stdout.rows + " rows");
printRows();
process.stdout.on("resize", printRows);`;
    await call("write_file", { sandbox: "term", path: "size.js", content });
    await open("node size.js");
    await waitForText("red blue");
    const span = (text: string) => page.locator(`.xterm-rows span:text-is('${text}')`).last();
    const color = (text: string) => span(text).evaluate((element) => getComputedStyle(element).color);
    expect(await color("red")).toBe("rgb(179, 38, 30)");
    expect(await color("blue")).toBe("rgb(0, 0, 255)");
    const { length } = await rows();
    await until(async () => (await rows()).includes(`${length} rows`));
    await page.setViewportSize({ width: 800, height: 1000 });
    await until(async () => (await rows()).length > length);
    const { length: larger } = await rows();
    await until(async () => (await rows()).includes(`${larger} rows`));
    // Resizing and typing add no runs to the list.
    await page.waitForSelector(".runs .title:text-is('node size.js')");
    const titles = await page.locator(".runs .title").allTextContents();
    expect(titles).toEqual(["node size.js", "vi -u NONE notes.txt"]);
    await page.keyboard.press("Control+]");
    expect(await page.evaluate(() => document.activeElement?.getAttribute("type"))).toBe("checkbox");
    await page.setViewportSize({ width: 1366, height: 768 });
  });

  it("continues after a broken connection without a gap, and can be reopened", async () => {
    await open("cat");
    await type("before\n");
    await until(async () => (await rows()).filter((row) => row === "before").length === 2);
    const id = decodeURIComponent(page.url().split("/").at(-1) ?? "");
    await panel.context.setOffline(true);
    await call("send_input", { id, text: "meanwhile\n" });
    await page.waitForSelector("[role=alert]:has-text('cannot be reached')");
    await panel.context.setOffline(false);
    await waitForText("meanwhile");
    await type("after\n");
    const all = ["before", "before", "meanwhile", "meanwhile", "after", "after"];
    await until(async () => (await rows()).filter(Boolean).length === all.length);
    expect((await rows()).filter(Boolean)).toEqual(all);
    await page.goto(`${panel.address}#/term/about`);
    await page.click("nav >> text=Runs");
    await page.click(".runs a:has-text('cat')");
    await until(async () => (await rows()).filter(Boolean).length === all.length);
    await page.click("button:text-is('Cancel')");
    await panel.waitForState("cancelled");
    panel.browserErrors.length = 0;
  });

  it("draws hostile output without acting on it", async () => {
    await call("write_file", {
      sandbox: "term",
      path: "hostile.sh",
      content: String.raw`printf '\e]0;evil\a\e]52;c;QUJD\a\e]8;;https://evil.example\e\\link\e]8;;\e\\<img src=x>\n'
for n in 999999999 2147483647; do printf "x\e["$n"b\e["$n"S\e["$n"L\e["$n"I\e["$n"@\e[H"; done
printf '\e[c\e[>c\e[=c\e[5n\e[?6n\e[?25$p\e]10;?\a\e]4;1;?\a\e[21t\e[18t\eP$qm\e\\\eZ\005\e[?1004h'
head -c 3000000 /dev/zero | tr '\0' x
printf '\e[999999999999;;;;:::m\e[\e]never ended'; printf '\e\\\e[2J\e[Hready\n'
IFS= read -r typed; printf '[%q]\n' "$typed"; cat`,
    });
    await open("bash hostile.sh");
    await waitForText("ready");
    await type("mine\n");
    await waitForText("[mine]");
    expect(await page.title()).toBe("Sandboxes");
    expect(await page.locator(".terminal-box").locator("a, img").count()).toBe(0);
    expect(panel.browserErrors).toEqual([]);
  });

  it("removes control characters from a paste, and asks before it pastes several lines", async () => {
    const paste = (text: string) =>
      page.locator(".xterm-helper-textarea").evaluate((element, pasted) => {
        const clipboardData = new DataTransfer();
        clipboardData.setData("text/plain", pasted);
        element.dispatchEvent(
          new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }),
        );
      }, text);
    const dialogShown = page.waitForEvent("dialog");
    const pasted = paste("one\nrefused\n");
    const dialog = await dialogShown;
    expect(dialog.message()).toContain("Paste 3 lines?");
    await dialog.dismiss();
    await pasted;
    await paste("seen\u001b[201~\u0003 only");
    await waitForText("seen[201~ only");
    await type("\n");
    await until(async () => (await rows()).filter((row) => row === "seen[201~ only").length === 2);
    expect((await rows()).join("\n")).not.toContain("refused");
  });

  it("is accessible at every width, light and dark", async () => {
    await page.check("text=for a screen reader");
    await page.waitForSelector(".xterm-accessibility-tree");
    expect(await panel.findDefects()).toEqual([]);
  });
});
