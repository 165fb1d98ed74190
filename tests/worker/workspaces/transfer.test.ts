/** Moves saved states between a hostile program in sandboxd's place and R2. */
import { expect, it } from "vitest";
import { type TransferHost, WorkspaceTransfer } from "../../../src/actors/workspace-transfer.ts";
import type { ObjectStore } from "../../../src/storage/object-store.ts";

const MIB = 1024 * 1024;

it("a restore ends with its time limit although sandboxd responded and never reads the rest", async () => {
  const bucket: Pick<ObjectStore, "get"> = {
    get: async () => ({ size: MIB, body: new Blob([new Uint8Array(MIB)]).stream(), bytes: () => fail() }),
  };
  const respondAtOnce = async () => ({ reads: [] });
  const host = { bucket, snapshots: { call: respondAtOnce }, prefix: () => "p/" };
  const transfer = new WorkspaceTransfer(host as unknown as TransferHost);
  const limit = new AbortController();
  setTimeout(() => limit.abort(), 100);
  const state = { id: "a", savedAt: 0, files: 1, bytes: 1, manifestBytes: MIB, packs: [] };
  await expect(transfer.restore(state, limit.signal)).rejects.toThrow();
});

function fail(): never {
  throw new Error("not needed");
}
