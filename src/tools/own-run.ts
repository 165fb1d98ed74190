import { sandboxOf } from "../runs/id.ts";
import { unknownRun } from "../shared/errors.ts";

/**
 * The caller's sandbox that a run id names. The id leads nowhere else: what another principal's run is called finds only
 * the caller's own sandbox of that name, which knows no such run.
 * @throws {ToolError} for what is no run id, in the words for an unknown one
 */
export function ownRun(id: string): string {
  const sandbox = sandboxOf(id);
  if (sandbox !== undefined) return sandbox;
  throw unknownRun(id);
}
