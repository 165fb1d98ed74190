/** Clients that disconnect during a call. */
import { env, exports } from "cloudflare:workers";
import { expect, it, vi } from "vitest";
import { callSandbox } from "../../../src/actors/sandbox-client.ts";
import { RequestMemory } from "../../../src/shared/request-memory.ts";
import { mcpHeaders } from "../../setup/mcp-client.ts";
import { killContainer, owner, sh, sleep, until } from "../support.ts";

const sandbox = "disconnected";

/** Calls the Worker from outside, so that the runtime ends its request when the client disconnects. */
async function callUntil(signal: AbortSignal, args: object): Promise<string> {
  const params = { name: "run_command", arguments: { sandbox, wait_seconds: 50, ...args } };
  const request = new Request("http://localhost/mcp", {
    method: "POST",
    headers: mcpHeaders(env.SERVER_AUTH_TOKEN ?? ""),
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params }),
    signal,
  });
  const response = await (exports as { default: Fetcher }).default.fetch(request).catch(() => undefined);
  return (await response?.text().catch(() => "")) ?? "";
}

it("each call whose client disconnects has one line in the log", async () => {
  await sh(sandbox, "true");
  const countBegun = async () => Number(await sh(sandbox, "ls begun-* 2>/dev/null | wc -l"));
  const spy = vi.spyOn(console, "log").mockImplementation(() => {});
  const outcomes = () =>
    spy.mock.calls
      .map(([line]): Record<string, unknown> => JSON.parse(String(line)))
      .filter((line) => line.event === "call" && line.sandbox === sandbox)
      .map(({ outcome }) => outcome);
  try {
    let sent = 0;
    // After a second, the response has begun. On a busy machine, calls that are cut early may not have begun.
    for (const ms of [500, 3000, 6000, 12_000]) {
      const args = { session: `session-${ms}`, command: `touch begun-${ms}; sleep 100` };
      expect(await callUntil(AbortSignal.timeout(ms), args)).not.toContain("result");
      sent++;
      if ((await countBegun()) >= 2) break;
    }
    const begun = await countBegun();
    expect(begun).toBeGreaterThan(0);
    await until(() => outcomes().length >= begun);
    expect(new Set(outcomes())).toEqual(new Set(["disconnected"]));
    expect(outcomes().length).toBeLessThanOrEqual(sent);
  } finally {
    spy.mockRestore();
    await owner.call("destroy_sandbox", { sandbox });
  }
});

it("a client that disconnects before its result takes no notice of lost files from the next call", async () => {
  const own = "disconnected-notice";
  await owner.call("write_file", { sandbox: own, path: "acknowledged", content: "x" });
  await killContainer(own);
  const leaving = new AbortController();
  const command = "touch begun; until [ -e go ]; do sleep 0.1; done; touch done";
  const called = callUntil(leaving.signal, { sandbox: own, command });
  // These requests show no notice.
  const file = (name: string, init?: RequestInit) => owner.http(`/sandboxes/${own}/files/${name}`, init);
  await until(async () => (await file("begun")).status === 200);
  leaving.abort();
  expect(await called).not.toContain("result");
  await file("go", { method: "PUT", body: "" });
  await until(async () => (await file("done")).status === 200);
  await sleep(1000);
  expect((await owner.call("list_files", { sandbox: own })).text).toContain("The sandbox was restarted");
  expect((await owner.call("list_files", { sandbox: own })).text).not.toContain("was restarted");
  await owner.call("destroy_sandbox", { sandbox: own });
});

it("a call that reads a run repeatedly confirms a notice once", async () => {
  const memory = new RequestMemory("confirms", new AbortController().signal);
  const whenRead = vi.spyOn(memory, "whenRead").mockResolvedValue();
  const shown = { notices: new Set<string>(), memory };
  const read = () =>
    callSandbox(
      env,
      { principalID: "confirms", sandbox, region: undefined },
      async () => ({ ok: true, value: 1, notices: ["Files are gone."], toConfirm: "Files are gone." }),
      shown,
    );
  expect([await read(), await read(), await read()]).toEqual([1, 1, 1]);
  expect(whenRead).toHaveBeenCalledOnce();
});
