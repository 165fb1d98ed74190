/** Saves and restores a sandbox's state by requests to sandboxd. Responses are checked and bounded. */
import type { Call, Content, ResultOf } from "../../container/sandboxd/operations.ts";
import type { FileFailure } from "../../container/sandboxd/shapes.ts";
import {
  SNAPSHOT_ENTRIES,
  type SnapshotRequests,
  snapshotRequests,
} from "../../container/sandboxd/snapshots/snapshot-requests.ts";
import { ToolError } from "../shared/errors.ts";
import type { Requesting } from "./sandboxd.ts";
import { requestOperation, partsOf } from "./file-operations.ts";
import { DISK_FULL, SAVE_LOST, stateDamaged, stepFailed, tooManyEntries } from "./texts.ts";

/** An agent's conversation: files below a directory of the home directory. Their paths contain the conversation's id. */
export interface Conversation {
  /** The directory, relative to the home directory, for example `/.agent/conversations`. */
  below: string;
  id: string;
}

/** The id of the task that continues a conversation. */
export type ContinuingTask = { task: string };

export class Snapshots {
  readonly #fetch: Requesting;

  constructor(fetch: Requesting) {
    this.#fetch = fetch;
  }

  /** Does one step of a save or restore. A broken stream is not repeated: the save starts again. */
  async call<Name extends keyof SnapshotRequests>(
    name: Name,
    input: Call<SnapshotRequests[Name]> & Content<SnapshotRequests[Name]["up"]>,
    signal: AbortSignal,
  ): Promise<ResultOf<SnapshotRequests[Name]>> {
    const row = snapshotRequests[name];
    const result = await requestOperation(this.#fetch, row, partsOf(row, input), signal, (failure) =>
      refusal(failure, name),
    );
    return result as ResultOf<SnapshotRequests[Name]>;
  }
}

function refusal({ code, problem }: FileFailure, step: keyof SnapshotRequests): ToolError {
  // sandboxd itself failed, because the manifest is invalid.
  const isManifestInvalid = code === "UNKNOWN" && step === "restore";
  if (isManifestInvalid || (problem === "cut" && step === "data")) return stateDamaged();
  if (code === "ENOSPC") return new ToolError("no_space", DISK_FULL);
  if (problem === "too_large") return new ToolError("too_large", tooManyEntries(SNAPSHOT_ENTRIES));
  // A restarted sandboxd does not know the save.
  if (problem === "missing") return new ToolError("no_answer", SAVE_LOST, "", true);
  return new ToolError("file_system", stepFailed(code ?? problem));
}
