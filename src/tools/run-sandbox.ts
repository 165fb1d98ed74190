import { sandboxOf } from "../runs/id.ts";
import { unknownRun } from "../shared/errors.ts";

/** @throws {ToolError} `not_found` for an invalid id */
export function sandboxOfRun(id: string): string {
  const sandbox = sandboxOf(id);
  if (sandbox !== undefined) return sandbox;
  throw unknownRun(id);
}
