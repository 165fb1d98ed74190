/**
 * Where to look for the host's programs: the distributions' usual places first, then the user's PATH. `npm start` removes
 * directories from PATH, so each call reads PATH again.
 */
export function systemPath(env: Readonly<Record<string, string | undefined>> = process.env): string {
  const usual = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
  return [...usual, env.PATH].filter(Boolean).join(":");
}

/** The text that a failed program printed to stderr, or else the error itself. */
export function failureOf(error: unknown): string {
  const printed = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
  return printed === "" ? String(error) : printed;
}
