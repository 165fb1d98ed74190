/** Where to look for the host's programs: the distributions' usual places first, then the user's PATH. */
export const SYSTEM_PATH = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", process.env.PATH]
  .filter(Boolean)
  .join(":");

/** The text that a failed program printed to stderr, or else the error itself. */
export function failureOf(error: unknown): string {
  const printed = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
  return printed === "" ? String(error) : printed;
}
