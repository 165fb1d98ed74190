import type { Config, Env } from "./config.ts";
import type { RequestMemory } from "./request-memory.ts";
import type { Principal } from "./principal.ts";
import type { ToolName } from "./tool-sets.ts";
import type { TraceContext } from "./trace.ts";

export interface RequestContext {
  env: Env;
  config: Config;
  ctx: ExecutionContext;
  /** From the Host header; undefined if invalid. */
  origin: string | undefined;
  /** Milliseconds since the epoch. */
  arrivedAt: number;
  /** Random. In every log line about the request, in `X-Request-Id`, and in internal errors. */
  requestID: string;
  trace?: TraceContext | undefined;
}

export interface Caller {
  principal: Principal;
  /** The URL for challenges (RFC 9728); undefined for the panel, and if OAuth is off. */
  metadata: string | undefined;
  /** False for the panel: a notice about a restart is for the model, so it waits for the model's next call. */
  takesNotice?: boolean;
}

export interface CallerContext extends RequestContext, Caller {
  /** Undefined for requests whose body and answer are small, or are streamed. */
  memory?: RequestMemory;
  isStructured?: boolean;
  isRaw?: boolean | undefined;
  /** False if `?images=off` asks for descriptions. */
  takesImages?: boolean;
  /** Clients declare this since MCP revision 2026-07-28. For older ones it is true. */
  mayShowApps?: boolean;
  showsApps?: boolean;
  /** Revision 2025-06-18 of MCP and later. */
  takesResourceLinks?: boolean;
  /** Whether the client accepts tasks of MCP's extension; undefined if its MCP revision has none. */
  takesTasks?: boolean | undefined;
  hasSignIn?: boolean;
  /** How to open a URL for the client's user, by MCP revision; undefined if the client cannot, or the user cannot sign in. */
  urlElicitation?: "modern" | "legacy" | undefined;
  chosenTools?: ReadonlySet<ToolName> | undefined;
}
