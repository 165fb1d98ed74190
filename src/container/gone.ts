import { ToolError, WENT_AWAY, WENT_AWAY_HINT } from "../shared/errors.ts";

export function containerGone(): ToolError {
  return new ToolError("sandbox_restarted", WENT_AWAY, WENT_AWAY_HINT, true);
}
