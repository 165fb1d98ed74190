/** Where to look for the host's programs: the distributions' usual places first, then the user's PATH. */
export const SYSTEM_PATH = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", process.env.PATH]
  .filter(Boolean)
  .join(":");
