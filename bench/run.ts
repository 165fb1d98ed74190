/**
 * `npm run bench`: measures the server against a bare Worker on the same engine, in turns.
 *
 *     npm run bench [-- --only <part of a figure's name>] [--quick]
 *
 * Writes bench/results.json and the charts and tables of docs/performance.md; --quick measures a tenth and writes
 * nothing. `npm run bench -- --report` measures nothing and writes the page from the results that are there.
 */
import { parseArgs } from "node:util";
import { startBed } from "./bed.ts";
import { figures } from "./figures/index.ts";
import { type Measured, writePage, writeResults } from "./report.ts";

const { values } = parseArgs({
  options: {
    only: { type: "string", multiple: true, default: [] },
    quick: { type: "boolean", default: false },
    report: { type: "boolean", default: false },
  },
});
if (values.report) {
  writePage(figures, { measured: false });
  process.exit();
}
const chosen = figures.filter(
  ({ name }) => values.only.length === 0 || values.only.some((part) => name.includes(part)),
);
if (chosen.length === 0) {
  console.error(`No such figure. There are: ${figures.map(({ name }) => name).join(", ")}.`);
  process.exit(1);
}

const bed = await startBed();
const measured: Measured[] = [];
let failed = false;
try {
  for (const figure of chosen) {
    const size = {
      quick: values.quick,
      count: (full: number) => (values.quick ? Math.max(1, Math.round(full / 10)) : full),
    };
    try {
      const rows = await figure.measure(bed, size);
      measured.push({ figure, rows });
      for (const { name, unit, ours, baseline, ratio, spread } of rows) {
        const range = spread ? ` (${spread.join(" to ")})` : "";
        console.log(`${name.padEnd(44)} ${ours} against ${baseline} ${unit}: ${ratio}${range}`);
      }
    } catch (error) {
      failed = true;
      console.error(`${figure.name}:`, error);
    }
  }
} finally {
  await bed.close();
}
if (!values.quick) {
  writeResults(
    measured,
    figures.map(({ name }) => name),
  );
  writePage(figures, { measured: true });
}
process.exit(failed ? 1 : 0);
