/** What `list_runs` answers as data, as far as the command line reads it. */
import { z } from "zod";

export const runsSchema = z.object({
  runs: z.array(
    z.object({
      id: z.string(),
      kind: z.string(),
      state: z.string(),
      title: z.string(),
      started_at: z.string(),
      duration_ms: z.number(),
      exit_code: z.number().optional(),
    }),
  ),
});
