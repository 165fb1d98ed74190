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
  const found = await page.evaluate((): Promise<Found> => Reflect.get(globalThis, "axe").run());
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}
