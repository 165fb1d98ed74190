/** `sandbox-mcp result` and `cancel`: waits for, or ends, an earlier run. */
import { serverCommand, wholeNumber } from "../define-command.ts";
import { follow, type FollowedRun, toFollowedRun } from "../follow-run.ts";
import { Server } from "../server-calls.ts";
import { json, line, note, printOutput } from "../print.ts";
import { serverAddress } from "../server-address.ts";
import { isTask, printTask } from "../task-report.ts";

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
