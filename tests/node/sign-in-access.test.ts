/**
 * Sign-in through Cloudflare Access with real connections. The Worker and the server of the team's keys are on
 * loopback.
 */
import { exportJWK, exportSPKI, generateKeyPair, type JWTPayload, SignJWT } from "jose";
import { describe, expect, it } from "vitest";
import type { Browser, Page } from "../setup/oauth-client.ts";
import { OWNER_TOKEN, startOAuthServer } from "../setup/oauth-server.ts";
import { serve } from "../setup/serve.ts";
import { openConsentPage, principalOf, signInsOf } from "../setup/sign-in.ts";

const AUDIENCE = "audience-tag-of-the-application";
const ISSUER = "https://team.cloudflareaccess.com";
const [keys, otherKeys] = [await generateKeyPair("RS256"), await generateKeyPair("RS256")];
let published: unknown[] = [{ ...(await exportJWK(keys.publicKey)), kid: "one", alg: "RS256", use: "sig" }];
const certs = await serve((_, response) => {
  response.writeHead(200, { "content-type": "application/json" });
  response.end(JSON.stringify({ keys: published, public_cert: {}, public_certs: [] }));
}, "/cdn-cgi/access/certs");
const VARIABLES = { ACCESS_TEAM_DOMAIN: ISSUER, ACCESS_AUDIENCE: AUDIENCE, ACCESS_CERTS_URL: certs };
const server = await startOAuthServer({ ...VARIABLES, SERVER_AUTH_TOKEN: "" });
const broken = await startOAuthServer({ ...VARIABLES, ACCESS_CERTS_URL: "http://127.0.0.1:9/certs" });

