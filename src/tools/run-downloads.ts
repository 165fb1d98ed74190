/** What can be downloaded of a run, beside what its result shows: artifacts, a log that is cut, pages, originals of images. */
import type { RunView } from "../runs/run-types.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { ARTIFACTS, LOG_NAME } from "../shared/resource-uri.ts";
import type { ToolContext } from "./define.ts";
import { type Download, fileDownloads, runDownloads } from "./download.ts";
import { ownRun } from "./own-run.ts";

/** Artifacts and files of results with a link of their own. The links of others come with `get_result` and `file_link`. */
const MAX_LINKS = 10;

/** How the kernels name a page for a browser that they keep. */
const PAGE =
  /^\[An interactive page, HTML of (\d{1,10}) bytes: (\/workspace\/\.outputs\/\w{1,40}\.html)\]$/gm;

export async function downloadsOf(context: ToolContext, run: RunView): Promise<Download[]> {
  const downloads = await runDownloads(context, run.id, [...artifactsOf(run), ...cutLog(run)]);
  return [...downloads, ...(await fileDownloads(context, ownRun(run.id), filesOf(run)))];
}

function artifactsOf(run: RunView) {
  const artifacts = taskDetailOf(run)?.artifacts ?? [];
  return artifacts
    .slice(0, MAX_LINKS)
    .map(({ path, size }) => ({ name: ARTIFACTS + path, size, shown: path }));
}

/** The log where more was printed than is shown. */
function cutLog(run: RunView) {
  return run.stdout.omitted + run.stderr.omitted > 0 ? wholeLog(run) : [];
}

/** The log of a run that has ended: while it grows, a link would soon show too little. */
export function wholeLog({ state, logBytes }: RunView) {
  return state === "running" ? [] : [{ name: LOG_NAME, size: logBytes, shown: "the whole output" }];
}

/** Pages for a browser, and originals of images that are shown smaller. */
function filesOf({ detail }: RunView): { path: string; size: number }[] {
  if (!detail || !("results" in detail)) return [];
  const found = detail.results.flatMap((result) =>
    "text" in result
      ? Array.from(result.text.matchAll(PAGE), ([, size, path = ""]) => ({ path, size: Number(size) }))
      : (result.original ?? []),
  );
  return found.slice(0, MAX_LINKS);
}
