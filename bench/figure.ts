/** A figure measures our server and a baseline. To add one, write a module in `figures/` and list it in `figures/index.ts`. */
import type { TestBed } from "./bed.ts";
import type { Row } from "./measure.ts";

export interface Figure {
  /** The figure's name in the table; `--only` selects figures by it. */
  name: string;
  /** Describes the baseline, for readers of the table. */
  baseline: string;
  measure(bed: TestBed, size: Size): Promise<Row[]>;
}

interface Size {
  /** The number of repetitions: `full`, or about a tenth of that with --quick. */
  count(full: number): number;
  quick: boolean;
}
