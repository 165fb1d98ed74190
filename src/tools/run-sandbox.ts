import { sandboxOf } from "../runs/id.ts";
import { unknownRun } from "../shared/errors.ts";

/** The sandbox that a run id names; calls look it up among the caller's sandboxes. @throws {ToolError} `not_found` for an invalid run id */
export function ownRun(id: string): string {
  const sandbox = sandboxOf(id);
  if (sandbox !== undefined) return sandbox;
  throw unknownRun(id);
}
