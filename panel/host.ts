/** Where the page is shown, and what it can do there: in a browser's window (browser.ts) or in a client's chat (chat.ts). */
import type { WatchedTool } from "../src/shared/watch-intervals.ts";
import type { Value } from "./value.ts";

/** A block of a result's content. */
export interface Block {
  type: string;
  text?: string;
  data?: string;
  mimeType?: string;
}

/** In what form results are asked for: `raw` has what a terminal printed as it is. */
export type Form = "structured" | "raw";

/** A call that is watched. */
export interface Watch {
  name: WatchedTool;
  arguments: Record<string, unknown>;
  /** Whether the log of a terminal keeps its control sequences. */
  raw?: boolean;
}

/** An answer that differs from the one before. */
export interface Update {
  /** The structured result; undefined where the tool reported an error, or the call was refused. */
  data?: unknown;
  /** That error, for people. */
  problem?: string;
}

/**
 * Watches calls, each from its arguments on, and reports the first answer of each and every other one. Resolves when it is to be
 * asked again at once, or the signal is aborted. Of a run's log it reports the pages in their order, and nothing after the last.
 * It asks for nothing more until what it has reported is taken.
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
  /**
   * Calls a tool of the server. The result has data (`structuredContent`) in this form.
   * @throws {SignedOut} {@link Unreachable} {@link ToolFailed} when there is no result; one with `isError` is a result
   */
  callTool(
    name: string,
    args: Record<string, unknown>,
    form: Form,
    signal?: AbortSignal,
  ): Promise<ToolResult>;
  /** The names of the tools that may be called. @throws as `callTool` */
  listTools(signal?: AbortSignal): Promise<ReadonlySet<string>>;
  /** Watches what the page shows: by a stream of the server (streamed.ts), or by asking its tools again and again (polled-source.ts). */
  watch: Source;

  /** What of the page is open: the fragment of an address, as `hrefOf` writes it. */
  place: Value<string>;
  /** Opens another part of the page. */
  go(href: string): void;

  /** The address that clients connect to; undefined where a client is connected already, and shows the page. */
  endpoint: string | undefined;
  /** Ends the session; undefined where the page has none of its own. @throws {Unreachable} */
  signOut: (() => Promise<void>) | undefined;
  /** Whether the page can send to addresses of the server itself. */
  reachesServer: boolean;
  /** Lets whoever looks have what is at this address of the server. @throws {ToolFailed} */
  download(url: string): Promise<void>;
  /** Asks a question that is answered with yes or no. */
  confirm(question: string): Promise<boolean>;
  /** Whether nobody can see the page where it is. A change of it is an event `visibilitychange` of the document. */
  isOutOfSight(): boolean;
  /** How the page is displayed; undefined where that cannot be changed. */
  display: Value<"inline" | "fullscreen"> | undefined;
  /** Asks for another display, which may be refused. */
  show(display: "inline" | "fullscreen"): Promise<void>;
}

let current: Host | undefined;

/** Says where the page is shown: once, before anything of it is. */
export function showIn(shower: Host): void {
  current = shower;
}

export function host(): Host {
  if (!current) throw new Error("The page is not shown anywhere yet.");
  return current;
}
