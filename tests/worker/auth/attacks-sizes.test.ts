/** OAuth refuses input that is one byte or character too long. */
import { env } from "cloudflare:workers";
import { expect, it } from "vitest";
import { beforeCalls } from "../../setup/before-calls.ts";
import { ORIGIN, TOKEN, recordEachLog } from "../server/support.ts";
import { Browser, CALLBACK, Client, errorOf, oauthApp } from "./support.ts";

const logs = recordEachLog();

let reads = 0;
const app = oauthApp({ OAUTH_KV: beforeCalls(env.OAUTH_KV, () => void reads++) });
const client = new Client(app, (await Client.register(oauthApp())).id);

const FORM = { "content-type": "application/x-www-form-urlencoded" };
const post = (path: string, body: BodyInit, headers: Record<string, string> = FORM) =>
  app(path, { method: "POST", headers, body });
const register = (bytes: number) =>
  post("/oauth/register", JSON.stringify({ redirect_uris: [CALLBACK] }).padEnd(bytes), {
    "content-type": "application/json",
  });
const open = async (parameters: Record<string, string>) =>
  new Browser(app).open(await client.authorizationURL(parameters));
const openWith = (query: string) => new Browser(app).open(`${ORIGIN}/authorize?${query}`);
const redirectOf = (length: number) => CALLBACK.padEnd(length, "a");
const exchangeAt = (redirect_uri: string) => client.exchange("a:b:c", { redirect_uri });
const openAt = async (redirect_uri: string) => {
  const { id } = await Client.register(app, { redirect_uris: [redirect_uri] });
  return open({ client_id: id, redirect_uri });
};
const errors = () => logs.entries().filter(({ event }) => event === "error");

it.each<[what: string, most: number, send: (length: number) => Promise<unknown>]>([
  ["a code", 360, (length) => client.exchange(`${"u".repeat(length - 4)}:g:s`)],
  ["a code in bytes", 360, (length) => client.exchange(`${"é".repeat(length / 2 - 2)}:g:s`)],
  ["a refresh token", 360, (length) => client.refresh(`${"u".repeat(length - 4)}:g:s`)],
  ["a revoked token", 360, (length) => client.token({ token: `${"u".repeat(length - 4)}:g:s` })],
  ["a client id", 360, (length) => new Client(app, "c".repeat(length)).exchange("a:b:c")],
  ["a client id of a page", 256, (length) => open({ client_id: "c".repeat(length) })],
])("%s of more than %i bytes is not looked up in the store", async (_, most, send) => {
  reads = 0;
  await send(most + 2);
  expect(reads).toBe(0);
  await send(most);
  expect(reads).toBeGreaterThan(0);
  expect(errors()).toEqual([]);
});

type Sent = Promise<Response | { text: string }>;
it.each<[what: string, most: number, refusal: string, send: (size: number) => Sent]>([
  ["bytes of a registration", 16_384, "too large", register],
  ["bytes of a token request", 16_384, "too large", (bytes) => post("/oauth/token", "x=".padEnd(bytes, "x"))],
  ["characters of a page's query", 8192, "too long", (length) => openWith("x".repeat(length - 1))],
  ["characters of a redirect URI", 1000, "too long", (length) => exchangeAt(redirectOf(length))],
  ["characters of a page's redirect URI", 1000, "not allowed", (length) => openAt(redirectOf(length))],
])("%s: at most %i", async (_, most, refusal, send) => {
  const answer = async (size: number) => {
    const response = await send(size);
    return response instanceof Response ? response.text() : response.text;
  };
  expect(await answer(most)).not.toContain(refusal);
  expect(await answer(most + 1)).toContain(refusal);
});

it("a client id that is too long for a key is unknown in a header, and as a URL while the server fetches none", async () => {
  const authorization = `Basic ${btoa(`${"c".repeat(600)}:secret`)}`;
  const inHeader = await post("/oauth/token", "grant_type=refresh_token", { ...FORM, authorization });
  expect(inHeader.status).toBe(401);
  const off = oauthApp({ OAUTH_CLIENT_METADATA: "off" });
  const byURL = await new Client(off, `https://c.example/${"c".repeat(600)}`).exchange("a:b:c");
  expect(await errorOf(byURL)).toBe("invalid_client");
  expect(errors()).toEqual([]);
});

it.each(["/oauth/register", "/oauth/token", "/authorize"])(
  "a body that ends early gets 400: %s",
  async (path) => {
    const broken = new ReadableStream({
      pull: (controller) => controller.error(new Error("The client left")),
    });
    expect((await post(path, broken)).status).toBe(400);
    expect(errors()).toEqual([]);
  },
);

it("a form that is too large is refused before it is read, so its handle still works", async () => {
  const browser = new Browser(app);
  const page = await browser.open(await client.authorizationURL());
  const submit = (bytes: number) => {
    const fields = { handle: page.handle, decision: "owner", token: TOKEN, scope: "sandbox:read" };
    const body = `${new URLSearchParams(fields)}&x=`.padEnd(bytes, "x");
    const headers = { ...FORM, origin: ORIGIN };
    return browser.open(new URL(page.action, page.url).href, { method: "POST", headers, body });
  };
  expect((await submit(16 * 1024 + 1)).isErrorPage).toBe(true);
  expect((await submit(16 * 1024)).status).toBe(303);
});
