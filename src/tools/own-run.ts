import { sandboxOf } from "../runs/id.ts";
import { unknownRun } from "../shared/errors.ts";

/**
 * The sandbox name in a run id. It is looked up among the caller's own sandboxes, so another principal's run id leads nowhere.
 * @throws {ToolError} `not_found` for an invalid run id
 */
export function ownRun(id: string): string {
  const sandbox = sandboxOf(id);
  if (sandbox !== undefined) return sandbox;
  throw unknownRun(id);
}
