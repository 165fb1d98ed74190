/**
 * The networks that this machine is attached to. Sandboxes may not reach the other hosts in these networks, because no firewall
 * protects these hosts from this machine. This includes hosts with a public address: in home networks, every device has a public
 * IPv6 address.
 */
import { BlockList } from "node:net";
import { networkInterfaces } from "node:os";
import { readText } from "./host-files.ts";

interface AttachedNetworks {
  reason: string;
  list: BlockList;
}

/** A route with fewer prefix bits leads to the internet through a tunnel, not to hosts nearby. */
const minPrefixBits = { ipv4: 8, ipv6: 16 } as const;
/** How long a result is cached, in milliseconds. The time is short, because a laptop changes networks. */
const cacheMs = 1000;

let cached: { attached: AttachedNetworks[]; until: number } | undefined;

export function attachedNetworks(): AttachedNetworks[] {
  if (cached !== undefined && performance.now() < cached.until) return cached.attached;
  const attached = attachedNetworksOf(
    networkInterfaces(),
    readText("/proc/net/route"),
    readText("/proc/net/ipv6_route"),
  );
  cached = { attached, until: performance.now() + cacheMs };
  return attached;
}

export function attachedNetworksOf(
  interfaces: ReturnType<typeof networkInterfaces>,
  routes: string,
  routes6: string,
): AttachedNetworks[] {
  const ownAddresses = new BlockList();
  const networks = new BlockList();
  const add = (network: string, bits: number, family: "ipv4" | "ipv6") => {
    if (bits >= minPrefixBits[family]) networks.addSubnet(network, bits, family);
  };
  for (const { address, cidr, family } of Object.values(interfaces).flatMap((all) => all ?? [])) {
    const type = family === "IPv6" ? "ipv6" : "ipv4";
    // A service bound to all interfaces is reachable at the host's public addresses too.
    ownAddresses.addAddress(address, type);
    add(address, Number(cidr?.split("/")[1] ?? 128), type);
  }
  for (const line of routes.split("\n").slice(1)) {
    const [, destination = "", gateway, flags, , , , mask = ""] = line.split("\t");
    if (gateway !== "00000000" || !isDirect(flags)) continue;
    add(littleEndian(destination), countBits(mask), "ipv4");
  }
  for (const line of routes6.split("\n")) {
    const [destination = "", bits = "", , , gateway, , , , flags] = line.split(/\s+/);
    if (!/^0{32}$/.test(gateway ?? "") || !isDirect(flags)) continue;
    add(destination.replace(/(.{4})(?=.)/g, "$1:"), Number.parseInt(bits, 16), "ipv6");
  }
  return [
    { reason: "an address of this machine", list: ownAddresses },
    { reason: "in a network that this machine is attached to", list: networks },
  ];
}

/** Whether a route leads to a network of this machine: it has the flag RTF_UP, and neither RTF_GATEWAY nor RTF_REJECT. */
function isDirect(flags: string | undefined): boolean {
  return (Number.parseInt(flags ?? "0", 16) & 0x203) === 1;
}

/** Converts the kernel's form of an address: 0000A8C0 is 192.168.0.0. */
function littleEndian(hex: string): string {
  return (hex.match(/../g) ?? [])
    .toReversed()
    .map((byte) => Number.parseInt(byte, 16))
    .join(".");
}

function countBits(hex: string): number {
  return Number.parseInt(hex, 16).toString(2).replaceAll("0", "").length;
}
