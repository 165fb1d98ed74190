/** Signing in with GitHub and with Cloudflare Access, over real sockets: the Worker, GitHub and the team's keys are servers. */
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { CLIENT_ID, CLIENT_SECRET, type FakeGitHub, startGitHub } from "../setup/github.ts";
import { type App, Browser, CALLBACK, Client, type Page, type Tokens } from "../setup/oauth-client.ts";
import { listen, type OAuthServer, OWNER_TOKEN, startOAuthServer } from "../setup/oauth-server.ts";

const web: App = (url, init) => fetch(url, init);

/** What was logged from here on of sign-ins. */
function signInsOf(server: OAuthServer): () => Record<string, unknown>[] {
  const before = server.logs().length;
  return () =>
    server
      .logs()
      .slice(before)
      .filter(({ event }) => event === "sign_in");
}

/** A browser before the page of a new client. */
async function consent({ origin }: OAuthServer, headers: Record<string, string> = {}) {
  const client = await Client.register(web, {}, origin);
  const browser = new Browser(web);
  const page = await browser.open(await client.authorizationURL(), { headers });
  return { client, browser, page };
}

/** The principal the server takes the holder of this code for. */
async function principalOf(server: OAuthServer, client: Client, done: Page): Promise<unknown> {
  const code = done.location?.searchParams.get("code") ?? "";
  const response = await client.exchange(code);
  expect(response.status).toBe(200);
  const tokens: Tokens = await response.json();
  expect(await list(server, tokens.access_token)).toBe(200);
  return server.logs().findLast(({ action }) => action === "use")?.principal;
}

async function list({ origin }: OAuthServer, token: string): Promise<number> {
  const response = await fetch(`${origin}/mcp`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      accept: "application/json, text/event-stream",
    },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/list" }),
  });
  await response.text();
  return response.status;
}

