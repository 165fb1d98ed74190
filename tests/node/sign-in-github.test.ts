/** Sign-in with GitHub with real connections. The Worker and GitHub are servers on loopback. */
import { beforeEach, describe, expect, it } from "vitest";
import { CLIENT_ID, CLIENT_SECRET, startGitHub } from "../setup/github.ts";
import { Browser, CALLBACK } from "../setup/oauth-client.ts";
import { OWNER_TOKEN, startOAuthServer } from "../setup/oauth-server.ts";
import { openConsentPage, principalOf, signInsOf, web } from "../setup/sign-in.ts";

const github = await startGitHub();
const server = await startOAuthServer({
  GITHUB_CLIENT_ID: CLIENT_ID,
  GITHUB_CLIENT_SECRET: CLIENT_SECRET,
  GITHUB_ALLOWED_USERS: "Octocat, id:77, collaborator",
  GITHUB_ALLOWED_ORG: "Acme",
  GITHUB_URL: github.origin,
  GITHUB_API_URL: github.origin,
});

describe("GitHub", () => {
  beforeEach(() => {
    github.failure = "none";
    github.user = { id: 583231, login: "octocat" };
  });

  /** Signs in with GitHub. `done` is the response to the browser's last request. */
  async function signInByGitHub(fields: Record<string, string | string[]> = {}) {
    const { client, browser, page } = await openConsentPage(server);
    const away = await browser.submit(page, { decision: "github", ...fields });
    expect(away.status).toBe(303);
    expect(away.location?.origin).toBe(github.origin);
    const callback = await new Browser(web).open(away.location?.href ?? "");
    return { client, browser, away, back: callback, done: await browser.open(callback.location?.href ?? "") };
  }

  it("lets in a listed person, as the account with that id", async () => {
    const signIns = signInsOf(server);
    const { client, browser, away, done } = await signInByGitHub();
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
    expect(signIns()).toMatchObject([{ outcome: "approved", via: "github", principal: "github:583231" }]);
  });

  it("grants the scopes that were ticked before", async () => {
    const { client, done } = await signInByGitHub({ scope: ["sandbox:read"] });
    const response = await client.exchange(done.location?.searchParams.get("code") ?? "");
    expect(await response.json()).toMatchObject({ scope: "sandbox:read" });
  });

  it("lets in a listed account id with any login, and active members of the organization", async () => {
    github.user = { id: 77, login: "renamed" };
    const numbered = await signInByGitHub();
    expect(await principalOf(server, numbered.client, numbered.done)).toBe("github:77");
    github.user = { id: 78, login: "member", orgs: { acme: "active" } };
    const member = await signInByGitHub();
    expect(await principalOf(server, member.client, member.done)).toBe("github:78");
  });

  it.each([
    ["somebody else", { id: 5, login: "stranger" }],
    [
      "a person who is only invited to the organization",
      { id: 6, login: "invited", orgs: { acme: "pending" as const } },
    ],
    ["a member of another organization", { id: 7, login: "other", orgs: { acme2: "active" as const } }],
    ["a person with a listed id as login", { id: 8, login: "77" }],
    ["a person with a login that looks like the entry of an id", { id: 9, login: "id:77" }],
  ])("does not let in %s, and names the refused account on the page", async (_, user) => {
    github.user = user;
    const signIns = signInsOf(server);
    const { done } = await signInByGitHub();
    expect(done.status).toBe(403);
    expect(done.location).toBeUndefined();
    expect(done.text).toContain(`signed in to GitHub as ${user.login}`);
    expect(done.text).toContain("error=access_denied");
    expect(signIns()).toMatchObject([{ outcome: "refused", via: "github", reason: "not_allowed" }]);
  });

  it("does not let in a person who took over a login that was given up", async () => {
    github.user = { id: 100, login: "collaborator" };
    expect((await signInByGitHub()).done.status).toBe(303);
    github.user = { id: 101, login: "Collaborator" };
    const signIns = signInsOf(server);
    expect((await signInByGitHub()).done.status).toBe(403);
    expect(signIns()).toMatchObject([{ outcome: "refused", reason: "login_reassigned" }]);
    github.user = { id: 100, login: "collaborator" };
    expect((await signInByGitHub()).done.status).toBe(303);
  });

  it("passes a refusal at GitHub on to the client", async () => {
    github.user = undefined;
    const { done } = await signInByGitHub();
    expect(done.status).toBe(400);
    expect(done.text).toContain("error=access_denied");
  });

  it("signs a person in only in the browser that began the sign-in", async () => {
    const { browser, page } = await openConsentPage(server);
    const away = await browser.submit(page, { decision: "github" });
    const callback = (await new Browser(web).open(away.location?.href ?? "")).location?.href ?? "";
    const stranger = await new Browser(web).open(callback);
    expect(stranger.status).toBe(400);
    expect(stranger.location).toBeUndefined();
    // GitHub sent this code to the attacker's browser, so it is not accepted in the victim's browser either.
    const victim = await openConsentPage(server);
    await victim.browser.submit(victim.page, { decision: "github" });
    expect((await victim.browser.open(callback)).status).toBe(400);
    expect((await browser.open(callback)).status).toBe(303);
    expect((await browser.open(callback)).status).toBe(400);
  });

  it("refuses a state that the server did not issue, and a page's handle in place of a state", async () => {
    const { browser, page } = await openConsentPage(server);
    for (const state of ["", "x", page.handle]) {
      const response = await browser.open(`${server.origin}/authorize/github?code=x&state=${state}`);
      expect(response.status).toBe(400);
    }
    expect((await browser.submit(page, { decision: "owner", token: OWNER_TOKEN })).status).toBe(303);
  });

  it.each(["down", "garbage", "rate_limited", "odd_token"] as const)(
    "reports a failure of GitHub: %s",
    async (failure) => {
      github.failure = failure;
      const signIns = signInsOf(server);
      const { done } = await signInByGitHub();
      expect(done.status).toBe(502);
      expect(done.text).toContain("GitHub did not identify you");
      expect(signIns()).toMatchObject([{ outcome: "refused", via: "github", reason: "github_failed" }]);
      expect(server.logs().findLast(({ event }) => event === "error")).toMatchObject({ where: "github" });
    },
  );

  it("does not let in a member if the request for the membership fails", async () => {
    github.failure = "org_forbidden";
    github.user = { id: 78, login: "member", orgs: { acme: "active" } };
    expect((await signInByGitHub()).done.status).toBe(403);
  });

  it("receives a code only once, and the log contains neither its access token nor the client secret", async () => {
    github.requestedPaths = [];
    await signInByGitHub();
    expect(github.requestedPaths.filter((path) => path === "/login/oauth/access_token")).toHaveLength(1);
    expect(JSON.stringify(server.logs())).not.toMatch(/gho_|github-client-secret/);
  });

  it("rejects a code that it did not issue, so nobody is signed in", async () => {
    const { browser, page } = await openConsentPage(server);
    const away = await browser.submit(page, { decision: "github" });
    const state = away.location?.searchParams.get("state");
    const response = await browser.open(`${server.origin}/authorize/github?code=made-up&state=${state}`);
    expect(response.status).toBe(502);
  });
});
