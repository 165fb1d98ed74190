/** A figure: one thing measured on both sides. To add one, write a module in `figures/` and list it in its index. */
import type { Bed } from "./bed.ts";
import type { Row } from "./measure.ts";

export interface Figure {
  /** What `--only` is compared with, and the heading of its table. */
  name: string;
  /** What the baseline is, for the reader of the table. */
  baseline: string;
  measure(bed: Bed, size: Size): Promise<Row[]>;
}

export interface Size {
  /** How often: `full`, or with --quick about a tenth of it. */
  count(full: number): number;
  quick: boolean;
}
