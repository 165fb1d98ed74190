import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { callSandbox } from "../../../src/actors/sandbox-client.ts";
import { principal } from "../support.ts";

/** Calls a sandbox without using its actor, because two thousand actors would need 1.6 GB. */
const callOnly = (principalID: string, sandbox: string) =>
  callSandbox(env, { principalID, sandbox, region: undefined }, async () => ({ ok: true, value: sandbox }));

test("a principal that calls thousands of sandboxes waits before it calls more, but can use its own", async () => {
  const caller = await principal("inventive");
  await caller.call("write_file", { sandbox: "mine", path: "a.txt", content: "kept" });
  const callMany = async () => {
    for (let number = 0; number < 3000; number++) await callOnly(caller.principalID, `invented-${number}`);
  };
  await expect(callMany()).rejects.toThrow("too many sandboxes that you had not called before");
  expect((await caller.call("read_file", { sandbox: "mine", path: "a.txt" })).text).toContain("kept");
  const other = await principal("neighbour");
  expect((await other.call("list_runs", { sandbox: "one-more" })).isError).toBe(false);
});
