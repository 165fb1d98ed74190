/** Calls whose clients have disconnected. The Worker no longer counts their input, but the actor continues them. */
import { expect, it } from "vitest";
import { hasRoomFor, MAX_HELD_BYTES } from "../../../src/shared/limits.ts";
import { mcpHeaders } from "../../setup/mcp-client.ts";
import { actorOf, principal, until } from "../support.ts";

const MIB = 1024 * 1024;
const sandbox = "held-input";
const scopes = ["sandbox:read", "sandbox:write", "sandbox:exec"] as const;
/** Longer than the server lets a client wait. */
const SETUP = "sleep 90";

it("an actor refuses calls while others of their principal hold much input, and releases input that is too late to use", async () => {
  // Other tests use the owner's calls at the same time.
  const caller = await principal("held-input");
  await caller.call("configure_sandbox", { sandbox, setup: SETUP });
  const actor = await actorOf(sandbox, caller);
  const { principalID } = caller;
  const write = (callerWaitMs: number, n = 0) =>
    actor.operate({ principalID, sandbox, scopes, callerWaitMs }, "write", {
      path: `/workspace/${n}`,
      id: crypto.randomUUID(),
      body: new Uint8Array(4 * MIB),
    });
  const outcomes = await Promise.all(Array.from({ length: 12 }, (_, n) => write(3000, n)));
  const codes = outcomes.map((outcome) => (outcome.ok ? "ok" : outcome.failure.code));
  expect(codes.filter((code) => code === "quota_exceeded")).toHaveLength(5);
  expect(codes.filter((code) => code === "no_answer")).toHaveLength(7);
  // The calls above have ended, though the set-up still runs.
  const later = await write(1000);
  expect(later.ok || later.failure.code).toBe("no_answer");
  await caller.call("destroy_sandbox", { sandbox });
});

it("an actor refuses calls without input if too many have not ended, but no requests by link, and no end of the sandbox", async () => {
  const caller = await principal("unended-calls");
  const { principalID } = caller;
  await caller.call("configure_sandbox", { sandbox, setup: SETUP });
  const actor = await actorOf(sandbox, caller);
  const owner = { principalID, sandbox, scopes, callerWaitMs: 20_000 };
  // Together they leave room for two calls without input.
  const body = new Uint8Array(4 * MIB - 10 * 1024);
  const writes = Array.from({ length: 8 }, (_, n) =>
    actor.operate(owner, "write", { path: `/workspace/${n}`, id: crypto.randomUUID(), body }),
  );
  const look = (options: { isByLink?: boolean } = {}) =>
    actor.operate({ ...owner, callerWaitMs: 1000, ...options }, "stat", { path: "/" });
  const byLink = look({ isByLink: true });
  const looks = await Promise.all(Array.from({ length: 12 }, () => look()));
  const codes = [...looks, await byLink].map((outcome) => outcome.ok || outcome.failure.code);
  expect(codes.filter((code) => code === "quota_exceeded")).toHaveLength(10);
  expect(codes.filter((code) => code === "no_answer")).toHaveLength(3);
  expect((await caller.call("destroy_sandbox", { sandbox })).isError).toBe(false);
  await Promise.all(writes);
});

it("a call counts until the actor has finished it, also if its client has disconnected", async () => {
  const caller = await principal("left-calls");
  await caller.call("configure_sandbox", { sandbox, setup: SETUP });
  const write = { sandbox, path: "large", content: "x".repeat(7.9 * MIB) };
  const params = { name: "write_file", arguments: write };
  const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params });
  for (let count = 1; count <= 4; count++) {
    const client = new AbortController();
    void caller.http("/mcp", {
      method: "POST",
      headers: mcpHeaders(caller.token),
      body,
      signal: client.signal,
    });
    const roomLeft = MAX_HELD_BYTES - count * write.content.length;
    await until(() => !hasRoomFor(`calls of ${caller.principalID}`, roomLeft + 1));
    client.abort();
  }
  expect(await caller.call("write_file", write)).toMatchObject({
    isError: true,
    text: expect.stringContaining("Calls whose client has disconnected count too"),
  });
  expect((await caller.call("destroy_sandbox", { sandbox })).isError).toBe(false);
});
