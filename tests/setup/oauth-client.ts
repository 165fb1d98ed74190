/** A browser with cookies and an OAuth client, for sign-ins at the server. */

/** The origin of the server in the same process. */
export const ORIGIN = "https://sandbox.example";

export const CALLBACK = "https://client.example/callback";

/** A server in the same process or on a socket. */
export type App = (url: string, init?: RequestInit) => Promise<Response>;

let addresses = 0;

/** A browser, which keeps cookies and submits forms. Each browser has its own IP address. */
export class Browser {
  readonly cookies = new Map<string, string>();
  readonly #app: App;
  readonly address = `198.51.100.${(addresses += 1)}`;

  constructor(app: App) {
    this.#app = app;
  }

  async open(url: string, init: RequestInit = {}): Promise<Page> {
    const headers = new Headers(init.headers);
    if (this.cookies.size > 0) {
      headers.set("cookie", Array.from(this.cookies, ([name, value]) => `${name}=${value}`).join("; "));
    }
    headers.set("cf-connecting-ip", this.address);
    const response = await this.#app(url, { ...init, headers, redirect: "manual" });
    for (const cookie of response.headers.getSetCookie()) {
      const [pair = "", ...attributes] = cookie.split("; ");
      const [name = "", value = ""] = pair.split("=");
      if (attributes.includes("Max-Age=0")) this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    return new Page(url, response, await response.text());
  }

  /** Submits the page's form with these fields in place of the page's own. undefined removes a field. */
  submit(page: Page, fields: Record<string, string | string[] | undefined>, init: RequestInit = {}) {
    const body = new URLSearchParams();
    const all = { handle: page.handle, scope: page.scopes, ...fields };
    for (const [name, value] of Object.entries(all)) {
      for (const item of value === undefined ? [] : [value].flat()) body.append(name, item);
    }
    const headers = { "content-type": "application/x-www-form-urlencoded", origin: new URL(page.url).origin };
    return this.open(new URL(page.action, page.url).href, {
      method: "POST",
      body: body.toString(),
      headers,
      ...init,
    });
  }
}

export class Page {
  readonly url: string;
  readonly response: Response;
  readonly text: string;

  constructor(url: string, response: Response, text: string) {
    this.url = url;
    this.response = response;
    this.text = text;
  }

  get status(): number {
    return this.response.status;
  }

  /** Whether it shows an error and does not redirect the browser. */
  get isErrorPage(): boolean {
    return this.status === 400 && !this.location && !/http-equiv|<script|<form/i.test(this.text);
  }

  get handle(): string {
    return this.#find(/name="handle" value="([^"]+)"/);
  }

  get action(): string {
    return this.#find(/<form method="post" action="([^"]+)"/).replaceAll("&#38;", "&");
  }

  get scopes(): string[] {
    return this.#matches(/name="scope" value="([^"]+)" checked/g);
  }

  get offered(): string[] {
    return this.#matches(/name="scope" value="([^"]+)"/g);
  }

  /** The URL to which the browser is redirected, if any. */
  get location(): URL | undefined {
    const location = this.response.headers.get("location");
    return location === null ? undefined : new URL(location);
  }

  #find(pattern: RegExp): string {
    const [, found] = pattern.exec(this.text) ?? [];
    if (found === undefined) throw new Error(`No ${pattern} in ${this.text}`);
    return found;
  }

  #matches(pattern: RegExp): string[] {
    return Array.from(this.text.matchAll(pattern), ([, found = ""]) => found);
  }
}

export interface Tokens {
  access_token: string;
  refresh_token: string;
  expires_in: number;
  scope: string;
  resource: string;
}

/** A client of the authorization code flow, one step at a time. */
export class Client {
  readonly app: App;
  readonly id: string;
  readonly secret: string | undefined;
  readonly #origin: string;
  verifier = "";

  constructor(app: App, id: string, secret?: string, origin = ORIGIN) {
    this.app = app;
    this.id = id;
    this.secret = secret;
    this.#origin = origin;
  }

  /** Registers a client, which is public unless `metadata` says otherwise. */
  static async register(app: App, metadata: Record<string, unknown> = {}, origin = ORIGIN): Promise<Client> {
    const response = await register(app, metadata, origin);
    requireStatus(response, 201);
    const registered: { client_id: string; client_secret?: string } = await response.json();
    return new Client(app, registered.client_id, registered.client_secret, origin);
  }

  /** The URL to open in a browser. Every call makes a new verifier. undefined removes a parameter. */
  async authorizationURL(parameters: Record<string, string | undefined> = {}): Promise<string> {
    const origin = this.#origin;
    this.verifier = base64url(crypto.getRandomValues(new Uint8Array(32)));
    const url = new URL("/authorize", origin);
    const all = {
      response_type: "code",
      client_id: this.id,
      redirect_uri: CALLBACK,
      state: "state-of-the-client",
      resource: `${origin}/mcp`,
      code_challenge: await challengeOf(this.verifier),
      code_challenge_method: "S256",
      ...parameters,
    };
    for (const [name, value] of Object.entries(all))
      if (value !== undefined) url.searchParams.set(name, value);
    return url.href;
  }

  /** Sends a request to the token endpoint, and returns its response. */
  token(parameters: Record<string, string | undefined>): Promise<Response> {
    const body = new URLSearchParams({ client_id: this.id });
    if (this.secret !== undefined) body.set("client_secret", this.secret);
    for (const [name, value] of Object.entries(parameters)) if (value !== undefined) body.set(name, value);
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    return this.app(`${this.#origin}/oauth/token`, { method: "POST", body: body.toString(), headers });
  }

  exchange(code: string, parameters: Record<string, string | undefined> = {}): Promise<Response> {
    const all = {
      grant_type: "authorization_code",
      code,
      redirect_uri: CALLBACK,
      code_verifier: this.verifier,
    };
    return this.token({ ...all, ...parameters });
  }

  refresh(refresh_token: string, parameters: Record<string, string | undefined> = {}): Promise<Response> {
    return this.token({ grant_type: "refresh_token", refresh_token, ...parameters });
  }
}

export function register(
  app: App,
  metadata: Record<string, unknown> = {},
  origin = ORIGIN,
  sender: Record<string, string> = {},
): Promise<Response> {
  const body = {
    client_name: "Test Client",
    redirect_uris: [CALLBACK],
    token_endpoint_auth_method: "none",
    ...metadata,
  };
  const headers = { "content-type": "application/json", ...sender };
  return app(`${origin}/oauth/register`, { method: "POST", headers, body: JSON.stringify(body) });
}

/** Throws if a step that a test depends on failed. */
export function requireStatus(response: { status: number }, status: number): void {
  if (response.status !== status) throw new Error(`${response.status} in place of ${status}`);
}

export async function challengeOf(verifier: string): Promise<string> {
  return base64url(new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier))));
}

function base64url(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "");
}