describe("GitHub", () => {
  let github: FakeGitHub;
  let server: OAuthServer;

  beforeAll(async () => {
    github = await startGitHub();
    server = await startOAuthServer({
      GITHUB_CLIENT_ID: CLIENT_ID,
      GITHUB_CLIENT_SECRET: CLIENT_SECRET,
      GITHUB_ALLOWED_USERS: "Octocat, id:77, collaborator",
      GITHUB_ALLOWED_ORG: "Acme",
      GITHUB_URL: github.origin,
      GITHUB_API_URL: github.origin,
    });
  });
  afterAll(async () => {
    await server?.close();
    github?.close();
  });
  beforeEach(() => {
    github.failure = "none";
    github.user = { id: 583231, login: "octocat" };
  });

  /** Approves and goes through GitHub; ends where the browser stops. */
  async function throughGitHub(fields: Record<string, string | string[]> = {}) {
    const { client, browser, page } = await consent(server);
    const away = await browser.submit(page, { decision: "github", ...fields });
    expect(away.status).toBe(303);
    expect(away.location?.origin).toBe(github.origin);
    const back = await new Browser(web).open(away.location?.href ?? "");
    return { client, browser, away, back, done: await browser.open(back.location?.href ?? "") };
  }

  it("lets in who is on the list, as the account of that number", async () => {
    const signIns = signInsOf(server);
    const { client, browser, away, done } = await throughGitHub();
    expect(Object.fromEntries(away.location?.searchParams ?? [])).toMatchObject({
      client_id: CLIENT_ID,
      redirect_uri: `${server.origin}/authorize/github`,
      scope: "read:org",
      code_challenge_method: "S256",
    });
    expect(done.status).toBe(303);
    expect(done.location?.href.startsWith(`${CALLBACK}?`)).toBe(true);
    expect(await principalOf(server, client, done)).toBe("github:583231");
    expect(browser.cookies.size).toBe(0);
    expect(signIns()).toMatchObject([{ outcome: "approved", door: "github", principal: "github:583231" }]);
  });

  it("grants what was ticked before", async () => {
    const { client, done } = await throughGitHub({ scope: ["sandbox:read"] });
    const response = await client.exchange(done.location?.searchParams.get("code") ?? "");
    expect(await response.json()).toMatchObject({ scope: "sandbox:read" });
  });

  it("lets in a number whatever its login, and active members of the organisation", async () => {
    github.user = { id: 77, login: "renamed" };
    const numbered = await throughGitHub();
    expect(await principalOf(server, numbered.client, numbered.done)).toBe("github:77");
    github.user = { id: 78, login: "member", orgs: { acme: "active" } };
    const member = await throughGitHub();
    expect(await principalOf(server, member.client, member.done)).toBe("github:78");
  });

  it.each([
    ["somebody else", { id: 5, login: "stranger" }],
    [
      "who is only invited to the organisation",
      { id: 6, login: "invited", orgs: { acme: "pending" as const } },
    ],
    ["a member of another organisation", { id: 7, login: "other", orgs: { acme2: "active" as const } }],
    ["whose login is a number on the list", { id: 8, login: "77" }],
  ])("does not let in %s, and says so", async (_, user) => {
    github.user = user;
    const signIns = signInsOf(server);
    const { done } = await throughGitHub();
    expect(done.status).toBe(403);
    expect(done.location).toBeUndefined();
    expect(done.text).toContain(`signed in to GitHub as ${user.login}`);
    expect(done.text).toContain("error=access_denied");
    expect(signIns()).toMatchObject([{ outcome: "refused", door: "github", reason: "not_allowed" }]);
  });

  it("does not let in who took over a login that was given up", async () => {
    github.user = { id: 100, login: "collaborator" };
    expect((await throughGitHub()).done.status).toBe(303);
    github.user = { id: 101, login: "Collaborator" };
    const signIns = signInsOf(server);
    expect((await throughGitHub()).done.status).toBe(403);
    expect(signIns()).toMatchObject([{ outcome: "refused", reason: "login_reassigned" }]);
    github.user = { id: 100, login: "collaborator" };
    expect((await throughGitHub()).done.status).toBe(303);
  });

  it("takes a refusal there for one here", async () => {
    github.user = undefined;
    const { done } = await throughGitHub();
    expect(done.status).toBe(400);
    expect(done.text).toContain("error=access_denied");
  });

  it("binds the way back to the browser that went", async () => {
    const { browser, page } = await consent(server);
    const away = await browser.submit(page, { decision: "github" });
    const back = (await new Browser(web).open(away.location?.href ?? "")).location?.href ?? "";
    const stranger = await new Browser(web).open(back);
    expect(stranger.status).toBe(400);
    expect(stranger.location).toBeUndefined();
    // It went through GitHub in the attacker's browser: in the victim's it is worth nothing either.
    const victim = await consent(server);
    await victim.browser.submit(victim.page, { decision: "github" });
    expect((await victim.browser.open(back)).status).toBe(400);
    expect((await browser.open(back)).status).toBe(303);
    expect((await browser.open(back)).status).toBe(400);
  });

  it("takes no state of its own making, and none of another kind", async () => {
    const { browser, page } = await consent(server);
    for (const state of ["", "x", page.handle]) {
      const answer = await browser.open(`${server.origin}/authorize/github?code=x&state=${state}`);
      expect(answer.status).toBe(400);
    }
    expect((await browser.submit(page, { decision: "owner", token: OWNER_TOKEN })).status).toBe(303);
  });

  it.each(["down", "garbage", "rate_limited"] as const)("says so when GitHub fails: %s", async (failure) => {
    github.failure = failure;
    const signIns = signInsOf(server);
    const { done } = await throughGitHub();
    expect(done.status).toBe(502);
    expect(done.text).toContain("GitHub did not say who you are");
    expect(signIns()).toMatchObject([{ outcome: "refused", door: "github", reason: "door_failed" }]);
    expect(server.logs().findLast(({ event }) => event === "error")).toMatchObject({ where: "github" });
  });

  it("does not take a refused question about membership for an answer", async () => {
    github.failure = "org_forbidden";
    github.user = { id: 78, login: "member", orgs: { acme: "active" } };
    expect((await throughGitHub()).done.status).toBe(403);
  });

  it("never gets a code twice, and keeps no secret of GitHub's in the log", async () => {
    github.asked = [];
    await throughGitHub();
    expect(github.asked.filter((path) => path === "/login/oauth/access_token")).toHaveLength(1);
    expect(JSON.stringify(server.logs())).not.toMatch(/gho_|github-client-secret/);
  });

  it("does not ask for a code that GitHub did not give", async () => {
    const { browser, page } = await consent(server);
    const away = await browser.submit(page, { decision: "github" });
    const state = away.location?.searchParams.get("state");
    const answer = await browser.open(`${server.origin}/authorize/github?code=made-up&state=${state}`);
    expect(answer.status).toBe(502);
  });
});

