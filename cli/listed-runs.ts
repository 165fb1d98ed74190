/** What `list_runs` answers as data, as far as the command line reads it. */
import { z } from "zod";
import { listedRun } from "../src/shared/run-listing.ts";

/** A newer server may know more kinds and states. */
const run = listedRun.extend({ kind: z.string(), state: z.string() });

export const runsSchema = z.object({ runs: z.array(run) });

export type AnyListedRun = z.output<typeof run>;
