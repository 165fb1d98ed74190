import { spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { SandboxError } from "../../client/errors.ts";
import { MAX_RUN_SECONDS } from "../../src/shared/run-seconds.ts";
import { bridgeCommand, wholeNumber } from "../define-command.ts";
import { EXIT } from "../exit.ts";
import { toFollowedRun } from "../follow-run.ts";
import { Server } from "../server-calls.ts";
import { note } from "../print.ts";
import { serverAddress } from "../server-address.ts";
import { TerminalFilter } from "../../src/shared/terminal/filter.ts";
import { Resizing, startSize, type Size } from "../../src/shared/terminal/size.ts";
import { CALL_INTERVAL_MS } from "../../src/shared/terminal/typing.ts";
import { Keyboard } from "../keyboard.ts";
import { DETACH_HINT, detached, NO_JSON, noTerminal } from "./texts.ts";

/** How many bytes of earlier output a user sees after attaching. */
const SHOWN_BYTES = 4096;

export const shell = bridgeCommand(
  NO_JSON.shell,
  "shell",
  "open a terminal in a sandbox; Ctrl-C goes to the program, Ctrl-] detaches from it",
  ["shell", "shell --sandbox build 'python3 -q'", "shell --attach build.01m7w0hhyrgqc3dhwv4sybnbvc"],
)
  .argument("[command]", "the command to run instead of bash")
  .option("--sandbox <name>", "the sandbox", "default")
  .option("--cwd <path>", "the directory to start in")
  .option("--timeout <seconds>", "stop the terminal after this time", wholeNumber(1, MAX_RUN_SECONDS), 3600)
  .option("--attach <id>", "attach to a terminal that was detached")
  .action(async (command, { sandbox, cwd, timeout, attach, ...options }) => {
    if (!process.stdin.isTTY || !process.stdout.isTTY) throw noTerminal(sandbox);
    const server = await Server.connect(serverAddress(options), "raw");
    const { id, notice } =
      attach === undefined
        ? toFollowedRun(
            await server.call("run_command", {
              command: command ?? "bash -i",
              env: startSize(size()),
              sandbox,
              cwd,
              session: `shell-${randomBytes(4).toString("hex")}`,
              interactive: true,
              timeout_seconds: timeout,
              wait_seconds: 0,
            }),
          ).run
        : { id: attach, notice: undefined };
    if (notice) note(notice);
    note(DETACH_HINT);
    try {
      const hasEnded = await converse(server, id, attach !== undefined);
      if (hasEnded) process.exitCode = toFollowedRun(await server.readResult({ id, wait_seconds: 0 })).status;
      else {
        process.exitCode = EXIT.stillRunning;
        note(...detached(id));
      }
    } finally {
      // Also ends the calls that follow the output.
      await server.close();
    }
  });

/**
 * Connects the user's terminal to the run's terminal, and resets the user's terminal afterwards.
 * @returns false if the user detached before the run ended
 */
async function converse(server: Server, id: string, isAttached: boolean): Promise<boolean> {
  const { stdin, stdout } = process;
  const leaving = Promise.withResolvers<false>();
  const filter = new TerminalFilter();
  const type = (text: string) =>
    server.call("send_input", { id, text }).then(
      () => undefined,
      (error: unknown) => {
        // Whether the text was typed is unknown here, but the screen shows it to the user.
        if (!isConnectionLost(error)) throw error;
      },
    );
  const fail = async (reason: unknown) => {
    // Input that fails because the program has ended is not an error.
    const { isRunning } = await server.logOf(id).catch(() => ({ isRunning: true }));
    if (isRunning) leaving.reject(reason);
  };
  const keyboard = new Keyboard(type, (reason) => void fail(reason));
  const press = (keys: Buffer) => {
    if (keyboard.press(keys)) leaving.resolve(false);
  };
  const leave = () => leaving.resolve(false);
  const resizing = new Resizing(size, (now) => server.call("send_input", { id, ...now }));
  const resize = () => resizing.start();
  stdin.setRawMode(true);
  // In raw mode, the terminal still adds a carriage return to each line feed. Full-screen programs expect that it does not.
  spawnSync("stty", ["-opost"], { stdio: ["inherit", "ignore", "ignore"] });
  stdin.on("data", press);
  stdin.once("end", leave);
  stdout.on("resize", resize);
  if (isAttached) resize();
  for (const signal of ["SIGTERM", "SIGHUP"] as const) process.once(signal, leave);
  try {
    return await Promise.race([leaving.promise, show(server, id, filter, isAttached)]);
  } finally {
    stdout.off("resize", resize);
    resizing.stop();
    stdin.off("data", press);
    stdin.setRawMode(false);
    stdin.pause();
    stdout.write(`${filter.resetSequences()}\r\n`);
  }
}

function isConnectionLost(error: unknown): boolean {
  return (
    error instanceof Error && error.cause instanceof SandboxError && error.cause.code === "connection_lost"
  );
}

async function show(server: Server, id: string, filter: TerminalFilter, isAttached: boolean): Promise<true> {
  const cursor = isAttached ? Math.max(0, (await server.logOf(id)).bytes - SHOWN_BYTES) : 0;
  for await (const { log } of server.pages(id, { cursor, everyMs: CALL_INTERVAL_MS }))
    for (const { text } of log) process.stdout.write(filter.take(text));
  return true;
}

/** The size of the user's terminal. A terminal that does not know its size reports zero. */
function size(): Size {
  return { rows: process.stdout.rows || 24, columns: process.stdout.columns || 80 };
}
