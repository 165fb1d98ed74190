/** The context of a request, the same for MCP and REST. */
import type { Config, Env } from "./config.ts";
import type { Principal } from "./principal.ts";
import type { ToolName } from "./tool-sets.ts";
import type { TraceContext } from "./trace.ts";

export interface RequestContext {
  env: Env;
  config: Config;
  ctx: ExecutionContext;
  /** The origin the request is addressed to, as its sender names it; undefined when that cannot be read. */
  origin: string | undefined;
  /** When it came, milliseconds since the epoch. */
  arrivedAt: number;
  /** Random. It is in every log line about the request and in `X-Request-Id`, and is the reference of an internal error. */
  requestID: string;
  /** The trace that the caller's work is part of, where it says so. */
  trace?: TraceContext | undefined;
}

/** Who sent a request, once a token or a session has said so. */
export interface Caller {
  principal: Principal;
  /** The URL of the resource's metadata (RFC 9728), which a challenge names; undefined when OAuth is off. */
  metadata: string | undefined;
  /** False for the panel: what is said of a restart is for the model, and waits for its next call. */
  takesNotice?: boolean;
}

/** The context of a request behind the guards. */
export interface CallerContext extends RequestContext, Caller {
  /** Whether the answer goes out as data, too. */
  isStructured?: boolean;
  /** Whether the log of a terminal goes out with its control sequences. */
  isRaw?: boolean | undefined;
  /** False where results leave images out (`?images=off`), and only describe them. */
  takesImages?: boolean;
  /** Whether the client may show MCP Apps: one of revision 2026-07-28 says so in every request, of others it is not known. */
  mayShowApps?: boolean;
  /** Whether the client has declared that it shows them. */
  showsApps?: boolean;
  /** Whether the client's revision of MCP knows blocks that link to resources: 2025-06-18 and later ones do. */
  takesResourceLinks?: boolean;
  /**
   * Whether the client takes a task in place of a result (MCP's Tasks extension); undefined where its revision of MCP has
   * none.
   */
  takesTasks?: boolean | undefined;
  /** How the client is asked to open an address for its user: by its era of MCP; undefined where it does not, or nobody could sign in. */
  asksPerson?: "modern" | "legacy" | undefined;
  /** The tools that the connection is limited to, among those that the server offers; undefined for all of them. */
  chosenTools?: ReadonlySet<ToolName> | undefined;
}
