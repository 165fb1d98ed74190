/**
 * Where the host's own programs are looked for: where distributions keep them, whatever the user's PATH says, and then in
 * that, for distributions that keep them elsewhere.
 */
export const SYSTEM_PATH = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", process.env.PATH]
  .filter(Boolean)
  .join(":");
