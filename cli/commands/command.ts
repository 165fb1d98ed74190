import { MAX_RUN_SECONDS } from "../../src/shared/run-seconds.ts";
import { serverCommand, sessionName, textFrom, wholeNumber } from "../define-command.ts";
import { FIRST_WAIT_SECONDS } from "../../client/follow.ts";
import { follow } from "../follow-run.ts";
import { Server } from "../server-calls.ts";
import { json } from "../print.ts";
import { serverAddress } from "../server-address.ts";
import { wrongVariable } from "./texts.ts";

export const command = serverCommand(
  "command",
  "run a shell command and end with its exit status; the session keeps directory and variables",
  [
    "command 'pip install -q requests && python3 main.py'",
    "command --session build --timeout 600 'make -j4'",
    "command --file setup.sh --env STAGE=test",
  ],
)
  .argument("[command]", "the command, quoted as one word; - reads standard input")
  .option("--file <path>", "read the command from a file")
  .option("--sandbox <name>", "the sandbox", "default")
  .option("--session <name>", "the shell session", sessionName, "main")
  .option("--cwd <path>", "directory for this command only")
  .option("--env <name=value>", "variable for this command only; may be repeated", variable)
  .option("--timeout <seconds>", "stop the run after this time", wholeNumber(1, MAX_RUN_SECONDS), 120)
  .action(async (argument, options) => {
    const text = await textFrom("command", argument, options);
    const server = await Server.connect(serverAddress(options));
    const { sandbox, session, cwd, env, timeout } = options;
    const first = await server.call("run_command", {
      command: text,
      sandbox,
      session,
      cwd,
      env,
      timeout_seconds: timeout,
      wait_seconds: FIRST_WAIT_SECONDS,
    });
    const { run, status } = await follow(server, first, {
      prints: !options.json,
      onInterrupt: "cancel",
      label: `command in ${sandbox}`,
    });
    if (options.json) json(status === 0, run);
    process.exitCode = status;
    await server.close();
  });

function variable(text: string, before: Record<string, string> = {}): Record<string, string> {
  const at = text.indexOf("=");
  if (at < 1) throw wrongVariable(text);
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) };
}
