/** A person decides which hosts a sandbox may reach, on a page that the client opens (elicitation in the mode `url`). */
import { afterEach, describe, expect, it, vi } from "vitest";
import { AccountLink } from "../../../src/actors/account-link.ts";
import type { Env } from "../../../src/shared/config.ts";
import { Browser, panelBrowser, panelBrowserOfGitHub } from "../auth/support.ts";
import { TOKEN } from "../server/support.ts";
import { ORIGIN, principal, sleep, until } from "../support.ts";
import {
  type Elicitation,
  OPENS_URLS,
  app,
  appOf,
  callLegacy,
  elicitationIn,
  owner,
} from "./elicited-pages.ts";

/** The outcome of a call of configure_sandbox in a client that opens addresses. */
function configure(
  sandbox: string,
  args: object,
  { by = owner, capabilities = OPENS_URLS as object, more = {} } = {},
) {
  const params = { name: "configure_sandbox", arguments: { sandbox, ...args }, ...more };
  return by.sendModern("tools/call", params, {}, capabilities);
}

async function hostsOf(sandbox: string): Promise<unknown> {
  return (await owner.call("configure_sandbox", { sandbox })).structured.allow_hosts;
}

/** A sandbox that can reach one host. */
async function createLimited(sandbox: string): Promise<string> {
  await owner.call("configure_sandbox", { sandbox, allow_hosts: ["one.example.com"] });
  return sandbox;
}

const TWO = { allow_hosts: ["one.example.com", "two.example.com"] };

function decide(browser: Browser, url: string, decision: "allow" | "refuse", headers = { origin: ORIGIN }) {
  return browser.open(`${url}?decision=${decision}`, { method: "POST", headers });
}

/** Lets changes of settings wait at the account. */
function holdSettings() {
  const { recordSettings } = AccountLink.prototype;
  const { promise: mayGoOn, resolve: goOn } = Promise.withResolvers<void>();
  const recording = vi.spyOn(AccountLink.prototype, "recordSettings");
  recording.mockImplementation(async function (this: AccountLink, ...settings) {
    await mayGoOn;
    return recordSettings.apply(this, settings);
  });
  return { recording, goOn };
}

afterEach(() => void vi.restoreAllMocks());

/** Allows one change, and refuses the same or another while the first decision takes effect. */
async function allowThenRefuse(allowedURL: string, refusedURL: string): Promise<[string, number]> {
  const browser = await panelBrowser(app);
  const { recording, goOn } = holdSettings();
  const allowed = decide(browser, allowedURL, "allow");
  await until(() => recording.mock.calls.length > 0);
  const refused = decide(browser, refusedURL, "refuse");
  await sleep(500);
  goOn();
  return [(await allowed).text, (await refused).status];
}

