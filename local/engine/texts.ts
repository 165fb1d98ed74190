/** The engine's texts. Those that imitate Cloudflare's platform and SDK are in local/platform and local/runtime. */
import type { OwnServer } from "../../container/sandboxd/engine-link.ts";

/** Texts that programs in a sandbox read when a connection is refused or breaks. They are sentences without their full stop. */
export const REFUSALS = {
  noHost: "this request does not name a host",
  noTunnelHost: "this tunnel does not name a host",
  coding: "the body must be chunked or have a Content-Length",
  nested: "a tunnel within a tunnel is not allowed",
  elsewhere: (to: string, named: string) => `a request for ${named} is not allowed in a tunnel to ${to}`,
  noCertificate: (host: string) => `the server intercepts requests to ${host}, but has no certificate for it`,
  noUpgrade: (host: string) => `${host} is served by this server, which does not upgrade connections`,
  upgrade: (protocol: string) => `an upgrade to ${protocol} is not allowed`,
  unreachable: (host: string, why: string) => `${host} is not reachable: ${why}`,
  notForSandboxes: (what: string) => `${what}, which a sandbox may not reach`,
};

export const installing = (title: string, directory: string) =>
  `Installing ${title} with npm into ${directory}.`;

export const NO_INTERNET = "this sandbox has no internet access";
export const NO_NETWORK = "the server was started with --network none";
export const NOT_IN_USE = "this sandbox is not in use yet";
export const NOT_ALLOWED = "it is not in this sandbox's allow_hosts";
export const OTHER_PORT = "allow_hosts permits only ports 80 and 443";

export const HOST_PROBLEMS = {
  unreachable: "the host could not be reached",
  refused: (host: string, why: string) => `${host} could not be reached (${why})`,
  noTLS: (host: string, why: string) => `${host} could not be reached by TLS (${why})`,
  unresolved: (host: string, why: string) => `${host} could not be resolved (${why})`,
  proxy: (why: string) => `this machine's proxy could not be reached (${why})`,
  proxyStatus: (status: number | string, target: string) =>
    `this machine's proxy responded with ${status} for ${target}`,
  closed: "the connection was closed",
  notHTTP: (host: string) => `${host} sent a response that is not HTTP`,
  otherProtocol: (host: string) => `${host} switched to another protocol`,
  broke: (host: string, why?: string) =>
    `${host} broke off the connection${why === undefined ? "" : ` (${why})`}`,
};

export const WORKER_PROBLEMS = {
  largeHead: "the headers of this request are too large",
  notTaken: "the server did not accept the request",
  interrupted: "the server was interrupted during this request",
  notHTTP: "the server's response is not HTTP",
  silent: "the server did not respond",
};

export const CLIENT_GONE = "the client has disconnected";

export const REQUEST_PROBLEMS = {
  tooMany: (most: number) => `this sandbox has ${most} open requests, and no more are allowed`,
  notListening: (port: number) => `nothing accepts connections on port ${port}`,
  unreachable: (port: number) =>
    `port ${port} is not reachable: ask sandboxd, which passes requests to previews on to other ports`,
  noSandbox: "no such sandbox",
  noRoute: "no such route",
  noURL: "the URL must begin with http:// or https://",
  partial: "the response ended early",
};

// Why this machine cannot start the engine or a sandbox, as sentences for the user

