/** Notices of restarts that no result has shown yet. */
import { expect, it } from "vitest";
import { RestartNotice } from "../../../src/actors/restart-notice.ts";
import type { Snapshot } from "../../../src/actors/saved-states.ts";
import { takeNotice } from "../notices.ts";

function storage() {
  const values = new Map<string, unknown>();
  const kv = {
    get: (key: string) => structuredClone(values.get(key)),
    put: (key: string, value: unknown) => void values.set(key, structuredClone(value)),
    delete: (key: string) => values.delete(key),
  };
  return { values, kv: kv as never };
}

const state = { savedAt: 0, files: 2, bytes: 2048 } as Snapshot;

/** A container that ends, and the next one. @param end why it is stopped; undefined if it ends by itself */
function restart(notice: RestartNotice, end?: Parameters<RestartNotice["noteEnding"]>[0], saved?: Snapshot) {
  if (end) notice.noteEnding(end);
  notice.onContainerEnd(end ?? "lost");
  notice.onContainerStart();
  notice.noteRestore(saved);
}

it("a loss is shown even if another restart follows before a result can show it, also by the next actor", () => {
  const { kv } = storage();
  const notice = new RestartNotice(kv);
  notice.onContainerStart();
  restart(notice);
  restart(notice, "idle", state);
  restart(notice, "server", state);
  const text = takeNotice(new RestartNotice(kv));
  expect(text).toMatch(
    /^The sandbox was restarted: its files, processes and variables are gone\. Later: The sandbox was stopped together/,
  );
  expect(text).not.toContain("idle");
  expect(takeNotice(new RestartNotice(kv))).toBeUndefined();
});

it("many losses take limited space, and equal ones are shown once", () => {
  const { kv } = storage();
  const notice = new RestartNotice(kv);
  notice.onContainerStart();
  for (let count = 0; count < 20; count++) restart(notice, "unsaved_idle", { ...state, files: count });
  const text = takeNotice(notice) ?? "";
  expect(text.match(/The sandbox was stopped/g)).toHaveLength(4);
  expect(text).toContain("0 files");
  expect(text).toContain("19 files");
  for (let count = 0; count < 20; count++) restart(notice);
  expect(takeNotice(notice)).toBe("The sandbox was restarted: its files, processes and variables are gone.");
});
