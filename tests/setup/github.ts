/**
 * A stub of GitHub with everything that a sign-in needs: the web application flow and three calls of the API, with
 * their errors.
 */
import { createHash, randomBytes } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { text } from "node:stream/consumers";
import { serve } from "./serve.ts";

export const CLIENT_ID = "github-client-id";
export const CLIENT_SECRET = "github-client-secret";

interface GitHubUser {
  id: number;
  login: string;
  /** The membership's state by organization. */
  orgs?: Record<string, "active" | "pending">;
}

export interface FakeGitHub {
  origin: string;
  /** The account that is signed in in the browser. With undefined, the person declines. */
  user: GitHubUser | undefined;
  /** The failure of the API. */
  failure: "none" | "down" | "garbage" | "rate_limited" | "org_forbidden" | "odd_token";
  requestedPaths: string[];
}

interface Grant {
  user: GitHubUser;
  redirectURI: string;
  challenge: string;
  scope: string;
}

/** Serves GitHub on loopback, until the time that `doLater` chooses. */
export async function startGitHub(): Promise<FakeGitHub> {
  const codes = new Map<string, Grant>();
  const tokens = new Map<string, Grant>();
  const origin = await serve((request, response) => {
    void respond(request, response).catch(() => response.destroy());
  });
  const github: FakeGitHub = {
    origin,
    user: undefined,
    failure: "none",
    requestedPaths: [],
  };

  async function respond(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "", origin);
    github.requestedPaths.push(url.pathname);
    if (url.pathname === "/login/oauth/authorize") return authorize(url, response);
    if (github.failure === "down") return void response.destroy();
    if (github.failure === "garbage") return void response.end("<html>Unicorn!</html>");
    if (github.failure === "rate_limited") return json(response, 403, { message: "API rate limit exceeded" });
    if (url.pathname === "/login/oauth/access_token")
      return token(new URLSearchParams(await text(request)), response);
    // GitHub's response to a request without a User-Agent.
    if (!request.headers["user-agent"])
      return json(response, 403, { message: "Request forbidden by administrative rules" });
    const grant = tokens.get(/^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1] ?? "");
    if (!grant) return json(response, 401, { message: "Bad credentials" });
    if (url.pathname === "/user")
      return json(response, 200, { id: grant.user.id, login: grant.user.login, name: null });
    const [, org = ""] = /^\/user\/memberships\/orgs\/([\w-]+)$/.exec(url.pathname) ?? [];
    if (github.failure === "org_forbidden" || !grant.scope.includes("read:org")) {
      return json(response, 403, { message: "You must have the read:org scope" });
    }
    const state = grant.user.orgs?.[org];
    return state
      ? json(response, 200, { state, role: "member" })
      : json(response, 404, { message: "Not Found" });
  }

  function authorize({ searchParams }: URL, response: ServerResponse): void {
    const callback = new URL(searchParams.get("redirect_uri") ?? "");
    callback.searchParams.set("state", searchParams.get("state") ?? "");
    if (searchParams.get("client_id") !== CLIENT_ID) return json(response, 404, { message: "Not Found" });
    if (!github.user) {
      callback.searchParams.set("error", "access_denied");
      callback.searchParams.set("error_description", "The user has denied your application access.");
    } else {
      const code = randomBytes(10).toString("hex");
      codes.set(code, {
        user: github.user,
        redirectURI: searchParams.get("redirect_uri") ?? "",
        challenge: searchParams.get("code_challenge") ?? "",
        scope: searchParams.get("scope") ?? "",
      });
      callback.searchParams.set("code", code);
    }
    response.writeHead(302, { location: callback.href }).end();
  }

  /** Errors have the status 200, as GitHub documents. */
  function token(form: URLSearchParams, response: ServerResponse): void {
    const code = form.get("code") ?? "";
    const grant = codes.get(code);
    codes.delete(code);
    const error = (name: string) => json(response, 200, { error: name, error_description: name });
    if (form.get("client_id") !== CLIENT_ID || form.get("client_secret") !== CLIENT_SECRET) {
      return error("incorrect_client_credentials");
    }
    if (!grant) return error("bad_verification_code");
    if (form.get("redirect_uri") !== grant.redirectURI) return error("redirect_uri_mismatch");
    const challenge = createHash("sha256")
      .update(form.get("code_verifier") ?? "")
      .digest("base64url");
    if (challenge !== grant.challenge) return error("bad_verification_code");
    const access_token = `gho_${randomBytes(18).toString("hex")}`;
    tokens.set(access_token, grant);
    if (github.failure === "odd_token")
      return json(response, 200, { access_token: `${access_token}\r\nx: y` });
    return json(response, 200, { access_token, token_type: "bearer", scope: grant.scope });
  }

  return github;
}

function json(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { "content-type": "application/json; charset=utf-8" }).end(JSON.stringify(body));
}