export const MACHINE = {
  /** @param why the most specific message of the programs that failed */
  noSandbox: (why: string) => `This machine cannot make a sandbox: ${why}`,
  directoryGone: (path: string) =>
    `This machine cannot make a sandbox: the mounted directory ${path} no longer exists.`,
  directoryLinked: (path: string) =>
    `This machine cannot make a sandbox: a symbolic link has replaced the mounted directory ${path} or one of its parents. Restart the server to mount the directory to which the link leads.`,
  noIDs: "This machine cannot make a sandbox: all user ids for sandboxes are in use.",
  notStarted: (why: string) => `The sandbox did not start: ${why}`,
  notInstalled: (title: string, reason: string) =>
    `${title} could not be installed: ${reason}. ` +
    "Check the network and the registry that npm is configured to use (npm ping), then try again.",
  removed: (title: string, directory: string) =>
    `${title} is missing in ${directory}, although npm has installed it: remove that directory, then try again.`,
  notPython: (path: string) => `${path} is not Python 3.`,
  closed: (path: string) =>
    `Only root can read ${path}, and no sandbox runs as this machine's root. Make it readable: chmod -R go+rX ${path}`,
  ofRoot: (path: string, why: string) =>
    `${path} belongs to root, and this machine cannot map its owner to another user (${why}). ` +
    `Give it to a user: chown -R USER ${path}`,
  noFind: (directory: string) =>
    `${directory} cannot be searched for files with a set-user-id or set-group-id bit: install findutils.`,
  hasSetID: (file: string) =>
    `${file} has a set-user-id or set-group-id bit, so a sandbox that can write to the file could get its owner's rights. Remove the bit (chmod ug-s), or mount the directory read-only: --mount DIR:ro.`,
  isClosed: (directory: string) =>
    `${directory} cannot be searched for files with a set-user-id or set-group-id bit. Make it readable for its owner (chmod u+rx), or mount the directory read-only: --mount DIR:ro.`,
  noPlaces: (places: readonly string[], link: string, remedy: string) =>
    `Without isolation, sandboxes need ${places.join(" and ")}, writable by this user, and the link ${link}. Create them: ${remedy}`,
  stopping: "The engine is shutting down.",
  shortSecret: "The engine's secret must have at least 16 characters.",
};

export const NEEDS_ISOLATION =
  "A sandbox without isolation uses this machine's network, so its setting internet must be full.";

export const NOT_ISOLATED = [
  "WARNING: --isolation none: sandboxes are not isolated. Code in a sandbox",
  "WARNING: can read your files, and use your network and your keys.",
];

/** @param resources what sandboxes can take as much of as they want */
export const notLimited = (resources: string[]) =>
  `no control groups for ${resources.join(" and ")}: sandboxes can slow this machine down, or use up its memory`;
export const notLimitedWarning = (resources: string[]) =>
  `WARNING: ${notLimited(resources)}. The command doctor says what to do.`;

/** For `MACHINE.noSandbox` and `MACHINE.notStarted`. */
export const START_PROBLEMS = {
  bounds: (why: string) => `the sandbox's limits could not be set: ${why}`,
  replaced: (path: string) => `the mounted directory ${path} was replaced while the sandbox started`,
  noControl: "its control server did not respond",
  controlLate: "its control server ended or did not connect in time",
  noConnection: (server: OwnServer) =>
    `the sandbox's ${server === "control" ? "control server" : "sandboxd"} has no free connection`,
  bubblewrapFailed: "bubblewrap could not make the sandbox",
  bubblewrapEnded: "bubblewrap ended before the sandbox was ready",
  tooMany: "too many sandboxes start at the same time",
  ended: "the sandbox has ended",
};

export const BUBBLEWRAP = {
  notLinux: (platform: string) => `bubblewrap needs Linux and this is ${platform}`,
  useOther: "Use `npm run dev:docker`, or WSL 2 on Windows.",
  missing: (program: string) => `${program} is not installed`,
  install: (command: string) => `Install it: ${command}`,
  installUtilities: "Install util-linux, with your distribution's package manager.",
  old: "this bubblewrap is older than 0.7 and cannot limit the size of a sandbox's files",
  installNewer: (command: string) => `Install a newer one: ${command}`,
  failed: (stderr: string) => `bubblewrap cannot make a sandbox here: ${stderr}`,
  allowAppArmor:
    "AppArmor forbids user namespaces to unprivileged programs (Ubuntu 23.10 and newer). Allow them with " +
    "`sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`. To allow them after a restart of the machine, too, write this setting into a file in /etc/sysctl.d.",
  allow: (setting: string) => `Allow user namespaces: \`sudo sysctl -w ${setting}\`.`,
  allowNested:
    "If this machine is a container, allow it nested namespaces and an unmasked /proc (Docker: `--security-opt seccomp=unconfined " +
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined`; for a server that root starts also `--cap-add SYS_ADMIN`), or choose `--isolation none`.",
};

/** Why the engine stopped a sandbox, as words that follow "it". */
export const STOPPED_FOR_MEMORY = "used most of the memory of all sandboxes, and little was left";
