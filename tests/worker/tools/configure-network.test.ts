/** The network settings of `configure_sandbox`, and the hosts that code in the sandbox can then reach. */
import { env } from "cloudflare:workers";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type NetworkHost, SandboxNetwork } from "../../../src/actors/network.ts";
import { Sandbox } from "../../../src/actors/sandbox.ts";
import type { NetworkPlatform } from "../../../src/actors/platform/platform.ts";
import {
  intercept as interceptHosts,
  OutboundHandlers,
} from "../../../src/actors/platform/outbound-handlers.ts";
import { SERVER_HOST } from "../../../container/sandboxd/protocol.ts";
import { MODEL_HOST } from "../../../src/shared/secrets.ts";
import { forwardByPolicy } from "../../../src/container/internet.ts";
import { type Env, parseConfig } from "../../../src/shared/config.ts";
import type { Connection, RefusedConnections } from "../../../src/shared/connection-log.ts";
import { ToolError } from "../../../src/shared/errors.ts";
import { networkLimits } from "../../../src/shared/network-limits.ts";
import type { Internet, NetworkPolicy } from "../../../src/shared/network-policy.ts";
import {
  callsIn,
  evict,
  runInActor,
  killContainer,
  owner,
  principal,
  sh,
  connectionsOf,
  until,
  untilStopped,
} from "../support.ts";
import { words } from "../../setup/words.ts";

const configure = (sandbox: string, more: Record<string, unknown> = {}) =>
  owner.call("configure_sandbox", { sandbox, ...more });

describe("configure_sandbox", () => {
  it("stores a list of hosts in its normal form, returns it, and accepts full access again", async () => {
    const sandbox = "net-kept";
    expect((await configure(sandbox)).structured).toMatchObject({ internet: "full", allow_hosts: [] });
    const allow_hosts = ["API.Example.com.", "*.Bücher.example", "packages"];
    const stored = {
      internet: "allowlist",
      allow_hosts: ["api.example.com", "*.xn--bcher-kva.example", "packages"],
    };
    expect((await configure(sandbox, { allow_hosts })).structured).toMatchObject(stored);
    await evict(sandbox);
    expect((await configure(sandbox, { env: { A: "1" } })).structured).toMatchObject(stored);
    const reader = await owner.call("list_sandboxes");
    expect(reader.structured.sandboxes).toContainEqual(expect.objectContaining({ name: sandbox, ...stored }));
    expect(reader.text).toMatch(new RegExp(`^${sandbox}: .*, internet allowlist$`, "m"));
    expect((await configure(sandbox, { internet: "full" })).structured).toMatchObject({ internet: "full" });
    await configure(sandbox, { internet: "none" });
    await owner.call("destroy_sandbox", { sandbox });
    expect((await configure(sandbox)).structured).toMatchObject({ internet: "full", allow_hosts: [] });
  });

  it("changes either all requested settings or none", async () => {
    const sandbox = "net-all";
    vi.spyOn(SandboxNetwork.prototype, "choiceAfter").mockImplementationOnce(() => {
      throw new ToolError("permission_denied", "The operator of this server does not allow that.", "");
    });
    const change = { env: { A: "1" }, internet: "none", setup: "true" };
    expect(await configure(sandbox, change)).toMatchObject({ isError: true });
    const nothing = { variables: [], setup: "none", internet: "full" };
    expect((await configure(sandbox)).structured).toMatchObject(nothing);
    const all = { variables: ["A"], setup: "due", internet: "none" };
    expect((await configure(sandbox, change)).structured).toMatchObject(all);
  });

  it.each(["https://example.com", "example.com:443", "0x7f.1", "a\u0000.example.com", "*"])(
    "refuses %j as a host with a readable error",
    async (host) => {
      const { isError, text } = await configure("net-kept", { allow_hosts: [host] });
      expect(isError).toBe(true);
      expect(text).toMatch(/allow_hosts.*(is not a host|is an address)/s);
    },
  );
});

