/**
 * Network policies: the syntax of entries, the hosts that they cover, and how one policy restricts another. Pure functions,
 * shared by the Worker and the local engine. Hosts served by the Worker itself (`src/container/model-egress.ts`) are reachable
 * under every policy.
 */

/** What a sandbox reaches: nothing, listed hosts, or everything. Each level includes the previous one. */
export const INTERNET = ["none", "allowlist", "full"] as const;

export type Internet = (typeof INTERNET)[number];

export interface NetworkPolicy {
  internet: Internet;
  allowHosts: readonly string[];
}

export const PACKAGES = "packages";

export const PACKAGE_HOSTS: readonly string[] = [
  "pypi.org",
  "files.pythonhosted.org",
  "registry.npmjs.org",
  "deb.debian.org",
  "security.debian.org",
  "github.com",
  "api.github.com",
  "codeload.github.com",
  "*.githubusercontent.com",
];

export const MAX_HOSTS = 100;

export const ALLOWED_PORTS: ReadonlySet<number> = new Set([80, 443]);

export const ALLOWED_PORTS_LISTED = [...ALLOWED_PORTS].join(" and ");

/** A DNS name without a final dot: at least two labels, each at most 63 characters, at most 253 in total. */
const NAME =
  /^(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;

const IPV4 = /^\d{1,3}(?:\.\d{1,3}){3}$/;

/** Normalizes a list entry: lower case, punycode, no final dot. @returns the entry, or its problem as the end of a sentence */
export function parseHostEntry(text: string): { entry: string } | { problem: string } {
  if (text === PACKAGES) return { entry: PACKAGES };
  const wildcard = text.startsWith("*.") ? "*." : "";
  const host = canonicalHost(text.slice(wildcard.length));
  if (host === undefined || !canBeListed(host)) return { problem: NO_HOST };
  if (!isAddress(host)) return { entry: wildcard + host };
  // 127.1, 0x7f.0.0.1 and 2130706433 are spellings of one address. Only the usual spelling is accepted, so that readers of a
  // list see what it allows.
  return wildcard === "" && host === text
    ? { entry: host }
    : { problem: "is an address that is not in its usual form" };
}

const NO_HOST =
  "is not a host: write a name (api.example.com), *.name for all names below it, or packages; no scheme, port or path";

/** A connection's host in the same form as list entries, without brackets and final dot; undefined if it is not valid. */
export function canonicalHost(text: string): string | undefined {
  // Checked first, because a URL parser would drop tabs and line ends, decode %41, and cut off user names, ports and paths.
  // oxlint-disable-next-line no-control-regex
  if (text === "" || text.length > 300 || /[\u0000-\u0020\u007f%/\\?#@]/.test(text)) return undefined;
  const isBare = text.includes(":") && !text.startsWith("[");
  const url = URL.parse(`http://${isBare ? `[${text}]` : text}`);
  if (url === null || url.port !== "" || (!isBare && /:\d*$/.test(text))) return undefined;
  const host = url.hostname.replace(/^\[|\]$/g, "").replace(/\.$/, "");
  return host === "" ? undefined : host.toLowerCase();
}

export function isAddress(host: string): boolean {
  return host.includes(":") || IPV4.test(host);
}

/** Whether an allowlist can name this host: an address, or a name with a dot. @param host in canonical form */
export function canBeListed(host: string): boolean {
  return isAddress(host) || NAME.test(host);
}

export function allowsHost({ internet, allowHosts }: NetworkPolicy, host: string): boolean {
  if (internet === "full") return true;
  return internet === "allowlist" && expandPackages(allowHosts).some((entry) => covers(entry, host));
}

export function allowsPackages({ internet, allowHosts }: NetworkPolicy): boolean {
  return internet === "full" || (internet === "allowlist" && allowHosts.includes(PACKAGES));
}

export function narrow(policy: NetworkPolicy, limit: NetworkPolicy): NetworkPolicy {
  const rank = Math.min(INTERNET.indexOf(policy.internet), INTERNET.indexOf(limit.internet));
  const internet = INTERNET[rank] ?? "none";
  if (limit.internet === "full") return { internet, allowHosts: policy.allowHosts };
  if (policy.internet === "full") return { internet, allowHosts: limit.allowHosts };
  return { internet, allowHosts: intersect(policy.allowHosts, limit.allowHosts) };
}

export function entriesBeyond(entries: readonly string[], limit: NetworkPolicy): string[] {
  if (limit.internet === "full") return [];
  if (limit.internet === "none") return [...entries];
  const allowed = expandPackages(limit.allowHosts);
  const isWithin = (entry: string) =>
    expandPackages([entry]).every((host) => allowed.some((wide) => covers(wide, host)));
  return entries.filter((entry) => !isWithin(entry));
}

function intersect(some: readonly string[], others: readonly string[]): string[] {
  const kept = new Set<string>();
  if (some.includes(PACKAGES) && others.includes(PACKAGES)) kept.add(PACKAGES);
  for (const entry of expandPackages(some))
    for (const other of expandPackages(others)) {
      if (covers(other, entry)) kept.add(entry);
      else if (covers(entry, other)) kept.add(other);
    }
  if (kept.has(PACKAGES)) for (const host of PACKAGE_HOSTS) kept.delete(host);
  return [...kept];
}

function expandPackages(entries: readonly string[]): readonly string[] {
  return entries.flatMap((entry) => (entry === PACKAGES ? PACKAGE_HOSTS : entry));
}

/** Whether an entry covers a host or another entry. `*.name` covers names below `name`, not `name` itself. */
function covers(entry: string, host: string): boolean {
  if (entry === host) return true;
  const below = entry.slice(1);
  return entry.startsWith("*.") && host.length > below.length && host.endsWith(below);
}
