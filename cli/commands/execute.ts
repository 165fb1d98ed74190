/** `sandbox-mcp execute`: hands a task to a coding agent in a sandbox. */
import { Option } from "@commander-js/extra-typings";
import { AGENT_NAMES } from "../../src/shared/names.ts";
import { MAX_RUN_SECONDS } from "../../src/shared/run-seconds.ts";
import { repeated, serverCommand, textFrom, wholeNumber } from "../command.ts";
import { FIRST_WAIT_SECONDS, follow, followed } from "../follow.ts";
import { Server } from "../mcp.ts";
import { json, line, note } from "../print.ts";
import { serverAddress } from "../server.ts";
import { report } from "./result.ts";

export const execute = serverCommand(
  "execute",
  "hand a task to a coding agent and follow what it does; Ctrl-C leaves it at work",
  [
    "execute 'Write a Python script that prints the first 100 primes, and test it'",
    "execute --repository https://github.com/owner/project --file task.md --timeout 1800",
    "execute --detach --json 'Update the dependencies'",
    "execute --repository https://github.com/owner/project --command fix-issue '/fix-issue 124'",
  ],
)
  .argument("[task]", "the task; - for standard input")
  .option("--file <path>", "read the task from a file")
  .option("--repository <url>", "a Git repository, cloned first")
  .option("--branch <name>", "its branch")
  .addOption(new Option("--agent <name>", "the coding agent that does it").choices(AGENT_NAMES))
  // Its name before.
  .addOption(new Option("--coding-agent <name>").choices(AGENT_NAMES).hideHelp())
  .option("--subagent <name>", "have this subagent in place (may be repeated)", repeated)
  .option("--command <name>", "have this slash command in place (may be repeated)", repeated)
  .option("--model <name>", "the model that it uses")
  .option("--sandbox <name>", "work in this sandbox, which stays, else in a fresh one")
  .option("--checkpoint <id>", "start the fresh sandbox from a checkpoint")
  .option("--continue-from <id>", "go on with the conversation and files of an ended task")
  .option("--max-turns <number>", "stop it after so many turns", wholeNumber(1, 1000))
  .option("--timeout <seconds>", "stop it after so long", wholeNumber(1, MAX_RUN_SECONDS), 300)
  .option("--wait <seconds>", "leave it at work after so long", wholeNumber(0))
  .option("--detach", "print its id and leave it at work")
  .action(async (argument, options) => {
    const task = await textFrom("task", argument, options.file);
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
      const { run } = followed(first);
      if (options.json) json(true, run);
      else {
        line(run.id);
        if (run.notice) note(run.notice);
      }
    } else {
      if (!options.json) note(`Task ${followed(first).run.id}`);
      const end = await follow(server, first, {
        prints: !options.json,
        isBeside: true,
        onInterrupt: "leave",
        waitSeconds: options.wait,
        label: "The agent works",
      });
      const { id, answer, note: reason, duration_ms } = end.run;
      // The names that scripts/execute-task.sh was asked to print.
      const named = { taskId: id, stdout: answer ?? reason ?? "", execution_time_ms: duration_ms };
      report(end, options.json === true, named);
    }
    await server.close();
  });
