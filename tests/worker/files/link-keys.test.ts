/** The keys of links on a server that has only GitHub sign-in: neither LINK_KEY nor an owner's token. */
import { env } from "cloudflare:workers";
import { runInDurableObject } from "cloudflare:test";
import { beforeAll, expect, it } from "vitest";
import type { Env } from "../../../src/shared/config.ts";
import { type Caller, principal } from "../support.ts";

const sandbox = "link-keys";
const SECRET = "the-client-secret-of-an-app-at-github";
let caller: Caller;
let path: string;

beforeAll(async () => {
  const anybody = await principal("link-keys");
  caller = anybody.withVariables({
    LINK_KEY: undefined,
    SERVER_AUTH_TOKEN: undefined,
    GITHUB_CLIENT_ID: "id",
    GITHUB_CLIENT_SECRET: SECRET,
    GITHUB_ALLOWED_USERS: "octocat",
  });
  await caller.call("write_file", { sandbox, path: "kept.txt", content: "kept\n" });
  const { structured } = await caller.call("file_link", { sandbox, path: "kept.txt" });
  path = new URL(String(structured.url)).pathname;
});

/** The link with the signature of an earlier version, which derived its key from GitHub's secret. */
async function signedEarlier(): Promise<string> {
  const bytes = (text: string) => new TextEncoder().encode(text);
  const hmac = async (key: Uint8Array, text: string) => {
    const imported = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, [
      "sign",
    ]);
    return new Uint8Array(await crypto.subtle.sign("HMAC", imported, bytes(text)));
  };
  const unsigned = path.slice(0, -16);
  const key = await hmac(bytes(SECRET), "sandbox-mcp links");
  const signature = await hmac(key, `link ${unsigned.replace("/files/", "")}`);
  return unsigned + signature.toBase64({ alphabet: "base64url", omitPadding: true }).slice(0, 16);
}

it("a link stays valid when the client secret of GitHub changes", async () => {
  const next = caller.withVariables({ GITHUB_CLIENT_SECRET: "the-next-client-secret" });
  expect(await (await next.http(path)).text()).toBe("kept\n");
});

it("a link that an earlier version signed is valid for a day after the upgrade", async () => {
  const earlier = await signedEarlier();
  expect(earlier).not.toBe(path);
  expect(await (await caller.http(earlier)).text()).toBe("kept\n");

  const attempts = (env as Env).Attempts as DurableObjectNamespace;
  await runInDurableObject(attempts.getByName("links"), (_object, { storage }) => {
    const stored = storage.kv.get<{ key: string; madeAt: number }>("link-key");
    storage.kv.put("link-key", { ...stored, madeAt: Date.now() - 24 * 3600_000 });
  });
  const nextDay = caller.withVariables({});
  expect((await nextDay.http(earlier)).status).toBe(403);
  expect((await nextDay.http(path)).status).toBe(200);
});
