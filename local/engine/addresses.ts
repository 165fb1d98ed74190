/** Addresses that no sandbox may reach through the egress proxy. */
import { BlockList, isIP } from "node:net";
import { attachedNetworks } from "./attached.ts";

const reasons: [reason: string, ...subnets: string[]][] = [
  ["a loopback address", "127.0.0.0/8", "::1/128"],
  ["the unspecified address", "0.0.0.0/8", "::/128"],
  // This entry comes before the ranges below, because its reason says more. The ranges contain all of these addresses except
  // 168.63.129.16, which is Azure's.
  [
    "a cloud metadata address",
    "169.254.169.254/32",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "fd00:ec2::254/128",
  ],
  ["a private address", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"],
  ["a link-local address", "169.254.0.0/16", "fe80::/10"],
  ["a carrier-grade NAT address", "100.64.0.0/10"],
  ["a multicast address", "224.0.0.0/4", "ff00::/8"],
  [
    "an address for documentation and tests",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "198.18.0.0/15",
  ],
  [
    "an address for documentation and tests",
    "2001:db8::/32",
    "3fff::/20",
    "2001:2::/48",
    "100::/64",
    "100:0:0:1::/64",
  ],
  // The remaining ranges of IANA's special-purpose registries. Some of these IPv6 ranges embed IPv4 addresses (6to4, Teredo), and
  // are refused as a whole. Only for the two ranges of `embeddedIPv4`, the embedded address is checked instead.
  ["a reserved address", "192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"],
  ["a reserved address", "192.175.48.0/24", "240.0.0.0/4"],
  ["a reserved address", "2001::/23", "2002::/16", "2620:4f:8000::/48"],
];

const globalUnicast = new BlockList();
globalUnicast.addSubnet("2000::", 3, "ipv6");

const lists = reasons.map(([reason, ...subnets]) => {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [network = "", bits] = subnet.split("/");
    list.addSubnet(network, Number(bits), network.includes(":") ? "ipv6" : "ipv4");
  }
  return { reason, list };
});

/** Why a sandbox may not connect to an IP address, as words that follow "is"; undefined if the address is allowed. */
export function refusedAddress(address: string): string | undefined {
  const plain = address.split("%", 1)[0] ?? "";
  const family = isIP(plain);
  if (family === 0) return "not an IP address";
  const embedded = family === 6 ? embeddedIPv4(expand(plain)) : undefined;
  if (embedded !== undefined) return refusedAddress(embedded);
  const type = family === 6 ? "ipv6" : "ipv4";
  const hit = lists.find(({ list }) => list.check(plain, type));
  if (hit !== undefined) return hit.reason;
  // All allocated internet addresses are in this range (RFC 4291, 2.4).
  if (family === 6 && !globalUnicast.check(plain, "ipv6")) return "a reserved address";
  return attachedNetworks().find(({ list }) => list.check(plain, type))?.reason;
}

/** What a name stands for, if it is refused before it is resolved; otherwise undefined. */
export function refusedName(name: string): string | undefined {
  if (name === "localhost" || name.endsWith(".localhost") || name === "localhost.localdomain") {
    return "this machine's loopback";
  }
  if (name === "metadata.google.internal" || name === "metadata.goog") return "a cloud metadata service";
  return undefined;
}

/**
 * Why a sandbox may not connect to a name that only the host's proxy can resolve: the name has no dot, or is outside the public
 * DNS. Undefined if the name is allowed. See RFC 6761, 6762, 8375, 9476, and the names that ICANN reserves.
 */
export function refusedPrivateName(name: string): string | undefined {
  const last = name.slice(name.lastIndexOf(".") + 1);
  // A proxy may ignore dots at the end, and resolve `nas.local.` as `nas.local`.
  return !name.includes(".") ||
    last === "" ||
    privateDomains.has(last) ||
    name === "home.arpa" ||
    name.endsWith(".home.arpa")
    ? "a name of a private network"
    : undefined;
}

const privateDomains = new Set(
  "local localdomain internal intranet private corp home lan alt onion invalid test example".split(" "),
);

/** The IPv4 address inside an IPv4-mapped (::ffff:0:0/96) or NAT64 (64:ff9b::/96) address. */
function embeddedIPv4(groups: string[]): string | undefined {
  const head = groups.slice(0, 6).join(":");
  if (head !== "0:0:0:0:0:ffff" && head !== "64:ff9b:0:0:0:0") return undefined;
  const [high = "0", low = "0"] = groups.slice(6);
  const value = Number.parseInt(high, 16) * 65536 + Number.parseInt(low, 16);
  return [24, 16, 8, 0].map((shift) => Math.floor(value / 2 ** shift) % 256).join(".");
}

/** The eight groups of an IPv6 address. */
export function expand(address: string): string[] {
  const hostname = new URL(`http://[${address}]`).hostname.slice(1, -1);
  const [left = "", right] = hostname.split("::");
  const head = left === "" ? [] : left.split(":");
  const tail = right === undefined || right === "" ? [] : right.split(":");
  return [...head, ...Array<string>(8 - head.length - tail.length).fill("0"), ...tail];
}
