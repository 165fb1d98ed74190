/** `list_runs` results, as far as the command line reads them. */
import { z } from "zod";
import { listedRun } from "../src/shared/run-listing.ts";

/** A newer server may have more kinds and states. */
const run = listedRun.extend({ kind: z.string(), state: z.string() });

export const runsSchema = z.object({ runs: z.array(run) });

export type AnyListedRun = z.output<typeof run>;
