import { sandboxOf } from "../runs/id.ts";
import { unknownRun } from "../shared/errors.ts";

/**
 * The name of the sandbox in a run id. It is always looked up among the caller's own sandboxes, so the id of another
 * principal's run leads to none.
 * @throws {ToolError} `not_found` for what is no run id
 */
export function ownRun(id: string): string {
  const sandbox = sandboxOf(id);
  if (sandbox !== undefined) return sandbox;
  throw unknownRun(id);
}
