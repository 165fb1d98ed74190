/** axe-core, for tests of pages in a browser. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

/** Its script: evaluate it in the page before `violations`. */
export const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

interface Found {
  violations: { id: string; nodes: { html: string }[] }[];
}

/** Returns the violations that axe finds. Runs in the page. */
export async function violations(): Promise<string[]> {
  const tester: { run(): Promise<Found> } = Reflect.get(globalThis, "axe");
  const found = await tester.run();
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ")}`);
}
