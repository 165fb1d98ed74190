/** One request on its way in, before anybody is known to have sent it. */
import type { Config, Env } from "./config.ts";

export interface RequestContext {
  env: Env;
  config: Config;
  ctx: ExecutionContext;
  /** Made here for this request: in every log line, in `X-Request-Id`, and the reference of an internal error. */
  requestID: string;
}
