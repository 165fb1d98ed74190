import { execFile } from "node:child_process";
import { promisify } from "node:util";

/** Runs a program, and resolves with its output. */
export const runFile = promisify(execFile);

/**
 * Where to look for the host's programs: the distributions' usual places first, then the user's PATH. `npm start` removes
 * directories from PATH, so each call reads PATH again.
 */
export function systemPath(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const usual = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
  return [...usual, env.PATH].filter(Boolean).join(":");
}

/** Runs a program of the host, with PATH as its only variable. @returns its output @throws Error with the text from stderr */
export async function runHost(
  program: string,
  args: readonly string[],
  path = systemPath(),
): Promise<string> {
  try {
    return (await runFile(program, args, { cwd: "/", env: { PATH: path }, timeout: 10_000 })).stdout;
  } catch (error) {
    throw new Error(failureOf(error), { cause: error });
  }
}

/** The text that a failed program printed to stderr, or else the error itself. */
export function failureOf(error: unknown): string {
  const printed = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
  return printed === "" ? String(error) : printed;
}
