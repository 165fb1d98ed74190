import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Frame, Page } from "playwright-core";

const script = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Found {
  violations: { id: string; nodes: { html: string }[] }[];
}

/** Returns the violations of accessibility rules that axe-core finds, for example texts without enough contrast. */
export async function violations(page: Page | Frame): Promise<string[]> {
  await page.evaluate(script);
  // Without the details that nobody reads, a check takes two thirds of the time.
  const options = { resultTypes: ["violations"], selectors: false, preload: false };
  const found = await page.evaluate((of): Promise<Found> => Reflect.get(globalThis, "axe").run(of), options);
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}
