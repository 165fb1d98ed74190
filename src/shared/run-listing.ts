/** The names of run states and kinds, and the data of `list_runs`, which the panel and command line show. */
import * as z from "zod";

export const RUN_KINDS = ["code", "command", "task"] as const;

export type RunKind = (typeof RUN_KINDS)[number];

/**
 * `running`, then one final state: `succeeded` or `failed` if the program ended by itself, `cancelled` or `timed_out` if the
 * server ended it, `lost` if the sandbox or connection disappeared and the end is unknown.
 */
export const END_STATES = ["succeeded", "failed", "cancelled", "timed_out", "lost"] as const;
export const RUN_STATES = ["running", ...END_STATES] as const;

export type EndState = (typeof END_STATES)[number];

export type RunState = (typeof RUN_STATES)[number];

/** A new field is optional, because the command line also reads the lists of older servers. */
export const listedRun = z.object({
  id: z.string(),
  kind: z.enum(RUN_KINDS),
  state: z.enum(RUN_STATES),
  title: z.string(),
  started_at: z.string(),
  duration_ms: z.number(),
  exit_code: z.number().optional(),
});

export const runListing = z.object({
  runs: z.array(listedRun),
  next_cursor: z.string().optional(),
  notice: z.string().optional(),
});

export type ListedRun = z.output<typeof listedRun>;
/** A value for each field; undefined for a field that a list does not show. So no list lacks a new field. */
export type EachField<T = unknown> = Record<keyof ListedRun, T | undefined>;
export type RunListing = z.output<typeof runListing>;
