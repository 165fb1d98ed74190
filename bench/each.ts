/** Measures figures one after another. A figure that fails does not stop the others. */
import type { Figure } from "./figure.ts";
import type { Row } from "./measure.ts";
import type { Measured } from "./report.ts";

/**
 * @param keep Called as soon as a figure is measured, so that no later failure loses it.
 * @param onFailure Called with the error of a figure.
 * @returns the names of the figures that failed
 */
export async function measureEach(
  figures: readonly Figure[],
  measure: (figure: Figure) => Promise<Row[]>,
  keep: (measured: Measured) => void,
  onFailure: (figure: Figure, error: unknown) => void,
): Promise<string[]> {
  const failed: string[] = [];
  for (const figure of figures) {
    try {
      keep({ figure, rows: await measure(figure) });
    } catch (error) {
      failed.push(figure.name);
      onFailure(figure, error);
    }
  }
  return failed;
}
