/**
 * The addresses of MCP resources. `sandbox://<sandbox>/<path>` is a file or directory: relative to /workspace, or absolute
 * after a second slash. `sandbox://runs/<id>/<name>` is a run's output. All parts are percent-encoded. A sandbox named `runs`
 * has no addresses.
 */
import { SANDBOX_NAME, sandboxNameRule } from "./names.ts";

export const RUNS = "runs";

/** The name of a run's log, and the prefix of a task's artifacts. */
export const LOG_NAME = "log";
export const ARTIFACTS = "artifacts/";

/** The path of the list of a sandbox's connections. It is not a real file; a file with this path has no address. */
export const NETWORK_PATH = "/workspace/.network";

type ResourceAddress =
  | { sandbox: string; path: string }
  /** An empty `name` means all outputs of the run. */
  | { run: string; name: string };

const WORKSPACE = "/workspace";

/** The most characters of an address. The longest path, percent-encoded, has 12,288. */
export const MAX_RESOURCE_URI = 16_384;

const MAX_PATH = 4096;

/** The templates of both kinds of addresses, as in RFC 6570. */
export const FILE_TEMPLATE = "sandbox://{sandbox}/{+path}";
export const RUN_TEMPLATE = `sandbox://${RUNS}/{id}/{+name}`;

/** The address of a file; undefined if its sandbox has no addresses. @param path absolute, without `.` and `..` */
export function fileURI(sandbox: string, path: string): string | undefined {
  if (sandbox === RUNS) return undefined;
  const isBelow = path === WORKSPACE || path.startsWith(`${WORKSPACE}/`);
  return `sandbox://${encodeURIComponent(sandbox)}/${encodePath(isBelow ? path.slice(WORKSPACE.length + 1) : path)}`;
}

/** @param name `LOG_NAME`, or a path after `ARTIFACTS`; empty for all outputs of the run */
export function runURI(id: string, name: string): string {
  return `sandbox://${RUNS}/${encodeURIComponent(id)}/${encodePath(name)}`;
}

export function parseResourceURI(uri: string): ResourceAddress | { problem: string } {
  const url = URL.parse(uri);
  if (url?.protocol !== "sandbox:") return { problem: `${FORMS}.` };
  const { hostname, pathname, username, password, port, search, hash } = url;
  if (username || password || port || search || hash)
    return {
      problem: `${FORMS}, without a query or fragment: write ? as %3F, # as %23, @ as %40 and : as %3A.`,
    };
  const decoded = decode(pathname.slice(1));
  if (decoded === undefined)
    return { problem: "The path of the address must be percent-encoded UTF-8 without NUL." };
  // An address that is not percent-encoded has room for a longer path, which sandboxd's HTTP server would refuse.
  if (decoded.length > MAX_PATH)
    return { problem: `The path of the address is longer than ${MAX_PATH} characters.` };
  const sandbox = decode(hostname) ?? hostname;
  if (sandbox === RUNS) {
    const end = decoded.indexOf("/");
    return end < 0
      ? { run: decoded, name: "" }
      : { run: decoded.slice(0, end), name: decoded.slice(end + 1) };
  }
  if (!SANDBOX_NAME.test(sandbox))
    return { problem: `${FORMS}. The name of the sandbox ${sandboxNameRule(sandbox)}.` };
  return { sandbox, path: decoded || "." };
}

const FORMS = "The address of a resource is sandbox://<sandbox>/<path> or sandbox://runs/<id>/<name>";

function encodePath(path: string): string {
  return path.toWellFormed().split("/").map(encodeURIComponent).join("/");
}

/** A percent-decoded part of an address; undefined if it is not UTF-8 or contains NUL. */
export function decode(part: string): string | undefined {
  try {
    const decoded = decodeURIComponent(part);
    return decoded.includes("\0") ? undefined : decoded;
  } catch {
    return undefined;
  }
}
