import type { Config, Env } from "./config.ts";
import type { RequestMemory } from "./request-memory.ts";
import type { Principal } from "./principal.ts";
import type { ToolName } from "./tool-sets.ts";
import type { TraceContext } from "./trace.ts";

export interface RequestContext {
  env: Env;
  config: Config;
  ctx: ExecutionContext;
  /** The request's origin, from its Host header; undefined if invalid. */
  origin: string | undefined;
  /** When the request arrived, in milliseconds since the epoch. */
  arrivedAt: number;
  /** A random id. It is in every log line about the request, in `X-Request-Id`, and in internal errors. */
  requestID: string;
  trace?: TraceContext | undefined;
}

export interface Caller {
  principal: Principal;
  /** The URL of the resource's metadata (RFC 9728) for challenges; undefined for the panel, and if OAuth is off. */
  metadata: string | undefined;
  /**
   * Whether answers may have notices; true by default. False for the panel: a notice is for the model, so it waits for the
   * model's next call.
   */
  takesNotice?: boolean;
}

export interface CallerContext extends RequestContext, Caller {
  /** The memory of this request; undefined for requests whose body and answer are small, or are streamed. */
  memory?: RequestMemory;
  /** Aborts when the client disconnects. */
  client: AbortSignal;
  /** Looks the request's token up again. False if it is not valid any more. */
  isSignedIn?(): Promise<boolean>;
  isStructured?: boolean;
  isRaw?: boolean | undefined;
  /** False if `?images=off` asks for descriptions. */
  takesImages?: boolean;
  /** Whether the client may show MCP Apps. Clients declare this since MCP revision 2026-07-28. For older clients it is true. */
  mayShowApps?: boolean;
  /** Whether the client has declared that it shows MCP Apps. */
  showsApps?: boolean;
  /** Whether the client's revision of MCP has resource links: 2025-06-18 and later. */
  takesResourceLinks?: boolean;
  /** Whether the client accepts a task of MCP's Tasks extension as a result; undefined if its MCP revision has no tasks. */
  takesTasks?: boolean | undefined;
  hasSignIn?: boolean;
  /** How to ask the client to open a URL, by MCP revision; undefined if the client cannot, or the user cannot sign in. */
  urlElicitation?: "modern" | "legacy" | undefined;
  chosenTools?: ReadonlySet<ToolName> | undefined;
}
