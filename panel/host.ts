/** Where the page is shown and what it can do there: a browser window (browser.ts) or a client's chat (chat.ts). */
import type { WatchedTool } from "../src/shared/watch-intervals.ts";
import type { OfferedTools } from "./offered.ts";
import type { Value } from "./value.ts";

export interface Block {
  type: string;
  text?: string;
  data?: string;
  mimeType?: string;
}

/** `raw` keeps the control sequences in a terminal's output. */
export type Form = "structured" | "raw";

export interface Watch {
  name: WatchedTool;
  arguments: Record<string, unknown>;
  raw?: boolean;
}

export interface Update {
  /** Undefined if the tool failed or the call was refused. */
  data?: unknown;
  problem?: string;
}

/**
 * Repeats calls, and reports the first result and every change of each. Resolves when the caller should start the source again at once, or
 * the signal aborts. Reports the pages of a run's log in order, from the cursor in the arguments, and nothing after the last one.
 * Makes no further request before `report` has resolved.
 * @throws {SignedOut} {@link Unreachable} {@link ToolFailed}
 */
export type Source = (
  watch: readonly Watch[],
  report: (index: number, update: Update) => Promise<void>,
  signal: AbortSignal,
) => Promise<void>;

export interface ToolResult {
  content?: Block[];
  structuredContent?: unknown;
  isError?: boolean;
  _meta?: Record<string, unknown>;
}

export interface Host {
  /** `data` is in this form. @throws {SignedOut} {@link Unreachable} {@link ToolFailed} if the call returned no result, even `isError` */
  callTool(
    name: string,
    args: Record<string, unknown>,
    form: Form,
    signal?: AbortSignal,
  ): Promise<ToolResult>;
  listTools(signal?: AbortSignal): Promise<OfferedTools>;
  /** Uses the server's stream (streamed.ts), or polls tools (polled-source.ts). */
  watch: Source;

  /** The open part of the page: a URL fragment from `hrefOf`. */
  place: Value<string>;
  go(href: string): void;

  /** Where clients connect; undefined if a connected client shows the page. */
  endpoint: string | undefined;
  /** Undefined if the page has no session. @throws {Unreachable} */
  signOut: (() => Promise<void>) | undefined;
  /** For uploads and terminals. */
  canReachServer: boolean;
  /** Lets the user save a file. @throws {ToolFailed} */
  download(url: string): Promise<void>;
  confirm(question: string): Promise<boolean>;
  /** The document's event `visibilitychange` reports changes. */
  isOutOfSight(): boolean;
  /** Undefined if it cannot change. */
  display: Value<"inline" | "fullscreen"> | undefined;
  /** The client may refuse. */
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
