/** Links to files of a run that its result does not show: artifacts, a cut log, HTML pages, and original images. */
import type { RunView } from "../runs/run-types.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { ARTIFACTS, LOG_NAME } from "../shared/resource-uri.ts";
import type { ToolContext } from "./define.ts";
import { type Download, fileDownloads, runDownloads } from "./download.ts";
import { sandboxOfRun } from "./run-sandbox.ts";

/** The most links in one answer. `get_result` and `file_link` give the others. */
const MAX_LINKS = 10;

/** The text that stands for a stored HTML page in a kernel's result. */
const PAGE =
  /^\[An interactive page, HTML of (\d{1,10}) bytes: (\/workspace\/\.outputs\/\w{1,40}\.html)\]$/gm;

export async function downloadsOf(context: ToolContext, run: RunView): Promise<Download[]> {
  const isCut = run.stdout.omitted + run.stderr.omitted > 0;
  const log = isCut ? wholeLog(run) : [];
  const downloads = await runDownloads(context, run.id, [...artifactsOf(run), ...log]);
  return [...downloads, ...(await fileDownloads(context, sandboxOfRun(run.id), filesOf(run)))];
}

function artifactsOf(run: RunView) {
  const artifacts = taskDetailOf(run)?.artifacts ?? [];
  return artifacts
    .slice(0, MAX_LINKS)
    .map(({ path, size }) => ({ name: ARTIFACTS + path, size, shown: path }));
}

/** A link to the log of an ended run. A growing log gets no link, because the link would soon show too little. */
export function wholeLog({ state, logBytes }: RunView) {
  return state === "running" ? [] : [{ name: LOG_NAME, size: logBytes, shown: "the whole output" }];
}

function filesOf({ detail }: RunView): { path: string; size: number }[] {
  if (!detail || !("results" in detail)) return [];
  const found = detail.results.flatMap((result) =>
    "text" in result
      ? Array.from(result.text.matchAll(PAGE), ([, size, path = ""]) => ({ path, size: Number(size) }))
      : (result.original ?? []),
  );
  return found.slice(0, MAX_LINKS);
}
