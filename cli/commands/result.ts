import { z } from "zod";
import { serverCommand, wholeNumber } from "../define-command.ts";
import { follow, type FollowedRun, toFollowedRun } from "../follow-run.ts";
import { Server } from "../server-calls.ts";
import { bytes, duration, json, line, note, oneLine, printOutput } from "../print.ts";
import { serverAddress } from "../server-address.ts";
import { continueFrom, moreFiles } from "../texts.ts";

export const result = serverCommand(
  "result",
  "show the output and result of a run, and follow it while it runs; Ctrl-C stops following",
  ["result default.01m7w0hhyrgqc3dhwv4sybnbvc", "result --wait 0 --json default.01m7w0hhyrgqc3dhwv4sybnbvc"],
)
  .argument("<id>", "the id of the run")
  .option("--wait <seconds>", "stop following after this time", wholeNumber(0))
  .action(async (id, options) => {
    const server = await Server.connect(serverAddress(options));
    const first = await server.call("get_result", { id, wait_seconds: 0 });
    const end = await follow(server, first, {
      prints: !options.json,
      outputToStderr: isTask(first.data),
      onInterrupt: "detach",
      waitSeconds: options.wait,
      label: id,
    });
    report(end, options.json === true);
    await server.close();
  });

export const cancel = serverCommand("cancel", "stop a run and every process that it started", [
  "cancel default.01m7w0hhyrgqc3dhwv4sybnbvc",
])
  .argument("<id>", "the id of the run")
  .action(async (id, options) => {
    const server = await Server.connect(serverAddress(options));
    const { run } = toFollowedRun(await server.call("cancel_run", { id }));
    if (options.json) json(true, run);
    else {
      line(run.state);
      if (run.notice) note(run.notice);
    }
    await server.close();
  });

/** Prints a run's result and how it ended, and sets the exit status. @param more additional fields of the JSON document */
export function report({ run, status }: FollowedRun, asJSON: boolean, more: object = {}): void {
  process.exitCode = status;
  if (asJSON) return json(status === 0, { ...run, ...more });
  if (isTask(run)) return printTask(run);
  if (typeof run.result === "string" && run.result !== "") printOutput(process.stdout, `${run.result}\n`);
  if (run.state !== "running")
    note(`${run.state}${run.exit_code === undefined ? "" : `, exit code ${run.exit_code}`}`);
}

const task = z.object({
  id: z.string(),
  state: z.string(),
  answer: z.string().optional(),
  note: z.string().optional(),
  files: z.array(z.object({ path: z.string(), change: z.string(), size: z.number() })).default([]),
  files_changed: z.number().default(0),
  turns: z.number().optional(),
  cost_usd: z.number().optional(),
  duration_ms: z.number(),
  next: z.string().optional(),
});

function isTask(run: object): boolean {
  return "agent" in run;
}

/** Prints a task: its answer to standard output; and, if it has ended, its changes and costs to standard error. */
function printTask(run: object): void {
  const { id, state, answer, note: reason, files, files_changed, ...used } = task.parse(run);
  if (answer !== undefined) printOutput(process.stdout, `${answer.trimEnd()}\n`);
  if (state === "running") return;
  if (reason) note(reason);
  for (const { path, change, size } of files)
    note(`${change.padEnd(7)} ${oneLine(path)}${change === "deleted" ? "" : ` (${bytes(size)})`}`);
  if (files_changed > files.length) note(moreFiles(files_changed - files.length));
  const { turns, cost_usd, duration_ms, next } = used;
  const parts = [
    state,
    duration(duration_ms),
    turns === undefined ? "" : `${turns} turns`,
    cost_usd === undefined ? "" : `$${cost_usd.toFixed(4)}`,
  ];
  note(parts.filter(Boolean).join(", "));
  // The server's text names a tool.
  if (next !== undefined) note(continueFrom(id));
}