describe("a sandbox's policy", () => {
  it("applies at once to a running kernel, and the result names the refused host and the call that allows it", async () => {
    const sandbox = "net-none";
    const ask =
      "import urllib.request as r\ntry: r.urlopen('http://refused.example.com/')\nexcept Exception as e: print(e)";
    expect((await callsIn(sandbox).code(ask)).text).not.toContain("were refused");
    await configure(sandbox, { allow_hosts: ["kept.example.com"] });
    const { text } = await callsIn(sandbox).code(ask);
    expect(text).toContain("403");
    expect(text).toContain("connections to refused.example.com were refused.");
    expect(text).toContain('configure_sandbox with allow_hosts ["kept.example.com","refused.example.com"]');
    const command = await callsIn(sandbox).command("curl -sS https://other.example.com/ || true");
    expect(command.structured.notice).toContain("connections to other.example.com were refused.");
    expect((await callsIn(sandbox).command("true")).structured.notice).toBeUndefined();
  });

  it.each([
    ["10.0.0.1", "full", "connections to 10.0.0.1 were refused. allow_hosts cannot allow 10.0.0.1"],
    ["metadata.goog", "allowlist", "connections to metadata.goog were refused. allow_hosts cannot allow"],
    ["nobody.invalid", "full", "names could not be resolved: nobody.invalid."],
    ["nobody.invalid", "allowlist", "names could not be resolved: nobody.invalid."],
  ])("names %s with internet %s in the result of a run that fails", async (host, internet, note) => {
    const sandbox = `net-failed-${internet}`;
    await configure(sandbox, { internet, ...(internet === "allowlist" && { allow_hosts: [host] }) });
    const { structured } = await callsIn(sandbox).command(`curl -sS --noproxy '' https://${host}/`);
    expect(structured).toMatchObject({ state: "failed", notice: expect.stringContaining(note) });
  });

  it("suggests a valid call for a refused host, or no call", async () => {
    const sandbox = "net-none";
    const noteOn = async (hosts: string[]) => {
      const requests = hosts.map((host) => `curl -sg -o /dev/null --noproxy '' 'http://${host}/';`).join(" ");
      return String((await callsIn(sandbox).command(`${requests} true`)).structured.notice);
    };
    const suggestedBy = (note: string) =>
      JSON.parse(/configure_sandbox with allow_hosts (\[.*?\])\./.exec(note)?.[1] ?? "[]") as string[];
    await configure(sandbox, { internet: "none" });
    for (const hosts of [
      ["A.Example.COM.", "com", "packages", "93.184.215.14", "[2606:4700:4700::1111]"],
      ["1.1", "_dmarc.example.com", "xn--bcher-kva.example", "0x7f.1", "metadata.google.internal"],
      ["*.com", "b.packages", `${"x".repeat(64)}.example.com`, "c..example.com", "-d.example.com"],
    ]) {
      const allow_hosts = suggestedBy(await noteOn(hosts));
      const { isError, structured } = await configure(sandbox, { allow_hosts });
      expect(isError).toBeFalsy();
      expect(structured.allow_hosts).toEqual(allow_hosts);
    }
    expect((await configure(sandbox)).structured.allow_hosts).toEqual(
      words(`
      a.example.com 93.184.215.14 2606:4700:4700::1111 1.0.0.1 _dmarc.example.com xn--bcher-kva.example
      b.packages
    `),
    );
    const full = Array.from({ length: 99 }, (_, index) => `h${index}.example.com`);
    await configure(sandbox, { allow_hosts: full });
    const one = suggestedBy(await noteOn(["one.example.com"]));
    expect((await configure(sandbox, { allow_hosts: one })).structured.allow_hosts).toHaveLength(100);
    const note = await noteOn(["two.example.com", "three.example.com"]);
    expect(suggestedBy(note)).toEqual([]);
    expect(note).toContain(
      "To allow two.example.com, three.example.com: allow_hosts takes at most 100 hosts. Remove 2 others first.",
    );
  });

  it("applies in the next container, and a resource lists the sandbox's connections", async () => {
    const sandbox = "net-again";
    await configure(sandbox, { internet: "none" });
    const command = "curl -s -o /dev/null -w '%{http_code}' http://first.example.com/";
    expect((await callsIn(sandbox).command(command)).structured.stdout).toBe("403");
    // The engine lists a connection after its end, and forgets the connections of a killed container.
    await until(async () => (await connectionsOf(sandbox)).includes("first.example.com"));
    await killContainer(sandbox);
    expect((await callsIn(sandbox).command(command.replace("first", "second"))).structured.stdout).toBe(
      "403",
    );
    const head = (refused: number) =>
      `# internet none\n# refused ${refused}\n# time host port method status bytes secret\n`;
    const line = (host: string) => String.raw`\S+Z ${host}\.example\.com 80 GET refused \d+ -\n`;
    const bothConnections = new RegExp(`^${head(2)}${line("first")}${line("second")}$`);
    expect(await connectionsOf(sandbox)).toMatch(bothConnections);
    await evict(sandbox);
    expect(await connectionsOf(sandbox)).toMatch(bothConnections);
    expect(await connectionsOf(sandbox, await principal("net-reader", ["sandbox:read"]))).toBe(
      head(0).replace("none", "full"),
    );
    await owner.call("destroy_sandbox", { sandbox });
    await configure(sandbox, { internet: "none" });
    expect(await connectionsOf(sandbox)).toBe(head(0));
  });
});

