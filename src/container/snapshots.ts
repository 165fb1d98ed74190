/** Saves and restores of a sandbox's workspace, and of what was installed beside it, by requests to sandboxd. What it answers is checked and bounded. */
import type { Call, Content, ResultOf } from "../../container/sandboxd/operations.ts";
import type { FileFailure } from "../../container/sandboxd/shapes.ts";
import {
  SNAPSHOT_ENTRIES,
  type SnapshotRequests,
  snapshotRequests,
} from "../../container/sandboxd/snapshots/calls.ts";
import { ToolError } from "../shared/errors.ts";
import type { Connection } from "./connection.ts";
import { requestOperation, partsOf } from "./sandboxd-request.ts";

/** What an agent has said and was told: the files below a directory of the home that have its id in their path. */
export interface Conversation {
  /** As `/.agent/conversations`. */
  below: string;
  id: string;
}

/** What a restore is of, where that is not the workspace. */
export type Target = { task: string } | { system: "true" };

export class Snapshots {
  readonly #fetch: Connection["fetch"];

  /** @param fetch how sandboxd is reached: `Requests.request` */
  constructor(fetch: Connection["fetch"]) {
    this.#fetch = fetch;
  }

  /** Does a part of a save or a restore. A stream that breaks off is not asked for again: the save begins anew. */
  async call<Name extends keyof SnapshotRequests>(
    name: Name,
    input: Call<SnapshotRequests[Name]> & Content<SnapshotRequests[Name]["up"]>,
    signal: AbortSignal,
  ): Promise<ResultOf<SnapshotRequests[Name]>> {
    const row = snapshotRequests[name];
    const result = await requestOperation(this.#fetch, row, partsOf(row, input), signal, refusal);
    return result as ResultOf<SnapshotRequests[Name]>;
  }
}

function refusal({ code, problem }: FileFailure): ToolError {
  if (code === "ENOSPC") return new ToolError("no_space", "the disk of the sandbox is full");
  if (problem === "too_large")
    return new ToolError("too_large", `it has more than ${SNAPSHOT_ENTRIES} files and directories`);
  // Another sandboxd has answered than the one that had begun it.
  if (problem === "missing")
    return new ToolError("no_answer", "the sandbox has lost what it had begun", "", true);
  return new ToolError("file_system", `the sandbox says ${code ?? problem}`);
}
