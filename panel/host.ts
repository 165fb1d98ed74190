/** Where the page is shown and what it can do there: a browser window (browser.ts) or a client's chat (chat.ts). */
import type { OfferedTools } from "./offered.ts";
import type { Value } from "./value.ts";

export interface Block {
  type: string;
  text?: string;
  data?: string;
  mimeType?: string;
}

/** The form of results. `raw` keeps the control sequences in a terminal's output. */
export type Form = "structured" | "raw";

export interface ToolResult {
  content?: Block[];
  structuredContent?: unknown;
  isError?: boolean;
  _meta?: Record<string, unknown>;
}

export interface Host {
  /**
   * Calls a tool. The result has data (`structuredContent`) in this form.
   * @throws {SignedOut} {@link Unreachable} {@link ToolFailed} if the call returned no result. A result with `isError` is
   * returned.
   */
  callTool(
    name: string,
    args: Record<string, unknown>,
    form: Form,
    signal?: AbortSignal,
  ): Promise<ToolResult>;
  listTools(signal?: AbortSignal): Promise<OfferedTools>;

  /** The open part of the page: a URL fragment from `hrefOf`. */
  place: Value<string>;
  go(href: string): void;

  /** The address that clients connect to; undefined if a connected client shows the page. */
  endpoint: string | undefined;
  /** Ends the session; undefined if the page has none. @throws {Unreachable} */
  signOut: (() => Promise<void>) | undefined;
  /** Whether the page itself can send requests to the server, for uploads and terminals. */
  canReachServer: boolean;
  /** Lets the user save a file from an address of the server. @throws {ToolFailed} */
  download(url: string): Promise<void>;
  confirm(question: string): Promise<boolean>;
  /** Whether the page is hidden. The document's event `visibilitychange` reports changes. */
  isOutOfSight(): boolean;
  /** The display mode; undefined if the mode cannot change. */
  display: Value<"inline" | "fullscreen"> | undefined;
  /** Requests another display mode. The client may refuse. */
  show(display: "inline" | "fullscreen"): Promise<void>;
}

let current: Host | undefined;

export function setHost(chosen: Host): void {
  current = chosen;
}

export function host(): Host {
  if (!current) throw new Error("The page is not shown anywhere yet.");
  return current;
}
