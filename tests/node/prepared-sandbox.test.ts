/** When the engine prepares a sandbox. */
import { expect, it, vi } from "vitest";
import { EngineSandbox, type SharedSettings } from "../../local/engine/engine-sandbox.ts";
import { PreparedSandbox } from "../../local/engine/prepared-sandbox.ts";
import { doLater } from "../setup/end-later.ts";

it("no sandbox is prepared while others start", async () => {
  vi.useFakeTimers();
  doLater(() => vi.useRealTimers());
  const started = vi.spyOn(EngineSandbox, "start").mockRejectedValue(new Error("not needed here"));
  doLater(() => started.mockRestore());
  const common = { directories: [], mounts: () => [] } as Partial<SharedSettings> as SharedSettings;
  const place = () => ({ id: "prepared", directory: "/nowhere", group: "none" });
  let others = 1;
  const prepared = new PreparedSandbox(common, place, () => others > 0);
  doLater(() => prepared.close());
  prepared.start();
  await vi.advanceTimersByTimeAsync(2000);
  await prepared.take({ env: {} });
  await vi.advanceTimersByTimeAsync(2000);
  expect(started).not.toHaveBeenCalled();
  others = 0;
  await vi.advanceTimersByTimeAsync(2000);
  expect(started).toHaveBeenCalledTimes(1);
});
