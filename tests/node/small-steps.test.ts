/** How sandboxd's long loops share its thread with other work. */
import { expect, it, vi } from "vitest";
import { yieldBetweenSteps } from "../../container/sandboxd/small-steps.ts";

it("a long loop lets other events run even if the clock is set back", () => {
  const turn = yieldBetweenSteps();
  vi.spyOn(Date, "now").mockReturnValue(0);
  const begun = performance.now();
  while (performance.now() - begun < 50);
  expect(turn()).toBeInstanceOf(Promise);
  vi.mocked(Date.now).mockRestore();
});