describe("Cloudflare Access", () => {
  const AUDIENCE = "audience-tag-of-the-application";
  const ISSUER = "https://team.cloudflareaccess.com";
  let keys: Awaited<ReturnType<typeof generateKeyPair>>;
  let others: Awaited<ReturnType<typeof generateKeyPair>>;
  let certs: Awaited<ReturnType<typeof listen>>;
  let server: OAuthServer;
  let broken: OAuthServer;
  let published: unknown[] = [];

  beforeAll(async () => {
    keys = await generateKeyPair("RS256");
    others = await generateKeyPair("RS256");
    published = [{ ...(await exportJWK(keys.publicKey)), kid: "one", alg: "RS256", use: "sig" }];
    certs = await listen((_, response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(JSON.stringify({ keys: published, public_cert: {}, public_certs: [] }));
    });
    const variables = { ACCESS_TEAM_DOMAIN: ISSUER, ACCESS_AUDIENCE: AUDIENCE };
    server = await startOAuthServer({
      ...variables,
      SERVER_AUTH_TOKEN: "",
      ACCESS_CERTS_URL: `${certs.origin}/cdn-cgi/access/certs`,
    });
    broken = await startOAuthServer({ ...variables, ACCESS_CERTS_URL: "http://127.0.0.1:9/certs" });
  });
  afterAll(async () => {
    await server?.close();
    await broken?.close();
    certs?.server.close();
  });

  interface Assertion {
    claims?: JWTPayload;
    issuer?: string;
    audience?: string;
    expires?: number;
    kid?: string;
    key?: CryptoKey | Uint8Array;
    alg?: string;
  }

  /** The header as Access sends it. */
  async function vouch(assertion: Assertion = {}): Promise<Record<string, string>> {
    const now = Math.floor(Date.now() / 1000);
    const jwt = await new SignJWT({
      email: "ada@example.com",
      type: "app",
      sub: "7335d417",
      ...assertion.claims,
    })
      .setProtectedHeader({ alg: assertion.alg ?? "RS256", kid: assertion.kid ?? "one" })
      .setIssuer(assertion.issuer ?? ISSUER)
      .setAudience([assertion.audience ?? AUDIENCE])
      .setIssuedAt(now)
      .setNotBefore(now)
      .setExpirationTime(now + (assertion.expires ?? 3600))
      .sign(assertion.key ?? keys.privateKey);
    return { "cf-access-jwt-assertion": jwt };
  }

  /** Sends the form, through Access once more. */
  function submit(
    { browser, page }: { browser: Browser; page: Page },
    who: string,
    headers: Record<string, string>,
  ) {
    const form = { "content-type": "application/x-www-form-urlencoded", origin: server.origin };
    return browser.submit(page, { decision: "access", who }, { headers: { ...form, ...headers } });
  }

  it("lets in who it vouches for, as its subject", async () => {
    const signIns = signInsOf(server);
    const headers = await vouch();
    const visit = await consent(server, headers);
    expect(visit.page.text).toContain("Approve as <bdi>ada@example.com</bdi>");
    expect(visit.page.text).not.toContain('name="token"');
    const done = await submit(visit, "ada@example.com", headers);
    expect(done.status).toBe(303);
    expect(await principalOf(server, visit.client, done)).toBe("access:7335d417");
    expect(signIns()).toMatchObject([{ outcome: "approved", door: "access", principal: "access:7335d417" }]);
  });

  it("lets in with a key that is new", async () => {
    published.push({ ...(await exportJWK(others.publicKey)), kid: "new", alg: "RS256", use: "sig" });
    const fresh = await startOAuthServer({
      ACCESS_TEAM_DOMAIN: ISSUER,
      ACCESS_AUDIENCE: AUDIENCE,
      ACCESS_CERTS_URL: `${certs.origin}/cdn-cgi/access/certs`,
    });
    const { page } = await consent(fresh, await vouch({ kid: "new", key: others.privateKey }));
    expect(page.text).toContain("Approve as");
    await fresh.close();
    published.pop();
  });

  it("who changed accounts since the page was shown is asked again", async () => {
    const visit = await consent(server, await vouch());
    const other = await vouch({ claims: { sub: "other", email: "eve@example.com" } });
    const answer = await submit(visit, "ada@example.com", other);
    expect(answer.status).toBe(403);
    expect(answer.location).toBeUndefined();
    expect(answer.text).toContain("Approve as <bdi>eve@example.com</bdi>");
  });

  const tricks: [string, Assertion | undefined][] = [
    ["nothing at all", undefined],
    ["another application's assertion", { audience: "another" }],
    ["another team's", { issuer: "https://other.cloudflareaccess.com" }],
    ["one that is over", { expires: -60 }],
    ["one signed by somebody else", { kid: "one" }],
    ["one of a key that is not there", { kid: "two" }],
    ["a service token's, which is nobody's", { claims: { sub: "", common_name: "service" } }],
    ["one with a subject that is no name", { claims: { sub: "a b:c" } }],
    [
      "one signed with the public key for a secret",
      { alg: "HS256", key: new TextEncoder().encode("x".repeat(64)) },
    ],
  ];

  it.each(tricks)("does not let in %s", async (name, assertion) => {
    const signIns = signInsOf(server);
    const forged =
      name === "one signed by somebody else" ? { ...assertion, key: others.privateKey } : assertion;
    const headers = forged ? await vouch(forged) : {};
    const { page } = await consent(server, headers);
    expect(page.status).toBe(403);
    expect(page.text).toContain("Nobody vouches for you");
    expect(page.text).not.toContain("<form");
    expect(signIns()).toMatchObject([{ outcome: "refused", door: "access", reason: "not_vouched_for" }]);
    // Nor behind a page that was shown to somebody else.
    const visit = await consent(server, await vouch());
    const answer = await submit(visit, "ada@example.com", headers);
    expect(answer.status).toBe(403);
    expect(answer.location).toBeUndefined();
  });

  it("an unsigned assertion is worth nothing", async () => {
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = { iss: ISSUER, aud: [AUDIENCE], sub: "7335d417", exp: Math.floor(Date.now() / 1000) + 60 };
    for (const jwt of [`${encode({ alg: "none" })}.${encode(claims)}.`, "x.y.z", "x"]) {
      expect((await consent(server, { "cf-access-jwt-assertion": jwt })).page.status).toBe(403);
    }
  });

  it("lets nobody in while the keys cannot be had, says so in the log, and leaves the other doors open", async () => {
    const visit = await consent(broken, await vouch());
    expect(visit.page.status).toBe(200);
    expect(visit.page.text).not.toContain("Approve as");
    expect(broken.logs()).toContainEqual(expect.objectContaining({ event: "error", where: "access" }));
    expect((await visit.browser.submit(visit.page, { decision: "owner", token: OWNER_TOKEN })).status).toBe(
      303,
    );
  });
});
