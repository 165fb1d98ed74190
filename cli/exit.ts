/**
 * The exit statuses. From 64 on, they are the statuses of sysexits.h, timeout(1) and shells (130), because few other programs
 * return them.
 */
export const EXIT = {
  succeeded: 0,
  /** The code raised an error, the task failed, or a check failed. */
  failed: 1,
  /** The command line is wrong. */
  usage: 64,
  /** No server responds, or a named file does not exist. */
  unavailable: 69,
  /** The server refused or failed, and said why. */
  refusedByServer: 70,
  stillRunning: 75,
  /** The token is invalid, or does not allow the call. */
  denied: 77,
  timedOut: 124,
  /** Ctrl-C or `cancel` stopped the command or the run. */
  cancelled: 130,
} as const;

export type ExitName = keyof typeof EXIT;

/** Signals that end a process and leave it time to clean up. */
export const STOP_SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Signals within this time, in milliseconds, count as one Ctrl-C: the terminal and npm each send one. */
const ONE_CTRL_C_MS = 500;

/** Whether a signal is another Ctrl-C. @param first when the first signal arrived, in milliseconds since the epoch, if any did */
export function isSecondCtrlC(first: number | undefined): boolean {
  return first !== undefined && Date.now() - first > ONE_CTRL_C_MS;
}

/**
 * Calls `stop` for each signal that ends a server, and `skipSave` for another Ctrl-C. A terminal that closes can send several signals
 * (SIGHUP), and then nobody asks to skip the save.
 */
export function onStopSignals(stop: () => unknown, skipSave: () => void): void {
  let first: number | undefined;
  // What is printed after the terminal has closed is lost. The error must not end the process before everything is saved.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  for (const signal of STOP_SIGNALS)
    process.on(signal, () => {
      if (signal !== "SIGHUP" && isSecondCtrlC(first)) skipSave();
      first ??= Date.now();
      stop();
    });
}

/**
 * An error that the user can correct. The program prints its message without a stack, and exits with status 1. A `CommandError`
 * has its own exit status.
 */
export class UserError extends Error {
  override readonly name = "UserError";
}

export class CommandError extends UserError {
  readonly kind: ExitName;

  constructor(kind: ExitName, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

const errorOfKind = (kind: ExitName) => (message: string) => new CommandError(kind, message);

export const usage = errorOfKind("usage");
export const unavailable = errorOfKind("unavailable");
export const denied = errorOfKind("denied");
export const failed = errorOfKind("failed");
export const cancelled = errorOfKind("cancelled");
export const refusedByServer = errorOfKind("refusedByServer");

/** Whether this command line gives an exit code its own meaning, besides the common 0 and 1. */
export function isOwnStatus(code: number | undefined): boolean {
  return code !== undefined && code > EXIT.failed && Object.values<number>(EXIT).includes(code);
}

/** @param exitCode the program's exit code, if any. It becomes the exit status, as with ssh, unless it is a status of `EXIT` */
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