describe("a container with more access than allowed", () => {
  afterEach(() => vi.restoreAllMocks());

  /** Makes the platform respond like Cloudflare for containers that were started with direct internet access. */
  async function enforceBy(sandbox: string, enforce: (policy: NetworkPolicy) => Promise<boolean>) {
    const platform = await runInActor(sandbox, (actor) => actor["networkPlatform"]);
    vi.spyOn<NetworkPlatform, "enforce">(Object.getPrototypeOf(platform), "enforce").mockImplementation(
      enforce,
    );
  }

  it("is saved and ended without a call when the operator restricts access", async () => {
    const sandbox = "net-lowered";
    await sh(sandbox, "echo kept > file");
    let isLowered = true;
    await enforceBy(sandbox, async () => !isLowered);
    await evict(sandbox);
    // This wakes the next actor.
    await untilStopped(sandbox);
    isLowered = false;
    const { structured } = await callsIn(sandbox).command("cat file");
    expect(structured).toMatchObject({ stdout: "kept\n" });
    expect(structured.notice).toContain("to restrict its network");
  });

  it("is also ended if the policy was restricted during its start", async () => {
    const sandbox = "net-meanwhile";
    await configure(sandbox);
    const [starting, chosen] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await enforceBy(sandbox, async ({ internet }) => {
      starting.resolve();
      await chosen.promise;
      return internet === "full";
    });
    const first = callsIn(sandbox).command("sleep 30");
    await starting.promise;
    await configure(sandbox, { internet: "none" });
    chosen.resolve();
    expect((await first).text).toMatch(/to restrict its network|was destroyed/);
    await untilStopped(sandbox);
  });
});

const token = { name: "ci", sha256: "00", scopes: ["sandbox:exec"] as const };

/** A new network with the limits of this configuration. */
function network(
  config: Parameters<typeof networkLimits>[0],
  principalID = "token:ci",
  platform?: NetworkPlatform,
  {
    kept: storage = new Map<string, unknown>(),
    ...more
  }: Partial<NetworkHost> & { kept?: Map<string, unknown> } = {},
) {
  const enforced: NetworkPolicy[] = [];
  const kv = {
    get: <T>(key: string) => storage.get(key) as T | undefined,
    put: <T>(key: string, value: T) => void storage.set(key, value),
    delete: (key: string) => storage.delete(key),
  };
  const refused: RefusedConnections[] = [{ host: "x.example.com", why: "policy", count: 2 }];
  const platformStub: NetworkPlatform = {
    prepareStart: () => undefined,
    enforce: async (policy: NetworkPolicy) => (enforced.push(policy), true),
    connections: async () => [],
    forget: () => undefined,
    refusalsSince: async () => refused,
  };
  return {
    enforced,
    refused,
    network: new SandboxNetwork({
      kv,
      platform: platform ?? platformStub,
      limits: () => networkLimits(config, principalID),
      principalID: () => principalID,
      secretHosts: () => [],
      gitHosts: () => [],
      background: (work) => void work.catch(() => undefined),
      intercept: async () => undefined,
      ...more,
    }),
  };
}

