/**
 * `npm run bench`: measures the server against a bare Worker on the same engine, in turns.
 *
 *     npm run bench [-- --only <part of a figure's name>] [--quick]
 *
 * After each figure, writes bench/results.json and the table of docs/internals/performance.md. Continues when a figure fails, and
 * names the failed figures at the end. --quick makes a tenth of the measurements and writes nothing.
 * `npm run bench -- --report` measures nothing and writes the page from the stored results.
 */
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { startBed } from "./bed.ts";
import { figures } from "./figures/index.ts";
import type { Row } from "./measure.ts";
import { writePage, writeResults } from "./report.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true, default: [] },
    quick: { type: "boolean", default: false },
    report: { type: "boolean", default: false },
  },
});
if (values.report) {
  writePage(figures, { isMeasured: false });
  process.exit();
}
const chosen = figures.filter(
  ({ name }) => values.only.length === 0 || values.only.some((part) => name.includes(part)),
);
if (chosen.length === 0) {
  console.error(`No figure has such a name. The figures are: ${figures.map(({ name }) => name).join(", ")}.`);
  process.exit(1);
}

const size = {
  quick: values.quick,
  count: (full: number) => (values.quick ? Math.max(1, Math.round(full / 10)) : full),
};
// The engine uses Node's compile cache, as in `npm start`.
process.env.NODE_COMPILE_CACHE ??= fileURLToPath(
  new URL("../node_modules/.cache/sandbox-mcp", import.meta.url),
);
const bed = await startBed();
const failed: string[] = [];
try {
  for (const figure of chosen) {
    try {
      const rows = await figure.measure(bed, size);
      print(rows);
      if (values.quick) continue;
      // Written after each figure, so that a later failure does not lose it.
      writeResults({ figure, rows }, figures);
      writePage(figures, { isMeasured: true });
    } catch (error) {
      failed.push(figure.name);
      console.error(`${figure.name}:`, error);
    }
  }
} finally {
  await bed.close();
}
if (failed.length > 0)
  console.error(`Not measured: ${failed.join(", ")}. The results of all other figures are written.`);
process.exit(failed.length > 0 ? 1 : 0);

function print(rows: readonly Row[]): void {
  for (const { name, unit, ours, baseline, ratio, spread } of rows) {
    const range = spread ? ` (${spread.join(" to ")})` : "";
    console.log(`${name.padEnd(44)} ${ours} against ${baseline} ${unit}: ${ratio}${range}`);
  }
}
