/** A real Chromium, for tests of cookies, policies, history and rendering. */
import { type Browser, chromium } from "playwright-core";
import { findChromium } from "../setup/executable.ts";

export { devices } from "playwright-core";
export type { Browser, BrowserContext, BrowserContextOptions, FrameLocator, Page } from "playwright-core";

/** @throws Error if Chromium is missing */
export async function launchChromium(): Promise<Browser> {
  const executablePath = findChromium();
  if (executablePath === undefined) {
    throw new Error(
      "Chromium is not installed: npm test installs it, or says how. CHROMIUM_PATH says where it is.",
    );
  }
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  // Without these flags Chromium looks for updates on the internet.
  args.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  return chromium.launch({ executablePath, args });
}

/** Returns the texts with a contrast below 4.5 to 1. Runs in the page. */
export function lowContrast(): string[] {
  const numbers = (color: string) => (color.match(/[\d.]+/g) ?? []).map(Number);
  const luminance = (color: string) => {
    const [r = 0, g = 0, b = 0] = numbers(color).map((part) => {
      const value = part / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element: Element | null): string => {
    if (!element) return "rgb(255, 255, 255)";
    const { backgroundColor } = getComputedStyle(element);
    return numbers(backgroundColor)[3] === 0 ? behind(element.parentElement) : backgroundColor;
  };
  const low: string[] = [];
  for (const element of document.querySelectorAll("main *")) {
    const text = Array.from(element.childNodes, (node) =>
      node.nodeType === 3 ? node.textContent?.trim() : "",
    ).join("");
    if (!text) continue;
    const [light = 0, dark = 0] = [
      luminance(getComputedStyle(element).color),
      luminance(behind(element)),
    ].toSorted((a, b) => b - a);
    const contrast = (light + 0.05) / (dark + 0.05);
    if (contrast < 4.5) low.push(`${text.slice(0, 40)}: ${contrast.toFixed(2)}`);
  }
  return low;
}