const noLimits = { initial: undefined, max: "full", allowHosts: [] } as const;

describe("a sandbox's network", () => {
  it("intercepts a new git host without sending all others again", async () => {
    let gitHosts = ["first.example"];
    const intercepted: number[] = [];
    const intercept = async (hosts: readonly string[]) => void intercepted.push(hosts.length);
    const hosts = { gitHosts: () => gitHosts, intercept };
    const config = { network: noLimits, authTokens: [] };
    const { network: ownNetwork } = network(config, undefined, undefined, hosts);
    ownNetwork.prepareStart();
    await ownNetwork.enforce();
    for (let n = 0; n < 50; n++) {
      // An account keeps 20 sign-ins.
      gitHosts = [...gitHosts.slice(-19), `invented-${n}.example`];
      await ownNetwork.enforce();
    }
    expect(new Set(intercepted)).toEqual(new Set([1]));
    expect(intercepted).toHaveLength(51);
  });

  it("gets its earlier policy again if a change has failed", async () => {
    let fails = false;
    const intercept = async () => {
      if (fails) throw new Error("the platform does not respond");
    };
    const hosts = { secretHosts: () => ["secret.example"], intercept };
    const config = { network: noLimits, authTokens: [] };
    const { network: ownNetwork, enforced } = network(config, undefined, undefined, hosts);
    ownNetwork.put({ internet: "none" });
    await ownNetwork.enforce();
    fails = true;
    ownNetwork.put({ internet: "full" });
    await expect(ownNetwork.enforce()).rejects.toThrow("does not respond");
    fails = false;
    ownNetwork.put({ internet: "none" });
    await ownNetwork.enforce();
    expect(enforced.map(({ internet }) => internet)).toEqual(["none", "full", "none"]);
  });

  it("is limited by MAX_INTERNET and ALLOW_HOSTS, even if an earlier setting was wider", async () => {
    const listed = { initial: undefined, max: "allowlist", allowHosts: ["*.example.com"] } as const;
    const { network: ownNetwork, refused } = network({ network: listed, authTokens: [] });
    expect(ownNetwork.policy).toEqual({ internet: "allowlist", allowHosts: ["*.example.com"] });
    expect(() => ownNetwork.choiceAfter({ internet: "full" })).toThrow("does not allow internet full");
    expect(() => ownNetwork.choiceAfter({ allowHosts: ["evil.test", "a.example.com"] })).toThrow(
      "allow evil.test, only",
    );
    ownNetwork.put(ownNetwork.choiceAfter({ allowHosts: ["a.example.com"] }));
    expect(ownNetwork.policy).toEqual({ internet: "allowlist", allowHosts: ["a.example.com"] });
    // A setting from a time with wider limits.
    ownNetwork.put({ internet: "allowlist", allowHosts: ["evil.test"] });
    expect(ownNetwork.policy).toEqual({ internet: "allowlist", allowHosts: [] });
    expect(await ownNetwork.refusalNote(0)).toContain('allow_hosts ["x.example.com"]');
    refused.push({ host: "evil.test", why: "policy", count: 1 });
    expect(await ownNetwork.refusalNote(0)).toMatch(
      /To allow x\.example\.com: .* The operator of this server does not allow evil\.test\.$/,
    );
  });

  it("is limited by the entry of the principal's token, within the limits for all", async () => {
    const closed = network({ network: noLimits, authTokens: [{ ...token, internet: "none" }] });
    expect(closed.network.policy.internet).toBe("none");
    expect(await closed.network.refusalNote(0)).toContain(
      "x.example.com (2 times) were refused. The operator of this server",
    );
    expect(() => closed.network.choiceAfter({ allowHosts: ["a.test.com"] })).toThrow("does not allow");
    const list = network({ network: noLimits, authTokens: [{ ...token, allowHosts: ["a.example.com"] }] });
    expect(list.network.policy).toEqual({ internet: "allowlist", allowHosts: ["a.example.com"] });
    const other = network({ network: noLimits, authTokens: [{ ...token, internet: "none" }] }, "token:other");
    expect(other.network.policy.internet).toBe("full");
    const wide = { ...token, internet: "full", allowHosts: ["b.example.com", "a.other.test"] } as const;
    const narrowed = network({
      network: { initial: "none", max: "allowlist", allowHosts: ["*.example.com"] },
      authTokens: [wide],
    });
    expect(narrowed.network.policy.internet).toBe("none");
    narrowed.network.put(narrowed.network.choiceAfter({ internet: "allowlist" }));
    expect(narrowed.network.policy.allowHosts).toEqual(["b.example.com"]);
  });

  it("has its initial policy from the server's variables", () => {
    const tokens = [
      {
        ...token,
        sha256: "0".repeat(64),
        internet: "allowlist",
        allow_hosts: ["packages", "API.example.com."],
      },
      { ...token, name: "closed", sha256: "1".repeat(64), internet: "none" },
    ];
    const variables = { MAX_INTERNET: "allowlist", ALLOW_HOSTS: "pypi.org, *.example.com" };
    const AUTH_TOKENS = JSON.stringify(tokens);
    const config = parseConfig({ ...variables, AUTH_TOKENS } as Env);
    const initialOf = (id: string) => networkLimits(config, id).initial;
    expect(initialOf("token:ci")).toEqual({
      internet: "allowlist",
      allowHosts: ["pypi.org", "api.example.com"],
    });
    expect(initialOf("token:closed").internet).toBe("none");
    expect(initialOf("owner")).toEqual({ internet: "allowlist", allowHosts: ["pypi.org", "*.example.com"] });
  });

  it("intercepts git hosts only if the container trusts the platform's certificates", async () => {
    const { actor } = cloudflare();
    const gitHosts: string[] = [];
    let intercepted: readonly string[] = [];
    const ownNetwork = network({ network: noLimits, authTokens: [] }, "owner", actor(), {
      gitHosts: () => gitHosts,
      intercept: async (hosts) => void (intercepted = hosts),
    }).network;
    ownNetwork.prepareStart();
    await ownNetwork.enforce();
    gitHosts.push("git.example.com");
    await ownNetwork.enforce();
    expect(intercepted).toEqual([]);
    ownNetwork.prepareStart();
    await ownNetwork.enforce();
    expect(intercepted).toEqual(["git.example.com"]);
  });

  it("follows the current policy for a host that had a secret when the container started", async () => {
    const intercepted: [readonly string[], string][] = [];
    const { actor } = cloudflare();
    const storage = new Map<string, unknown>();
    const networkWith = (secretHosts: string[]) =>
      network({ network: noLimits, authTokens: [] }, "owner", actor(), {
        kept: storage,
        secretHosts: () => secretHosts,
        intercept: async (hosts, { internet }) => void intercepted.push([hosts, internet]),
      }).network;
    const first = networkWith(["a.example.com"]);
    first.prepareStart();
    await first.enforce();
    const next = networkWith(["b.example.com"]);
    next.put({ internet: "none" });
    await next.enforce();
    next.prepareStart();
    await next.enforce();
    expect(intercepted).toEqual([
      [["a.example.com"], "full"],
      [["a.example.com", "b.example.com"], "none"],
      [["b.example.com"], "none"],
    ]);
  });

  it("adds a note to results with the reason for each refused connection", async () => {
    const { network: ownNetwork, refused } = network({ network: noLimits, authTokens: [] });
    ownNetwork.put({ internet: "allowlist", allowHosts: ["*.example.com"] });
    refused.splice(0, 1, { host: "a.example.com", port: 8443, why: "policy", count: 1 });
    expect(await ownNetwork.refusalNote(0)).toBe(
      "During this run, connections to a.example.com:8443 were refused. allow_hosts allows only the ports 80 and 443.",
    );
    refused.push({ host: "evil.test", why: "policy", count: 1 });
    expect(await ownNetwork.refusalNote(0)).toContain(
      'connections to a.example.com:8443, evil.test were refused. To allow evil.test: configure_sandbox with allow_hosts ["*.example.com","evil.test"]. allow_hosts allows',
    );
    const loopback = { host: "::ffff:7f00:1", why: "address", count: 1 } as const;
    // A refused name may look like an entry of allow_hosts. The note does not suggest it, because the entry would allow more
    // hosts.
    const entries = ["packages", "*.test"].map((host) => ({ host, why: "policy", count: 1 }) as const);
    refused.splice(0, 2, loopback, ...entries);
    expect(await ownNetwork.refusalNote(0)).toMatch(
      /\*\.test were refused\. allow_hosts cannot allow ::ffff:7f00:1, packages, \*\.test: sandboxes reach only hosts on the internet\.$/,
    );
    refused.splice(0, 3, { host: "a.example.com", why: "mismatch", count: 3 });
    expect(await ownNetwork.refusalNote(0)).toMatch(
      /a\.example\.com \(3 times\) were refused\. The host of the connection, the host name in the TLS handshake [^:]*$/,
    );
  });
});

