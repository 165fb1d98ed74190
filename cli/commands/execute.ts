import { Option } from "@commander-js/extra-typings";
import { AGENT_NAMES } from "../../src/shared/names.ts";
import { MAX_RUN_SECONDS } from "../../src/shared/run-seconds.ts";
import { collect, serverCommand, textFrom, wholeNumber } from "../define-command.ts";
import { FIRST_WAIT_SECONDS } from "../../client/follow.ts";
import { follow, toFollowedRun } from "../follow-run.ts";
import { Server } from "../server-calls.ts";
import { json, line, note } from "../print.ts";
import { serverAddress } from "../server-address.ts";
import { report } from "./result.ts";

export const execute = serverCommand(
  "execute",
  "hand a task to a coding agent and follow it; Ctrl-C detaches, and the task continues",
  [
    "execute 'Write a Python script that prints the first 100 primes, and test it'",
    "execute --repository https://github.com/owner/project --file task.md --timeout 1800",
    "execute --detach --json 'Update the dependencies'",
    "execute --repository https://github.com/owner/project --command fix-issue '/fix-issue 124'",
  ],
)
  .argument("[task]", "the task; - reads standard input")
  .option("--file <path>", "read the task from a file")
  .option("--repository <url>", "the URL of a Git repository to clone first")
  .option("--branch <name>", "the branch to clone")
  .addOption(new Option("--agent <name>", "the coding agent").choices(AGENT_NAMES))
  // The option's earlier name.
  .addOption(new Option("--coding-agent <name>").choices(AGENT_NAMES).hideHelp())
  .option("--subagent <name>", "make this subagent available; may be repeated", collect)
  .option("--command <name>", "make this slash command available; may be repeated", collect)
  .option("--model <name>", "the model of the agent")
  .option("--sandbox <name>", "work in this sandbox; without it, in a new one that is deleted afterwards")
  .option("--checkpoint <id>", "start the new sandbox from this checkpoint")
  .option("--continue-from <id>", "continue the conversation and files of an ended task")
  .option("--max-turns <number>", "stop after this many turns", wholeNumber(1, 1000))
  .option("--timeout <seconds>", "stop the run after this time", wholeNumber(1, MAX_RUN_SECONDS), 300)
  .option("--wait <seconds>", "stop waiting after this time; the run continues", wholeNumber(0))
  .option("--detach", "print the id of the run and do not wait")
  .action(async (argument, options) => {
    const task = await textFrom("task", argument, options);
    const server = await Server.connect(serverAddress(options));
    const first = await server.call("execute_task", {
      task,
      repository: options.repository,
      branch: options.branch,
      agent: options.agent ?? options.codingAgent,
      agents: options.subagent,
      commands: options.command,
      model: options.model,
      sandbox: options.sandbox,
      checkpoint: options.checkpoint,
      continue_from: options.continueFrom,
      max_turns: options.maxTurns,
      timeout_seconds: options.timeout,
      wait_seconds: options.detach ? 0 : FIRST_WAIT_SECONDS,
    });
    if (options.detach) {
      const { run } = toFollowedRun(first);
      if (options.json) json(true, run);
      else {
        line(run.id);
        if (run.notice) note(run.notice);
      }
    } else {
      if (!options.json) note(`Task ${toFollowedRun(first).run.id}`);
      const end = await follow(server, first, {
        prints: !options.json,
        outputToStderr: true,
        onInterrupt: "detach",
        waitSeconds: options.wait,
        label: "The agent works",
      });
      const { id, answer, note: reason, duration_ms } = end.run;
      // scripts/execute-task.sh must print these fields.
      const named = { taskId: id, stdout: answer ?? reason ?? "", execution_time_ms: duration_ms };
      report(end, options.json === true, named);
    }
    await server.close();
  });
