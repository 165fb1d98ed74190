/** The exit statuses of the command line. From 64 on those of sysexits.h and timeout(1), which programs seldom use themselves. */
import { UserError } from "./user-error.ts";

export const EXIT = {
  succeeded: 0,
  /** The code raised an error, the task failed, a check did not pass. */
  failed: 1,
  /** The command line is wrong. */
  usage: 64,
  /** The server, or a file that was named, is not there. */
  unavailable: 69,
  /** The server could not do what was asked for, and said why. */
  refusedByServer: 70,
  /** The run goes on. */
  stillRunning: 75,
  /** The token is not accepted, or does not allow this. */
  denied: 77,
  timedOut: 124,
  /** Stopped by Ctrl-C or by `cancel`. */
  cancelled: 130,
} as const;

export type ExitName = keyof typeof EXIT;

/** What ends a process from outside, and leaves it the time to tidy up. */
export const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** An error whose kind the exit status tells. */
export class CommandError extends UserError {
  readonly kind: ExitName;

  constructor(kind: ExitName, message: string) {
    super(message);
    this.kind = kind;
  }
}

/** Whether an exit code means something of the command line's own, above the 0 and 1 that all programs share. */
export function isOwnStatus(code: number | undefined): boolean {
  return code !== undefined && code > EXIT.failed && Object.values<number>(EXIT).includes(code);
}

/**
 * The exit status for a run that has ended, or goes on.
 * @param exitCode of the program, where there is one: it is passed on, as by ssh, unless it would be read as one of this program's own
 */
export function statusOf(state: string, exitCode?: number): number {
  switch (state) {
    case "succeeded":
      return EXIT.succeeded;
    case "running":
      return EXIT.stillRunning;
    case "timed_out":
      return EXIT.timedOut;
    case "cancelled":
      return EXIT.cancelled;
    case "failed":
      return exitCode === undefined || exitCode === 0 || isOwnStatus(exitCode) ? EXIT.failed : exitCode;
    default:
      return EXIT.refusedByServer;
  }
}