describe("Cloudflare Access", () => {
  interface Assertion {
    /** Claims in place of the usual ones. A claim that is undefined is left out. */
    claims?: JWTPayload;
    issuer?: string;
    audience?: string;
    expires?: number;
    kid?: string;
    key?: CryptoKey | Uint8Array;
    alg?: string;
  }

  /** Signs an assertion, and returns the header in which Access sends it. */
  async function signAssertion(assertion: Assertion = {}): Promise<Record<string, string>> {
    const now = Math.floor(Date.now() / 1000);
    const jwt = await new SignJWT({
      email: "ada@example.com",
      type: "app",
      sub: "7335d417",
      iss: assertion.issuer ?? ISSUER,
      aud: [assertion.audience ?? AUDIENCE],
      iat: now,
      nbf: now,
      exp: now + (assertion.expires ?? 3600),
      ...assertion.claims,
    })
      .setProtectedHeader({ alg: assertion.alg ?? "RS256", kid: assertion.kid ?? "one" })
      .sign(assertion.key ?? keys.privateKey);
    return { "cf-access-jwt-assertion": jwt };
  }

  /** Submits the form through Access. */
  function submit(
    { browser, page }: { browser: Browser; page: Page },
    who: string,
    headers: Record<string, string>,
  ) {
    const form = { "content-type": "application/x-www-form-urlencoded", origin: server.origin };
    return browser.submit(page, { decision: "access", who }, { headers: { ...form, ...headers } });
  }

  it("signs in the person that it identifies, with the subject of the assertion as the principal", async () => {
    const signIns = signInsOf(server);
    const headers = await signAssertion();
    const visit = await openConsentPage(server, headers);
    expect(visit.page.text).toContain("Approve as <bdi>ada@example.com</bdi>");
    expect(visit.page.text).not.toContain('name="token"');
    const redirected = await submit(visit, "ada@example.com", headers);
    expect(redirected.status).toBe(303);
    expect(await principalOf(server, visit.client, redirected)).toBe("access:7335d417");
    expect(signIns()).toMatchObject([{ outcome: "approved", via: "access", principal: "access:7335d417" }]);
  });

  it("signs in a person whose assertion was signed with a new key", async () => {
    published.push({ ...(await exportJWK(otherKeys.publicKey)), kid: "new", alg: "RS256", use: "sig" });
    const fresh = await startOAuthServer(VARIABLES);
    const { page } = await openConsentPage(
      fresh,
      await signAssertion({ kid: "new", key: otherKeys.privateKey }),
    );
    expect(page.text).toContain("Approve as");
    published.pop();
  });

  it("asks a person for consent again after a change of account", async () => {
    const visit = await openConsentPage(server, await signAssertion());
    const other = await signAssertion({ claims: { sub: "other", email: "eve@example.com" } });
    const response = await submit(visit, "ada@example.com", other);
    expect(response.status).toBe(403);
    expect(response.location).toBeUndefined();
    expect(response.text).toContain("Approve as <bdi>eve@example.com</bdi>");
  });

  const tricks: [string, Assertion | undefined][] = [
    ["no assertion", undefined],
    ["another application's assertion", { audience: "another" }],
    ["another team's assertion", { issuer: "https://other.cloudflareaccess.com" }],
    ["an expired assertion", { expires: -60 }],
    ["an assertion that somebody else signed", { kid: "one", key: otherKeys.privateKey }],
    ["an assertion of an unknown key", { kid: "two" }],
    ["the assertion of a service token", { claims: { sub: "", common_name: "service" } }],
    ["an assertion with an invalid subject", { claims: { sub: "a b:c" } }],
    ["an assertion without a subject", { claims: { sub: undefined } }],
    ["an assertion without an expiry", { claims: { exp: undefined } }],
    ["an assertion without an issuer", { claims: { iss: undefined } }],
    ["an assertion without an audience", { claims: { aud: undefined } }],
  ];

  it.each(tricks)("does not let in a request with %s", async (_name, forged) => {
    const signIns = signInsOf(server);
    const headers = forged ? await signAssertion(forged) : {};
    const { page } = await openConsentPage(server, headers);
    expect(page.status).toBe(403);
    expect(page.text).toContain("Cloudflare Access did not identify you");
    expect(page.text).not.toContain("<form");
    expect(signIns()).toMatchObject([{ outcome: "refused", via: "access", reason: "not_identified" }]);
    // The form is refused, too, on a page that another person opened.
    const visit = await openConsentPage(server, await signAssertion());
    const response = await submit(visit, "ada@example.com", headers);
    expect(response.status).toBe(403);
    expect(response.location).toBeUndefined();
  });

  it.each(["HS256", "RS512", "PS256", "ES256"])(
    "refuses an assertion that is signed with %s, even if the team's keys contain its key",
    async (alg) => {
      const before = published;
      let key: CryptoKey | Uint8Array;
      if (alg === "HS256") {
        const secret = await exportSPKI(keys.publicKey);
        key = new TextEncoder().encode(secret);
        published = [...before, { kty: "oct", k: Buffer.from(secret).toString("base64url"), kid: alg }];
      } else {
        const pair = await generateKeyPair(alg, { extractable: true });
        key = pair.privateKey;
        // The published key names no algorithm, because it need not.
        published = [...before, { ...(await exportJWK(pair.publicKey)), kid: alg }];
      }
      const fresh = await startOAuthServer({ ...VARIABLES, SERVER_AUTH_TOKEN: "" });
      try {
        expect((await openConsentPage(fresh, await signAssertion({ alg, key, kid: alg }))).page.status).toBe(
          403,
        );
        expect((await openConsentPage(fresh, await signAssertion())).page.status).toBe(200);
      } finally {
        published = before;
      }
    },
  );

  it("does not let in an unsigned assertion", async () => {
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString("base64url");
    const claims = { iss: ISSUER, aud: [AUDIENCE], sub: "7335d417", exp: Math.floor(Date.now() / 1000) + 60 };
    for (const jwt of [`${encode({ alg: "none" })}.${encode(claims)}.`, "x.y.z", "x"]) {
      expect((await openConsentPage(server, { "cf-access-jwt-assertion": jwt })).page.status).toBe(403);
    }
  });

  it("lets nobody in while the keys are unavailable, logs that, and keeps the other methods open", async () => {
    const visit = await openConsentPage(broken, await signAssertion());
    expect(visit.page.status).toBe(200);
    expect(visit.page.text).not.toContain("Approve as");
    expect(broken.logs()).toContainEqual(expect.objectContaining({ event: "error", where: "access" }));
    expect((await visit.browser.submit(visit.page, { decision: "owner", token: OWNER_TOKEN })).status).toBe(
      303,
    );
  });
});