/** The SDK and the storage of an actor on Cloudflare, which outlive the actor. */
function cloudflare() {
  const handlers: NetworkPolicy[] = [];
  const stored = new Map<string, unknown>();
  const kv = {
    get: <T>(key: string) => stored.get(key) as T | undefined,
    put: <T>(key: string, value: T) => void stored.set(key, value),
  };
  const sandbox = {
    isUp: false,
    enableInternet: true,
    interceptHttps: false,
    envVars: {},
    setOutboundHandler: async (_name: string, policy: NetworkPolicy) => void handlers.push(policy),
  };
  const actor = () => {
    sandbox.enableInternet = true;
    return new OutboundHandlers(sandbox, kv, {
      get isRunning() {
        return sandbox.isUp;
      },
    });
  };
  return { sandbox, handlers, actor };
}

describe("on Cloudflare", () => {
  it("a container intercepts at most 64 targets, and further hosts by one target for all", async () => {
    const { sandbox, actor } = cloudflare();
    const targets = new Set(["http-all", "https *"]);
    for (const host of [MODEL_HOST, SERVER_HOST]) targets.add(`http ${host}`).add(`https ${host}`);
    const container = {
      interceptOutboundHttp: async (host: string) => void targets.add(`http ${host}`),
      interceptOutboundHttps: async (host: string) => void targets.add(`https ${host}`),
      interceptAllOutboundHttp: async () => void targets.add("http-all"),
    };
    const context = { container, exports: { ContainerProxy: () => ({}) }, id: "an-actor" };
    const sent: string[][] = [];
    const gitHosts: string[] = [];
    const ownNetwork = network({ network: noLimits, authTokens: [] }, "owner", actor(), {
      gitHosts: () => gitHosts.slice(-20),
      secretHosts: () => ["secret.example"],
      intercept: (hosts, policy) => {
        sent.push([...hosts]);
        return interceptHosts(sandbox, context as never, hosts, policy, []);
      },
    }).network;
    ownNetwork.prepareStart();
    for (let n = 0; n < 40; n++) {
      gitHosts.push(`git-${n}.example`);
      await ownNetwork.enforce();
    }
    expect(targets.size).toBe(64);
    expect(sent).toHaveLength(29);
    expect(sent.at(-1)).toEqual(["*"]);
    // A new policy is for all of them.
    ownNetwork.put({ internet: "none" });
    await ownNetwork.enforce();
    expect(sent.at(-1)).toHaveLength(30);
    expect(targets.size).toBe(64);
  });

  it("an actor's class without outbound handlers is refused, because its requests would bypass every policy", async () => {
    class SandboxLarge extends Sandbox {}
    await runInActor("large", (_actor, ctx) => {
      expect(() => new SandboxLarge(ctx as DurableObjectState<{}>, env as Env)).toThrow(
        "handleOutbound(SandboxLarge)",
      );
    });
  });

  it("a restricted container reaches the internet only through the handler, and a container with direct access has to end", async () => {
    const { sandbox, handlers, actor } = cloudflare();
    const platform = actor();
    expect(await platform.enforce({ internet: "full", allowHosts: [] })).toBe(true);
    expect(handlers).toEqual([]);
    sandbox.isUp = true;
    const noInternet = { internet: "none", allowHosts: [] } as const;
    expect(await platform.enforce(noInternet)).toBe(false);
    expect(sandbox).toMatchObject({ enableInternet: false, interceptHttps: true });
    // The refusal lasts until that container has ended.
    expect(await actor().enforce(noInternet)).toBe(false);
    sandbox.isUp = false;
    platform.prepareStart();
    expect(await platform.enforce(noInternet)).toBe(true);
    sandbox.isUp = true;
    expect(await actor().enforce({ internet: "allowlist", allowHosts: ["a.example.com"] })).toBe(true);
    expect(handlers).toHaveLength(4);
  });

  it("the next actor can widen a policy too, and restrict it without a new start", async () => {
    const { sandbox, handlers, actor } = cloudflare();
    await actor().enforce({ internet: "none", allowHosts: [] });
    sandbox.isUp = true;
    expect(await actor().enforce({ internet: "full", allowHosts: [] })).toBe(true);
    expect(handlers.at(-1)?.internet).toBe("full");
    expect(await actor().enforce({ internet: "none", allowHosts: [] })).toBe(true);
  });

  it("a container has to end if it started with more access than the policy allows now, also if the policy changed shortly before or during the start", async () => {
    const { sandbox, actor } = cloudflare();
    const platform = actor();
    const { network: ownNetwork } = network({ network: noLimits, authTokens: [] }, "owner", platform);
    const begin = async (internet: Internet, isUp: boolean) => {
      ownNetwork.put({ internet });
      sandbox.isUp = isUp;
      return await ownNetwork.enforce();
    };
    expect(await begin("none", false)).toBe(true);
    expect(await begin("none", true)).toBe(true);
    expect(await begin("full", true)).toBe(true);
    // The next container starts with the policy that the platform received last.
    ownNetwork.prepareStart();
    expect(await begin("full", false)).toBe(true);
    expect(await begin("none", true)).toBe(false);
    ownNetwork.prepareStart();
    await begin("full", false);
    await begin("none", false);
    expect(await begin("none", true)).toBe(false);
  });

  it("the list of connections says which ones the platform does not report while the policy is restricted", async () => {
    const { network: ownNetwork } = network(
      { network: noLimits, authTokens: [] },
      "owner",
      cloudflare().actor(),
    );
    ownNetwork.put({ internet: "none" });
    expect(await ownNetwork.lines()).toMatch(/^# not listed: connections to ports other than 80 and 443/m);
    ownNetwork.put({ internet: "full" });
    expect(await ownNetwork.lines()).not.toContain("not listed");
  });

  it.each([
    ["http://evil.test/", {}],
    ["https://evil.test/", {}],
    ["http://good.example.com:8080/", {}],
    ["http://good.example.com/", { host: "evil.test" }],
    ["http://evil.test/", { host: "good.example.com" }],
    ["http://0x7f.1/", {}],
    ["http://[::ffff:1.1.1.1]/", {}],
    ["http://good.example.com..:80/", {}],
  ])("the handler does not forward %s with %j", async (url, headers) => {
    const reported: Connection[] = [];
    const actor = { connectionMade: async (connection: Connection) => void reported.push(connection) };
    const namespace = { idFromString: (id: string) => id, get: () => actor };
    const request = new Request(url, { headers });
    const policy: NetworkPolicy = { internet: "allowlist", allowHosts: ["good.example.com"] };
    const response = await forwardByPolicy(request, { Sandbox: namespace } as unknown as Env, "x", policy);
    expect(response.status).toBe(403);
    expect(reported).toHaveLength(1);
    expect(reported[0]?.refused).toBeDefined();
  });
});
