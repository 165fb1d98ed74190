/** Chooses the page's content in a chat: the sandbox of the called tool, and the run that the call started. */
import { sandboxOf } from "../src/runs/id.ts";
import { RUN_META } from "../src/shared/apps.ts";
import { isRecord } from "../src/shared/is-record.ts";
import { titleOf } from "../src/shared/text.ts";
import type { Host } from "./host.ts";
import type { RunListing } from "../src/shared/run-listing.ts";
import { pause } from "./poll.ts";
import { hrefOf } from "./route.ts";
import type { Value } from "./value.ts";

const POLL_MS = 1000;

/** How many of the newest runs to check, because other runs may have started after the call's run. */
const NEWEST = 10;

type Args = Record<string, unknown>;

export class Subject {
  readonly #place: Value<string>;
  readonly #callTool: Host["callTool"];
  readonly #stopped = new AbortController();
  /** Opens the call's run if the server lists it. Resolves with whether the server lists it. */
  #find: ((mayHaveEnded: boolean) => Promise<boolean>) | undefined;

  constructor(place: Value<string>, callTool: Host["callTool"]) {
    this.#place = place;
    this.#callTool = callTool;
  }

  /** Stops following the call, because the page shows something else now. */
  stopFollowing(): void {
    this.#stopped.abort();
  }

  /** Handles the call. @param tool the tool as the client describes it; undefined if the client does not describe it */
  setCall(tool: { name: string; inputSchema?: unknown } | undefined, given: unknown): void {
    if (this.#stopped.signal.aborted) return;
    const args = isRecord(given) ? given : {};
    const sandbox = textOf(args.sandbox) ?? fallbackOf(tool?.inputSchema) ?? "default";
    const source = textOf(args.command) ?? textOf(args.task);
    if (source !== undefined) {
      const isTask = args.command === undefined;
      if (!isTask || args.sandbox !== undefined) this.#place.set(hrefOf(sandbox));
      const request = isTask ? { kind: "task" } : { kind: "command", sandbox };
      this.#find = (mayHaveEnded) => this.#open(request, titleOf(source), mayHaveEnded);
      void this.#lookForRun();
    } else if (tool && !tool.name.endsWith("list_sandboxes")) {
      this.#place.set(hrefOf(sandbox, "about"));
    }
  }

  /** Opens the run that the call started. @param result the call's result, as the client forwards it */
  setResult(result: Args): void {
    if (this.#stopped.signal.aborted) return;
    const id = isRecord(result._meta) ? textOf(result._meta[RUN_META]) : undefined;
    if (id !== undefined) this.#show(id);
    // Some clients drop the `_meta` of results, so the run is found by its command or task.
    else if (!result.isError) void this.#find?.(true).catch(() => undefined);
    this.stopFollowing();
  }

  /** Polls for the call's run, because a call that still waits has not returned the run's id yet. */
  async #lookForRun(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      // The call fails if the sandbox does not exist yet.
      if (await this.#find?.(false).catch(() => false)) return;
      await pause(POLL_MS, signal);
    }
  }

  async #open(request: Args, title: string, mayHaveEnded: boolean): Promise<boolean> {
    const { structuredContent } = await this.#callTool(
      "list_runs",
      { ...request, limit: NEWEST },
      "structured",
    );
    const { runs = [] } = (structuredContent ?? {}) as Partial<RunListing>;
    const run = runs.find((known) => known.title === title && (mayHaveEnded || known.state === "running"));
    if (run && (mayHaveEnded || !this.#stopped.signal.aborted)) this.#show(run.id);
    return run !== undefined;
  }

  #show(id: string): void {
    this.#place.set(hrefOf(sandboxOf(id) ?? "", "runs", id));
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function fallbackOf(schema: unknown): string | undefined {
  const { properties } = (schema ?? {}) as { properties?: { sandbox?: { default?: unknown } } };
  return textOf(properties?.sandbox?.default);
}
