/** The addresses that the engine never connects to, also when this machine uses a proxy. These tests need no sandbox. */
import { execFileSync } from "node:child_process";
import { lookup } from "node:dns/promises";
import { createServer } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { refusedAddress } from "../../local/engine/addresses.ts";
import { attachedNetworksOf } from "../../local/engine/attached.ts";
import { connectUpstream, hostProxy } from "../../local/engine/upstream.ts";
import { upstreamTo } from "../setup/egress.ts";
import { endLater } from "../setup/end-later.ts";
import { listen } from "../setup/listen.ts";
import { repository } from "../setup/server.ts";

describe("the engine refuses connections", () => {
  it("to private, link-local, metadata and other special addresses", () => {
    const table: Record<string, RegExp> = {
      "10.1.2.3": /private/,
      "172.16.0.1": /private/,
      "172.31.255.255": /private/,
      "192.168.1.1": /private/,
      "100.64.0.1": /carrier/,
      "100.127.255.255": /carrier/,
      "169.254.169.254": /metadata/,
      "168.63.129.16": /metadata/,
      "169.254.1.1": /link-local/,
      "224.0.0.1": /multicast/,
      "255.255.255.255": /reserved/,
      "0.1.2.3": /unspecified/,
      "198.18.0.1": /tests/,
      "198.19.255.255": /tests/,
      "192.0.2.1": /tests/,
      "198.51.100.1": /tests/,
      "203.0.113.255": /tests/,
      "2001:db8::1": /tests/,
      "3fff:fff::1": /tests/,
      "100::1": /tests/,
      "192.31.196.1": /reserved/,
      "192.52.193.1": /reserved/,
      "192.175.48.1": /reserved/,
      "2620:4f:8000::1": /reserved/,
      "5f00::1": /reserved/,
      "4000::1": /reserved/,
      "::5": /reserved/,
      "fe80::1": /link-local/,
      "fe80::1%eth0": /link-local/,
      "fd00:ec2::254": /metadata/,
      "fc00::1": /private/,
      "ff02::1": /multicast/,
      "::ffff:10.0.0.1": /private/,
      "64:ff9b::a00:1": /private/,
      "64:ff9b:1::1": /reserved/,
      "2002:7f00:1::": /reserved/,
      "2001:0:1::1": /reserved/,
      nonsense: /not an IP/,
    };
    for (const [address, reason] of Object.entries(table))
      expect([address, refusedAddress(address)]).toEqual([address, expect.stringMatching(reason)]);
    for (const address of "1.1.1.1 172.15.0.1 172.32.0.1 100.63.0.1 100.128.0.1 2606:4700::1111 ::ffff:8.8.8.8".split(
      " ",
    )) {
      expect([address, refusedAddress(address)]).toEqual([address, undefined]);
    }
    for (const local of Object.values(networkInterfaces()).flat())
      expect(refusedAddress(local?.address ?? "")).toBeDefined();
  });

  it("to any address that an interface or a route without a gateway leads to", () => {
    const face = { netmask: "", mac: "", internal: false };
    const interfaces = {
      eth0: [
        { ...face, address: "8.8.4.130", family: "IPv4" as const, cidr: "8.8.4.130/28" },
        {
          ...face,
          address: "2606:4700:1:2::5",
          family: "IPv6" as const,
          cidr: "2606:4700:1:2::5/64",
          scopeid: 0,
        },
      ],
    };
    const routes =
      "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n" +
      "eth0\t00000000\t81040808\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
      "eth1\t00000109\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n" +
      "tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n";
    const zero = "0".repeat(32);
    const route6 = (destination: string, bits: string, gateway: string, flags: string) =>
      `${destination} ${bits} ${zero} 00 ${gateway} 00000100 00000001 00000000 ${flags}     eth0\n`;
    const routes6 =
      route6("2a000001000200030000000000000000", "40", zero, "00000001") +
      route6("2a010000000000000000000000000000", "20", "fe800000000000000000000000000001", "00000003") +
      route6(zero, "00", zero, "00200200");
    const attached = attachedNetworksOf(interfaces, routes, routes6);
    const refusalOf = (address: string) =>
      attached.find(({ list }) => list.check(address, address.includes(":") ? "ipv6" : "ipv4"))?.reason;
    expect(refusalOf("8.8.4.130")).toContain("of this machine");
    for (const neighbour of ["8.8.4.129", "9.1.255.1", "2606:4700:1:2::1", "2a00:1:2:3::99"])
      expect([neighbour, refusalOf(neighbour)]).toEqual([neighbour, expect.stringContaining("attached to")]);
    for (const publicAddress of ["8.8.4.1", "8.8.8.8", "9.2.0.1", "64.0.0.1", "2606:4700:1:3::1", "2a01::1"])
      expect([publicAddress, refusalOf(publicAddress)]).toEqual([publicAddress, undefined]);
    for (const local of Object.values(networkInterfaces()).flat())
      expect(refusedAddress(local?.address ?? "")).toBeDefined();
  });

  it("through the host's proxy to a name of a private network, to a refused address, or to a name that resolves to one", async () => {
    const options = {
      allowAddresses: new Map(),
      env: { HTTPS_PROXY: "http://127.0.0.1:9" },
      resolve: async (host: string) => {
        if (host === "known.example.com") return ["192.168.1.1"];
        if (host === "") return (await lookup(host, { all: true })).map(({ address }) => address);
        throw new Error("no name server");
      },
    };
    for (const [host, reason] of [
      ["known.example.com", "private address"],
      ["192.168.1.1", "private address"],
      ["fd00::1", "private address"],
      ["printer", "private network"],
      ["nas.local", "private network"],
      ["router.home.arpa", "private network"],
      ["git.corp", "private network"],
      ["metadata.google.internal.", "private network"],
      // What remains of the name ".", without its final dot.
      ["", "private network"],
    ] as const)
      await expect(connectUpstream(host, 443, options)).rejects.toThrow(reason);
    await expect(connectUpstream("far.example.com", 443, options)).rejects.toThrow(
      // The message does not contain the proxy's address.
      /proxy could not be reached \(ECONNREFUSED\)$/,
    );
  });

  it("to an address of this machine that Node does not list", () => {
    const program = `
      import { createServer } from "node:net";
      import { connectUpstream } from ${JSON.stringify(join(repository, "local/engine/upstream.ts"))};
      const server = createServer((socket) => socket.destroy()).listen(0, "0.0.0.0", async () => {
        const options = { allowAddresses: new Map(), env: {}, resolve: async () => ["11.22.33.44"] };
        const connecting = connectUpstream("own.test", server.address().port, options);
        console.log(await connecting.then(() => "connected", (error) => error.message));
        process.exit();
      });
    `;
    // The new network namespace has the loopback device only, and such a route as load balancers need on their hosts.
    const script =
      'ip link set lo up && ip route add local 11.22.33.44/32 dev lo && exec "$0" --input-type=module --eval "$1"';
    const words = ["--user", "--map-root-user", "--net", "sh", "-c", script, process.execPath, program];
    const printed = execFileSync("unshare", words, { encoding: "utf8" });
    expect(printed).toBe("own.test (11.22.33.44) is an address of this machine\n");
  });

  it("to a name that has a refused address, and looks the name up only once", async () => {
    const resolved = [["1.1.1.1", "127.0.0.1"], ["10.0.0.1"]];
    let lookups = 0;
    const options = { ...upstreamTo(), resolve: async () => resolved[lookups++] ?? [] };
    await expect(connectUpstream("mixed.test", 80, options)).rejects.toThrow(
      "mixed.test (127.0.0.1) is a loopback address",
    );
    await expect(connectUpstream("private.test", 80, options)).rejects.toThrow(
      "private.test (10.0.0.1) is a private address",
    );
    expect(lookups).toBe(2);
  });
});

it("the engine uses the host's proxy with its credentials, except for the hosts in NO_PROXY", async () => {
  const heads: string[] = [];
  const proxy = createServer((socket) => {
    socket.once("data", (chunk) => {
      heads.push(chunk.toString());
      socket.write("HTTP/1.1 200 OK\r\n\r\n");
    });
  });
  const port = await listen(endLater(proxy));
  const env = {
    HTTPS_PROXY: `http://me:s%40cret@127.0.0.1:${port}`,
    NO_PROXY: "direct.test,.inside.test",
  };
  const options = { allowAddresses: new Map(), env, resolve: async () => ["1.1.1.1"] };
  const socket = await connectUpstream("far.test", 443, options);
  socket.destroy();
  expect(heads[0]).toContain("CONNECT far.test:443 HTTP/1.1");
  expect(heads[0]).toContain(`Basic ${Buffer.from("me:s@cret").toString("base64")}`);
  expect(hostProxy("a.inside.test", env)).toBeUndefined();
  expect(hostProxy("direct.test", env)).toBeUndefined();
  await expect(connectUpstream("127.0.0.1", 80, options)).rejects.toThrow("loopback");
});
