import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

/** The script of axe-core. Evaluate it in the page before `violations`. */
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
