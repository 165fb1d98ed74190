/** Which paths of the root file system belong to a sandbox's state, relative to `/`. */

/** Top-level directories of the running system. They are never saved. */
const TRANSIENT = new Set(["dev", "lost+found", "proc", "run", "sys", "tmp"]);

/** Excluded paths: files of the platform and this server, and caches that programs fill again. */
const LEFT_OUT = new Set([
  "container-server",
  "etc/cloudflare",
  "etc/hostname",
  "etc/hosts",
  "etc/mtab",
  "etc/resolv.conf",
  "etc/ssl/certs",
  "etc/ssl/sandbox-mcp.pem",
  "opt/sandbox-mcp",
  "opt/sandbox-runtime",
  "usr/local/share/ca-certificates",
  "var/cache/apt",
  "var/cache/fontconfig",
  "var/cache/man",
  "var/lib/apt/lists",
  "var/lib/sandbox-mcp",
  "var/lock",
  "var/run",
  "var/tmp",
]);

/** Excluded paths of each home directory: the same caches, and IPython's records of executions. */
const LEFT_OUT_OF_HOME = new Set([
  ".cache/fontconfig",
  ".cache/go-build",
  ".cache/matplotlib",
  ".cache/pip",
  ".cache/uv",
  ".ipython/profile_default/db",
  ".ipython/profile_default/history.sqlite",
  ".ipython/profile_default/history.sqlite-journal",
  ".ipython/profile_default/log",
  ".ipython/profile_default/pid",
  ".ipython/profile_default/security",
  ".ipython/profile_default/startup/README",
  ".npm/_cacache",
  ".npm/_logs",
]);

const HOME = /^(?:root|home\/[^/]+)\/(.*)$/s;

/**
 * Whether a path is part of a sandbox's state. A scan never follows links in parent directories, so an excluded path cannot be
 * reached under another name.
 */
export function isOfState(path: string): boolean {
  const top = topDirectory(path);
  if (top === "workspace") return true;
  if (TRANSIENT.has(top) || isBelow(LEFT_OUT, path)) return false;
  const inHome = HOME.exec(path)?.[1];
  return inHome === undefined || !isBelow(LEFT_OUT_OF_HOME, inHome);
}

function topDirectory(path: string): string {
  const slash = path.indexOf("/");
  return slash < 0 ? path : path.slice(0, slash);
}

export function parentPath(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/")));
}

export function pathIn(directory: string, name: string): string {
  return directory === "" ? name : `${directory}/${name}`;
}

/** Whether a path is one of the directories, or below one. */
export function isBelow(directories: ReadonlySet<string>, path: string): boolean {
  for (let at = path; at !== ""; at = parentPath(at)) if (directories.has(at)) return true;
  return false;
}

const SYSTEM = new Set("bin boot etc lib lib32 lib64 libx32 opt sbin usr var".split(" "));

/**
 * `own`: the user's files. `installed`: in a directory where users install programs beside the image's. `system`: in any other
 * directory of the image; its package manager owns them.
 */
export function kindOf(path: string): "own" | "installed" | "system" {
  if (!SYSTEM.has(topDirectory(path))) return "own";
  return /^(?:opt|usr\/local)\/|(?:^|\/)site-packages(?:\/|$)|\/lib\/node_modules\//.test(path)
    ? "installed"
    : "system";
}

/**
 * The library that a path belongs to; for the system's files, all its packages together. Such a unit is saved completely or not at
 * all, because a library with missing files is worse than none.
 */
export function unitOf(path: string): string | undefined {
  const kind = kindOf(path);
  if (kind === "system") return SYSTEM_PACKAGES;
  if (topDirectory(path) === "workspace") return undefined;
  return /^.*?\/(?:(?:site|dist)-packages|lib\/node_modules)(?=\/)/s.exec(path)?.[0];
}

export const SYSTEM_PACKAGES = "packages of the system";
/** Files that Debian's package manager locks while it runs. Half-installed packages must not be saved. */
export const PACKAGE_LOCKS = ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock"];

export function isOfImage(path: string): boolean {
  return SYSTEM.has(topDirectory(path));
}

/** Matches paths in directories that tools can create again. */
export const REGENERABLE = /((?:^|\/)(?:node_modules|\.venv|venv|__pycache__|\.cache|\.next|target))\/.*/s;

export function isRegenerable(path: string): boolean {
  return !isOfImage(path) && unitOf(path) === undefined && REGENERABLE.test(path);
}
