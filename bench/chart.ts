/** Charts of the stored ratios, as Mermaid blocks, which GitHub draws. */
import type { Row } from "./measure.ts";

/** The figures in the chart of times. Their baseline is the bare Worker. */
const LATENCIES = new Set(["run_code", "run_command", "files", "get_result", "fresh sandbox", "server"]);

export function charts(rows: readonly (Row & { figure: string })[]): string[] {
  const latencies = rows.filter(({ figure, name }) => LATENCIES.has(figure) && name.endsWith(" p50"));
  const throughputs = rows.filter(
    ({ figure, name }) => figure === "concurrency" && name.endsWith(" throughput"),
  );
  return [
    ...chart("Time of a call at p50, bare Worker = 1: less is better", latencies, " p50", () => 1),
    ...chart(
      "Throughput, bare Worker = 1: more is better, the target is 0.5, and 0.6 over 20 sandboxes",
      throughputs,
      " throughput",
      ({ name }) => (name.includes("20 sandboxes") ? 0.6 : 0.5),
    ),
  ];
}

/**
 * A chart with a bar for each row's ratio, and a line through the values of `markOf`. Labels are the rows' names without
 * `ending`.
 */
function chart(title: string, rows: readonly Row[], ending: string, markOf: (row: Row) => number): string[] {
  if (rows.length === 0) return [];
  const labels = rows.map(({ name }) => JSON.stringify(name.slice(0, -ending.length)));
  const ratios = rows.map(({ ratio }) => ratio);
  const marks = rows.map(markOf);
  const lines = [
    "xychart-beta horizontal",
    `    title ${JSON.stringify(title)}`,
    `    x-axis [${labels.join(", ")}]`,
    `    y-axis "ratio" 0 --> ${Math.ceil(Math.max(...marks, ...ratios))}`,
    `    bar [${ratios.join(", ")}]`,
    `    line [${marks.join(", ")}]`,
  ];
  return [`\`\`\`mermaid\n${lines.join("\n")}\n\`\`\``];
}
