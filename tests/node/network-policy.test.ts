import * as fc from "../setup/chance.ts";
import { describe, expect, it } from "vitest";
import {
  INTERNET,
  type NetworkPolicy,
  PACKAGES,
  PACKAGE_HOSTS,
  allowsHost,
  entriesBeyond,
  narrow,
  parseHostEntry,
} from "../../src/shared/network-policy.ts";

/** Only a few labels, so that entries often match hosts. */
const label = fc.constantFrom("a", "b", "c");
const name = fc.array(label, { minLength: 2, maxLength: 4 }).map((labels) => labels.join("."));
const entry = fc.oneof(
  name,
  name.map((below) => `*.${below}`),
  fc.constantFrom(PACKAGES, "*.com", "pypi.org", "*.github.com", "*.githubusercontent.com", "192.0.2.1"),
);
const policy: fc.Arbitrary<NetworkPolicy> = fc.record({
  internet: fc.constantFrom(...INTERNET),
  allowHosts: fc.array(entry, { maxLength: 5 }),
});
const host = fc.oneof(
  name,
  fc.constantFrom(...PACKAGE_HOSTS, "raw.githubusercontent.com", "192.0.2.1", "x.github.com", "github.com"),
);

describe("the limit of a policy", () => {
  it("leaves exactly the hosts that both allow", () => {
    fc.assert(
      fc.property(policy, policy, host, (one, other, to) => {
        expect(allowsHost(narrow(one, other), to)).toBe(allowsHost(one, to) && allowsHost(other, to));
      }),
      { numRuns: 3000 },
    );
  });

  it("is kept by a list of hosts if none of its entries is reported as beyond the limit", () => {
    fc.assert(
      fc.property(fc.array(entry, { maxLength: 5 }), policy, host, (allowHosts, limit, to) => {
        fc.pre(entriesBeyond(allowHosts, limit).length === 0);
        const requested: NetworkPolicy = { internet: "allowlist", allowHosts };
        expect(allowsHost(requested, to) && !allowsHost(limit, to)).toBe(false);
      }),
      { numRuns: 1000 },
    );
  });
});

describe("an entry of allow_hosts", () => {
  it.each([
    ["API.Example.COM", "api.example.com"],
    ["api.example.com.", "api.example.com"],
    ["*.Example.com", "*.example.com"],
    ["bücher.example", "xn--bcher-kva.example"],
    ["_dmarc.example.com", "_dmarc.example.com"],
    ["packages", "packages"],
    ["192.0.2.7", "192.0.2.7"],
    ["2001:db8::7", "2001:db8::7"],
  ])("%s is kept as %s", (text, kept) => {
    expect(parseHostEntry(text)).toEqual({ entry: kept });
  });

  it.each([
    "",
    "*",
    "*.",
    "*.com",
    "localhost",
    "https://example.com",
    "example.com/path",
    "example.com:443",
    "example.com:80",
    "user@example.com",
    "example.com?x",
    "exa mple.com",
    "example.com\u0000.evil.test",
    "example.com\t",
    "ex%61mple.com",
    "a..example.com",
    "example.com..",
    "a.*.example.com",
    "*.*.example.com",
    `${"a".repeat(64)}.example.com`,
    `${"a.".repeat(127)}com`,
    "127.1",
    "0x7f.0.0.1",
    "2130706433",
    "017700000001",
    "192.0.2.007",
    "192.0.2.7.",
    "*.192.0.2.7",
    "[2001:db8::7]",
    "2001:DB8::7",
    "2001:db8:0::7",
    "１２７.0.0.1",
  ])("%j is refused", (text) => {
    expect(parseHostEntry(text)).toHaveProperty("problem");
  });
});
