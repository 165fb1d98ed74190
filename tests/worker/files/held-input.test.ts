/** Calls whose clients have disconnected. The Worker no longer counts their input, but the actor continues them. */
import { expect, it } from "vitest";
import { actorOf, principal } from "../support.ts";

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

it("an actor refuses calls while 2,048 of their principal have not ended, but no requests by link, and no end of the sandbox", async () => {
  const caller = await principal("unended-calls");
  const { principalID } = caller;
  await caller.call("configure_sandbox", { sandbox, setup: SETUP });
  const actor = await actorOf(sandbox, caller);
  const look = (isByLink = false) => {
    const owner = { principalID, sandbox, scopes, callerWaitMs: 8000, isByLink };
    return actor.operate(owner, "stat", { path: "/" });
  };
  const calls = Promise.all(Array.from({ length: 2060 }, () => look()));
  const byLink = await look(true);
  expect(byLink.ok || byLink.failure.code).toBe("no_answer");
  const codes = (await calls).map((outcome) => (outcome.ok ? "ok" : outcome.failure.code));
  expect(codes.filter((code) => code === "quota_exceeded")).toHaveLength(12);
  const more = Promise.all(Array.from({ length: 2060 }, () => look()));
  const destroyed = await caller.call("destroy_sandbox", { sandbox });
  expect(destroyed.isError).toBe(false);
  await more;
});
