/** A real Chromium, for tests of cookies, policies, history and rendering. */
import { type Browser, chromium } from "playwright-core";
import { findChromium } from "../setup/executable.ts";

export { devices } from "playwright-core";
export type { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core";

/** @throws Error if Chromium is missing */
export async function launchChromium(): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === undefined) {
    throw new Error(
      "Chromium is not installed. `npm test` installs it, or prints how. Set CHROMIUM_PATH if it is in another place.",
    );
  }
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  // Without these flags Chromium looks for updates on the internet.
  args.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  return chromium.launch({ executablePath, args });
}
