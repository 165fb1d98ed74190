/** What programs in a sandbox read when a connection is refused or breaks: sentences without their full stop. */

export const REFUSALS = {
  noHost: "this request does not name a host",
  noTunnelHost: "this tunnel does not name a host",
  coding: "only chunked bodies, and those of a known length, are passed on",
  nested: "a tunnel within a tunnel is not let through",
  elsewhere: (to: string, named: string) => `a tunnel to ${to} carries no request for ${named}`,
  noCertificate: (host: string) => `${host} is intercepted by the server, which has no certificate for it`,
  noUpgrade: (host: string) => `${host} is served by this server, which does not upgrade connections`,
  upgrade: (protocol: string) => `an upgrade to ${protocol} is not let through`,
  unreachable: (host: string, why: string) => `${host} is not reachable: ${why}`,
  notForSandboxes: (what: string) => `${what}, which a sandbox may not reach`,
};

/** Why a host is not reachable. */
export const NO_INTERNET = "this sandbox has no internet access";
export const NO_NETWORK = "the server was started with --network none";
export const NOT_IN_USE = "this sandbox is not in use yet";
export const NOT_ALLOWED = "it is not in this sandbox's allow_hosts";
export const OTHER_PORT = "allow_hosts lets ports 80 and 443 through";

/** What went wrong with a host. */
export const HOST_PROBLEMS = {
  unreachable: "the host could not be reached",
  refused: (host: string, why: string) => `${host} could not be reached (${why})`,
  noTLS: (host: string, why: string) => `${host} could not be reached by TLS (${why})`,
  unresolved: (host: string, why: string) => `${host} could not be resolved (${why})`,
  proxy: (why: string) => `this machine's proxy could not be reached (${why})`,
  proxyStatus: (status: number | string, target: string) =>
    `this machine's proxy answered ${status} for ${target}`,
  closed: "the connection was closed",
  notHTTP: (host: string) => `${host} sent a response that is not HTTP`,
  otherProtocol: (host: string) => `${host} switched to another protocol`,
  broke: (host: string, why?: string) =>
    `${host} broke off the connection${why === undefined ? "" : ` (${why})`}`,
};

/** What went wrong with a request to a host that the Worker serves. */
export const WORKER_PROBLEMS = {
  largeHead: "the head of this request is too large",
  notTaken: "the Worker did not take the request",
  interrupted: "the server was interrupted at this request",
  notHTTP: "the server's response is not HTTP",
  silent: "the Worker did not answer",
};
