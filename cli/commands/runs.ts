import { InvalidArgumentError, Option } from "@commander-js/extra-typings";
import { z } from "zod";
import { sandboxOf } from "../../src/runs/id.ts";
import { serverCommand, wholeNumber } from "../define-command.ts";
import { type AnyListedRun, runsSchema } from "../listed-runs.ts";
import { type EachField, RUN_KINDS } from "../../src/shared/run-listing.ts";
import { Server } from "../server-calls.ts";
import { type Column, duration, json, note, table } from "../print.ts";
import { serverAddress } from "../server-address.ts";
import { noRuns, olderRuns } from "./texts.ts";
import { WRONG_VALUE } from "../texts.ts";

const listSchema = runsSchema.extend({ next_cursor: z.string().optional(), notice: z.string().optional() });

const COLUMNS: EachField<Column & { show(run: AnyListedRun): string }> = {
  id: { title: "ID", show: ({ id }) => id },
  kind: { title: "KIND", isMinor: true, show: ({ kind }) => kind },
  state: {
    title: "STATE",
    show: ({ state, exit_code }) => (exit_code ? `${state} (${exit_code})` : state),
  },
  exit_code: undefined,
  started_at: {
    title: "STARTED",
    isMinor: true,
    show: ({ started_at }) => started_at.replace(/\.\d+Z$/, "Z"),
  },
  duration_ms: {
    title: "TOOK",
    isRightAligned: true,
    isMinor: true,
    show: ({ duration_ms }) => duration(duration_ms),
  },
  title: { title: "WHAT", show: ({ title }) => title },
};

export const runs = serverCommand("runs", "list the runs of a sandbox, newest first", [
  "runs",
  "runs --kind task --json",
  "runs --sandbox build --limit 100",
])
  .option("--sandbox <name>", "the sandbox", "default")
  .addOption(
    new Option("--kind <kind>", "only runs of this kind; `task` lists the tasks of all sandboxes").choices(
      RUN_KINDS,
    ),
  )
  .option("--limit <number>", "how many to list", wholeNumber(1), 20)
  .option("--cursor <id>", "list older runs, from the cursor that the previous page printed", runID)
  .action(async ({ sandbox, kind, limit, cursor, ...options }) => {
    const server = await Server.connect(serverAddress(options));
    const { data } = await server.call("list_runs", { sandbox, kind, limit, cursor });
    await server.close();
    const { runs: found, next_cursor, notice } = listSchema.parse(data);
    if (options.json) return json(true, { runs: found, next_cursor, notice });
    if (notice) note(notice);
    if (found.length === 0) return note(noRuns(sandbox, kind, cursor !== undefined));
    const columns = Object.values(COLUMNS).filter((column) => column !== undefined);
    table(
      columns,
      found.map((run) => columns.map(({ show }) => show(run))),
    );
    if (next_cursor) note(olderRuns(next_cursor));
  });

function runID(text: string): string {
  if (sandboxOf(text) !== undefined) return text;
  throw new InvalidArgumentError(WRONG_VALUE.run);
}