describe("a call that lets a sandbox reach more hosts", () => {
  it("asks the person, and makes the change after the person allows it", async () => {
    const sandbox = await createLimited("decide-allow");
    const { url, message } = elicitationIn(await configure(sandbox, TWO));
    expect(message).toContain("two.example.com");
    expect(url).not.toContain("two.example.com");
    expect(await hostsOf(sandbox)).toEqual(["one.example.com"]);
    // The client calls again after its user opened the page, and that call waits for the decision.
    const repeated = configure(sandbox, TWO);
    const browser = await panelBrowser(app);
    const page = await browser.open(url);
    expect(page.text).toContain(sandbox);
    expect(page.text).toContain("two.example.com");
    expect(page.response.headers.get("cross-origin-opener-policy")).toBe("same-origin");
    expect((await decide(browser, url, "allow")).text).toContain("Allowed");
    expect(JSON.stringify((await repeated).result)).toContain("two.example.com");
    expect(await hostsOf(sandbox)).toEqual(TWO.allow_hosts);
    expect((await decide(browser, url, "allow")).status).toBe(404);
  });

  it("answers every waiting call at the decision, also if another call stopped waiting before", async () => {
    const sandbox = await createLimited("decide-twice");
    const { url } = elicitationIn(await configure(sandbox, TWO));
    const repeated = configure(sandbox, TWO);
    elicitationIn(await configure(sandbox, TWO, { by: owner.withVariables({ MAX_WAIT_SECONDS: "1" }) }));
    await decide(await panelBrowser(app), url, "allow");
    const answer = await Promise.race([repeated, sleep(40_000)]);
    expect(JSON.stringify(answer?.result)).toContain("two.example.com");
  });

  it("changes nothing if the person refuses, and later calls get that answer", async () => {
    const sandbox = await createLimited("decide-refuse");
    const { url } = elicitationIn(await configure(sandbox, TWO));
    const browser = await panelBrowser(app);
    expect((await decide(browser, url, "refuse")).text).toContain("Refused");
    const { result } = await configure(sandbox, TWO);
    expect(result).toMatchObject({ isError: true });
    expect(JSON.stringify(result)).toContain("did not allow");
    expect(await hostsOf(sandbox)).toEqual(["one.example.com"]);
    expect((await decide(browser, url, "allow")).status).toBe(404);
  });

  it("is refused if the person declines the question in the client", async () => {
    const sandbox = await createLimited("decide-decline");
    elicitationIn(await configure(sandbox, TWO));
    const more = { inputResponses: { decision: { action: "decline" } } };
    expect(JSON.stringify((await configure(sandbox, TWO, { more })).result)).toContain("did not allow");
  });

  it("is an error with the page's address for clients of 2025-11-25, and the change is made after the person allows it", async () => {
    const sandbox = await createLimited("decide-legacy");
    const responseText = await callLegacy("configure_sandbox", { sandbox, ...TWO });
    const { error } = JSON.parse(responseText.slice(responseText.indexOf("{"))) as {
      error: { code: number; data: { elicitations: Elicitation[] } };
    };
    expect(error.code).toBe(-32042);
    const [elicitation] = error.data.elicitations;
    expect(elicitation).toMatchObject({ mode: "url", elicitationId: expect.any(String) });
    expect((await decide(await panelBrowser(app), elicitation?.url ?? "", "allow")).status).toBe(200);
    expect(await hostsOf(sandbox)).toEqual(TWO.allow_hosts);
  });

  it("is not refused by a decision that follows while the first one takes effect", async () => {
    const sandbox = await createLimited("decide-both");
    const { url } = elicitationIn(await configure(sandbox, TWO));
    expect(await allowThenRefuse(url, url)).toEqual([expect.stringContaining("Allowed"), 404]);
    expect(await hostsOf(sandbox)).toEqual(TWO.allow_hosts);
  });

  it("cannot be refused any more once another decision has allowed the same", async () => {
    const sandbox = await createLimited("decide-larger");
    const { url } = elicitationIn(await configure(sandbox, TWO));
    const larger = { allow_hosts: [...TWO.allow_hosts, "three.example.com"] };
    const { url: urlOfLarger } = elicitationIn(await configure(sandbox, larger));
    expect(await allowThenRefuse(urlOfLarger, url)).toEqual([expect.stringContaining("Allowed"), 404]);
  });

  it("can be decided only by its principal, not by others with the link", async () => {
    const sandbox = await createLimited("decide-other");
    const { url } = elicitationIn(await configure(sandbox, TWO));
    const other = await panelBrowserOfGitHub((more) => appOf(more as Partial<Env>));
    const opened = await other.open(url);
    expect(opened.status).toBe(403);
    expect(opened.text).not.toContain("two.example.com");
    expect(opened.text).not.toContain(sandbox);
    expect((await decide(other, url, "allow")).status).toBe(403);
    // Without a session, and from another site's page.
    const stranger = new Browser(app);
    expect((await stranger.open(url)).response.headers.get("refresh")).toContain("?again");
    const page = await stranger.open(`${url}?again`);
    expect(page.status).toBe(401);
    expect(page.text).not.toContain("two.example.com");
    expect(page.text).toContain(`/panel/sign-in?to=${encodeURIComponent(new URL(url).pathname)}`);
    const decided = await decide(stranger, url, "allow");
    expect(decided.response.headers.get("refresh")).toContain("?again");
    expect(decided.text).not.toContain("Allowed");
    const owners = await panelBrowser(app);
    for (const origin of ["https://elsewhere.example", undefined])
      expect(
        (await decide(owners, url, "allow", { ...(origin && { origin }) } as { origin: string })).status,
      ).toBe(403);
    const forged = url.replace(/.$/, (last) => (last === "A" ? "B" : "A"));
    expect((await decide(owners, forged, "allow")).status).toBe(404);
    expect(await hostsOf(sandbox)).toEqual(["one.example.com"]);
  });

  it("makes the change that the person saw, even if other calls changed the policy since", async () => {
    const sandbox = await createLimited("decide-since");
    await configure(sandbox, { internet: "none" });
    const { url } = elicitationIn(await configure(sandbox, { internet: "allowlist" }));
    const browser = await panelBrowser(app);
    expect((await browser.open(url)).text).toContain("one.example.com");
    // This call allows no host, so the server asks nobody.
    await configure(sandbox, { internet: "none", allow_hosts: ["evil.example.com"] });
    await decide(browser, url, "allow");
    expect(await hostsOf(sandbox)).toEqual(["one.example.com"]);
  });

  it("does not allow a new host by two simultaneous calls that each allow none", async () => {
    const sandbox = await createLimited("decide-together");
    await Promise.all([
      configure(sandbox, { internet: "none", allow_hosts: ["evil.example.com"] }),
      configure(sandbox, { internet: "allowlist" }),
    ]);
    expect(await hostsOf(sandbox)).not.toContain("evil.example.com");
  });

  it("asks the person, also if another call restricts the sandbox at the same time", async () => {
    const sandbox = "decide-restricted";
    const { recording, goOn } = holdSettings();
    const restricted = configure(sandbox, { internet: "none" });
    await until(() => recording.mock.calls.length > 0);
    const widened = configure(sandbox, { internet: "full" });
    await sleep(500);
    goOn();
    expect(JSON.stringify((await restricted).result)).toContain("internet: none");
    expect(JSON.stringify((await widened).result)).toContain("restricted the network");
    elicitationIn(await configure(sandbox, { internet: "full" }));
    expect((await owner.call("configure_sandbox", { sandbox })).structured.internet).toBe("none");
  });

  it("leads back to the question after the sign-in, and to no other address", async () => {
    const { url } = elicitationIn(await configure(await createLimited("decide-sign-in"), TWO));
    const browser = new Browser(app);
    const signIn = async (to: string) => {
      const start = await browser.open(`${ORIGIN}/panel/sign-in?to=${encodeURIComponent(to)}`);
      const consent = await browser.open(start.location?.href ?? "");
      const approved = await browser.submit(consent, { decision: "owner", token: TOKEN });
      return (await browser.open(approved.location?.href ?? "")).location?.href;
    };
    const hosts = `${ORIGIN}/panel/git`;
    for (const at of [url, hosts, `${hosts}/git.example.com`])
      expect(await signIn(at.slice(ORIGIN.length))).toBe(at);
    for (const to of [
      "https://elsewhere.example/",
      "//elsewhere.example",
      "/mcp",
      "/panel/decision/../../mcp",
      "/panel/git/a/b",
    ])
      expect(await signIn(to)).toBe(`${ORIGIN}/panel`);
  });

  it("takes effect at once if the client cannot ask, nobody could sign in, or it allows no new host", async () => {
    const sandbox = await createLimited("decide-plain");
    expect((await configure(sandbox, { internet: "none" })).result).toMatchObject({ resultType: "complete" });
    const form = { elicitation: { form: {} } };
    const { result } = await configure(sandbox, TWO, { capabilities: form });
    expect(JSON.stringify(result)).toContain("two.example.com");
    const token = await principal("decider", ["sandbox:exec"]);
    await token.call("configure_sandbox", { sandbox, internet: "none" });
    const byToken = await configure(sandbox, TWO, { by: token.withVariables({ PUBLIC_ORIGIN: ORIGIN }) });
    expect(JSON.stringify(byToken.result)).toContain("two.example.com");
  });
});
