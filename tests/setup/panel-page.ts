/** The panel in a real Chromium. */
import type { Browser, BrowserContext, Page } from "../clients/chromium.ts";
import { violations } from "../clients/axe.ts";
import { TOKEN } from "./server.ts";

export class PanelPage {
  readonly context: BrowserContext;
  readonly page: Page;
  readonly address: string;
  /** The browser's errors, for example about a script or a style that the policy refuses. */
  readonly browserErrors: string[] = [];

  private constructor(context: BrowserContext, page: Page, address: string) {
    this.context = context;
    this.page = page;
    this.address = address;
    page.on("console", (message) => {
      if (message.type() === "error") this.browserErrors.push(message.text());
    });
    page.on("pageerror", (error) => void this.browserErrors.push(error.message));
  }

  /** Opens the panel of the server at `url`, without a sign-in. */
  static async open(chromium: Browser, url: string): Promise<PanelPage> {
    const context = await chromium.newContext({ viewport: { width: 1366, height: 768 } });
    context.setDefaultTimeout(60_000);
    const panel = new PanelPage(context, await context.newPage(), new URL("/panel", url).href);
    await panel.page.goto(panel.address);
    return panel;
  }

  static async openSignedIn(chromium: Browser, url: string): Promise<PanelPage> {
    const panel = await PanelPage.open(chromium, url);
    await panel.signIn();
    // The browser reports the response 401 as an error.
    panel.browserErrors.length = 0;
    return panel;
  }

  /** @param without scopes that the session must not have */
  async signIn(without: readonly string[] = []): Promise<void> {
    await this.page.click("a:text-is('Sign in')");
    for (const scope of without) await this.page.uncheck(`[value="${scope}"]`);
    await this.page.fill("input[name=token]", TOKEN);
    await this.page.click("button:text-is('Sign in')");
    await this.page.waitForSelector("button:text-is('Sign out')");
  }

  /** Opens a second page with the same session. */
  async openAnother(): Promise<PanelPage> {
    const other = new PanelPage(this.context, await this.context.newPage(), this.address);
    await other.page.goto(this.page.url());
    return other;
  }

  async run(sandbox: string, command: string, { isInteractive = false } = {}): Promise<void> {
    await this.page.goto(`${this.address}#/${sandbox}`);
    await this.page.setChecked("input[name=interactive]", isInteractive);
    await this.page.fill("#command", command);
    await this.page.press("#command", "Enter");
    await this.page.waitForSelector("section.run");
  }

  rows(): Promise<string[]> {
    return this.page.locator(".log .row").allInnerTexts();
  }

  /** Waits until the open run has this state. */
  async waitForState(state: string): Promise<void> {
    await this.page.waitForSelector(`section.run .state:text-is('${state}')`);
  }

  /**
   * The defects of the current page, narrow and wide, light and dark: violations that axe finds, and content that
   * does not fit.
   */
  async findDefects(): Promise<string[]> {
    const { page } = this;
    const defects: string[] = [];
    for (const colorScheme of ["dark", "light"] as const)
      for (const width of [375, 768, 1366]) {
        await page.setViewportSize({ width, height: 768 });
        await page.emulateMedia({ colorScheme });
        const needed = await page.evaluate(() => document.documentElement.scrollWidth);
        if (needed !== width) defects.push(`The content is ${needed} px wide in a window of ${width} px.`);
        // axe checks only the narrow light page and the wide dark page, because a check takes a second.
        const isChecked = (width === 375) === (colorScheme === "light") && width !== 768;
        if (isChecked) defects.push(...(await violations(page)));
      }
    return defects;
  }
}
