/** The keys of links on a server that has only GitHub sign-in: neither LINK_KEY nor an owner's token. */
import { beforeAll, expect, it } from "vitest";
import { type Caller, principal } from "../support.ts";

const sandbox = "link-keys";
let caller: Caller;
let path: string;

beforeAll(async () => {
  const anybody = await principal("link-keys");
  caller = anybody.withVariables({
    LINK_KEY: undefined,
    SERVER_AUTH_TOKEN: undefined,
    GITHUB_CLIENT_ID: "id",
    GITHUB_CLIENT_SECRET: "the-client-secret-of-an-app-at-github",
    GITHUB_ALLOWED_USERS: "octocat",
  });
  await caller.call("write_file", { sandbox, path: "kept.txt", content: "kept\n" });
  const { structured } = await caller.call("file_link", { sandbox, path: "kept.txt" });
  path = new URL(String(structured.url)).pathname;
});

it("a link stays valid when the client secret of GitHub changes", async () => {
  const next = caller.withVariables({ GITHUB_CLIENT_SECRET: "the-next-client-secret" });
  expect(await (await next.http(path)).text()).toBe("kept\n");
});
