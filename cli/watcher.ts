/** A server's activity as events: sandboxes and runs that appear, change and end, and runs' output. */
import { setTimeout as pause } from "node:timers/promises";
import { z } from "zod";
import { type AnyListedRun, runsSchema } from "./listed-runs.ts";
import { CommandError } from "./exit.ts";
import type { Server } from "./server-calls.ts";

export interface SandboxEvent {
  event: "sandbox";
  sandbox: string;
  /** The sandbox's state; `destroyed` if it is no longer listed. */
  state: string;
  last_used_at: string;
}

export interface RunEvent extends AnyListedRun {
  event: "run";
  sandbox: string;
}

interface OutputEvent {
  event: "output";
  sandbox: string;
  id: string;
  stream: "stdout" | "stderr";
  text: string;
}

export type WatchEvent = SandboxEvent | RunEvent | OutputEvent;

const sandboxesSchema = z.object({
  sandboxes: z.array(z.object({ name: z.string(), state: z.string(), last_used_at: z.string() })),
});

/** The most sandboxes polled for runs, most recently used first, and the most runs followed at once. */
const MAX_SANDBOXES = 10;
const MAX_FOLLOWED_RUNS = 8;

/** The pause between pages of a run that prints without end, in milliseconds. The server allows 20 calls a second. */
const PAGE_MS = 1000;

const RUNS_PER_SANDBOX = 50;

interface WatchOptions {
  /** The only sandbox to watch; all if undefined. */
  sandbox?: string | undefined;
  intervalSeconds: number;
  followsOutput: boolean;
  signal: AbortSignal;
  onEvent(event: WatchEvent): void;
}

/** Reports running runs first, then every change, until the signal aborts. @throws {CommandError} if the server is gone */
export async function watch(server: Server, options: WatchOptions): Promise<void> {
  const watcher = new Watcher(server, options);
  await Promise.race([watcher.run(), watcher.failure]);
}

class Watcher {
  readonly #server: Server;
  readonly #options: WatchOptions;
  readonly #sandboxes = new Map<string, SandboxEvent>();
  /** The reported states of runs. */
  readonly #runs = new Map<string, string>();
  readonly #followed = new Set<string>();
  readonly #failure = Promise.withResolvers<never>();
  /** The start time, by the server's clock, of the newest run that the first poll found. Undefined during the first poll. */
  #newestBefore: number | undefined;

  constructor(server: Server, options: WatchOptions) {
    this.#server = server;
    this.#options = options;
    this.failure.catch(() => undefined);
  }

  get failure(): Promise<never> {
    return this.#failure.promise;
  }

  async run(): Promise<void> {
    const { signal, intervalSeconds } = this.#options;
    while (!signal.aborted) {
      const newest = Math.max(0, ...(await this.#poll()));
      this.#newestBefore ??= newest;
      await pause(intervalSeconds * 1000, undefined, { signal }).catch(() => undefined);
    }
  }

  /** @returns the start times of the runs found */
  async #poll(): Promise<number[]> {
    const listed = sandboxesSchema.parse((await this.#server.call("list_sandboxes")).data).sandboxes;
    const { sandbox: only } = this.#options;
    const sandboxes = listed.filter(({ name }) => only === undefined || name === only);
    const used = sandboxes.filter((each) => this.#reportChange(each)).slice(0, MAX_SANDBOXES);
    for (const [name, before] of this.#sandboxes)
      if (!sandboxes.some((each) => each.name === name)) {
        this.#sandboxes.delete(name);
        this.#options.onEvent({ ...before, state: "destroyed" });
      }
    return (await Promise.all(used.map(({ name }) => this.#pollRuns(name)))).flat();
  }

  /** Reports a changed sandbox. @returns whether its runs may have changed */
  #reportChange({
    name,
    state,
    last_used_at,
  }: z.infer<typeof sandboxesSchema>["sandboxes"][number]): boolean {
    const before = this.#sandboxes.get(name);
    const event: SandboxEvent = { event: "sandbox", sandbox: name, state, last_used_at };
    this.#sandboxes.set(name, event);
    if (before?.state !== state) this.#options.onEvent(event);
    return state === "running" || before?.state === "running" || before?.last_used_at !== last_used_at;
  }

  async #pollRuns(sandbox: string): Promise<number[]> {
    let listed: Awaited<ReturnType<Server["call"]>>;
    try {
      listed = await this.#server.call("list_runs", { sandbox, limit: RUNS_PER_SANDBOX });
    } catch (error) {
      // The sandbox may have been destroyed since it was listed.
      if (error instanceof CommandError && error.kind === "refusedByServer") return [];
      throw error;
    }
    const { runs } = runsSchema.parse(listed.data);
    for (const run of runs.toReversed()) {
      const before = this.#runs.get(run.id);
      if (before === run.state) continue;
      this.#runs.set(run.id, run.state);
      const isNew = Date.parse(run.started_at) > (this.#newestBefore ?? Infinity);
      // Runs that had ended before the first poll are not reported.
      if (before === undefined && run.state !== "running" && !isNew) continue;
      this.#options.onEvent({ event: "run", sandbox, ...run });
      // Also reads the output of a run that started and ended between two polls.
      if (before === undefined) this.#follow(sandbox, run.id, isNew);
    }
    this.#forget();
    return runs.map(({ started_at }) => Date.parse(started_at));
  }

  /** Bounds memory: forgets the states of the oldest runs. */
  #forget(): void {
    const maxRuns = MAX_SANDBOXES * RUNS_PER_SANDBOX * 2;
    for (const id of this.#runs.keys()) {
      if (this.#runs.size <= maxRuns) return;
      if (!this.#followed.has(id)) this.#runs.delete(id);
    }
  }

  #follow(sandbox: string, id: string, isNew: boolean): void {
    if (!this.#options.followsOutput || this.#followed.size >= MAX_FOLLOWED_RUNS) return;
    this.#followed.add(id);
    void this.#read(sandbox, id, isNew)
      .catch((error: unknown) => {
        // A destroyed sandbox's runs are gone.
        if (!(error instanceof CommandError) || error.kind !== "refusedByServer") this.#failure.reject(error);
      })
      .finally(() => this.#followed.delete(id));
  }

  async #read(sandbox: string, id: string, isNew: boolean): Promise<void> {
    const { signal } = this.#options;
    const cursor = isNew ? 0 : (await this.#server.logOf(id)).bytes;
    try {
      for await (const { log } of this.#server.pages(id, { cursor, signal, everyMs: PAGE_MS }))
        for (const { stream, text } of log)
          this.#options.onEvent({ event: "output", sandbox, id, stream, text });
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}
