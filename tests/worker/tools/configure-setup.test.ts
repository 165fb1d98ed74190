import { expect, it } from "vitest";
import { callsIn, evict, idIn, killContainer, owner, result, says, sh, until } from "../support.ts";

const configure = (sandbox: string, setup: string, more: Record<string, unknown> = {}) =>
  owner.call("configure_sandbox", { sandbox, setup, ...more });

/** A script that ends only when it is cancelled. */
const HELD = "echo begun; sleep 600";

it("runs once in each container before the first call, with the variables and what is back of the workspace", async () => {
  const sandbox = "setup-once";
  const { structured } = await configure(sandbox, "echo $WORD >>/tmp/ran; cat kept >>/tmp/ran || true", {
    env: { WORD: "w" },
  });
  expect(structured.setup).toBe("due");
  expect((await owner.call("read_file", { sandbox, path: "/tmp/ran" })).text).toContain("w");
  const first = await callsIn(sandbox).command("cat /tmp/ran; echo k >kept");
  expect([first.structured.stdout, first.text]).toEqual(["w\n", expect.not.stringContaining("set up")]);
  await evict(sandbox);
  expect((await callsIn(sandbox).code("print(open('/tmp/ran').read())")).structured.stdout).toBe("w\n\n");
  expect(
    (await configure(sandbox, "echo $WORD >>/tmp/ran; cat kept >>/tmp/ran || true")).structured.setup,
  ).toBe("succeeded");
  await owner.call("checkpoint_sandbox", { sandbox, label: "kept" });
  await killContainer(sandbox);
  await until(async () => (await callsIn(sandbox).command("cat /tmp/ran")).structured.stdout === "w\nk\n");
  expect(await sh(sandbox, "cat /tmp/ran")).toBe("w\nk\n");
});

it("keeps calls waiting no longer than they wait, is cancelled by its id, and makes way for another script", async () => {
  const sandbox = "setup-held";
  await configure(sandbox, HELD);
  const calls = callsIn(sandbox);
  const waiting = await calls.command("echo after >/tmp/after; cat /tmp/made || true", { wait_seconds: 0 });
  expect(waiting.text).toContain("waits for the set-up of the sandbox, which is still running, setup-held.");
  const [held = ""] =
    /setup-held\.\w+(?=\.)/.exec(waiting.text.slice(waiting.text.indexOf("still running"))) ?? [];
  await says(held, "begun");
  // The actor that follows goes on with it.
  await evict(sandbox);
  const behind = await calls.code("1 + 1", { wait_seconds: 0 });
  expect(behind.text).toContain(held);
  expect((await configure(sandbox, "echo new >/tmp/made")).structured.setup).toBe("due");
  expect(await sh(sandbox, "cat /tmp/made")).toBe("new\n");
  expect((await result(idIn(behind))).text).toContain("2");
  expect((await result(held)).structured.state).toBe("cancelled");
  await configure(sandbox, HELD);
  const withdrawn = idIn(await calls.command("touch /tmp/withdrawn", { wait_seconds: 0 }));
  expect((await owner.call("cancel_run", { id: withdrawn })).text).toContain("before it started");
  const { text } = await owner.call("list_runs", { sandbox });
  const [again = ""] = /setup-held\.\w+(?=[^\n]*echo begun)/.exec(text) ?? [text];
  await owner.call("cancel_run", { id: again });
  expect((await calls.command("ls /tmp")).text).toMatch(/The set-up of this sandbox was cancelled[^]*made$/);
  await configure(sandbox, "");
  expect((await calls.command("ls /tmp")).text).not.toMatch(/set-up|withdrawn/);
});

it("runs again when it or its container is killed in the middle, and no more after three", async () => {
  const sandbox = "setup-killed";
  await configure(sandbox, HELD);
  for (let times = 1; times <= 3; times++) {
    const waiting = await callsIn(sandbox).command("true", { wait_seconds: 0 });
    const [run = ""] =
      /setup-killed\.\w+(?=\.)/.exec(waiting.text.slice(waiting.text.indexOf("still running"))) ?? [];
    await says(run, "begun");
    await evict(sandbox, { kill: true });
    await until(async () => (await result(run, { wait_seconds: 0 })).structured.state === "lost");
  }
  const { text, structured } = await callsIn(sandbox).command("echo works");
  expect([structured.stdout, text]).toEqual(["works\n", expect.stringContaining("3 times in a row")]);
  await configure(sandbox, "touch /tmp/ok");
  expect(await sh(sandbox, "ls /tmp/ok")).toBe("/tmp/ok\n");
});

it("that fails stops at its first error, is told by each answer, and keeps nothing from running", async () => {
  const sandbox = "setup-fails";
  await configure(sandbox, "echo so it goes >&2\n(exit 3)\ntouch /tmp/not-reached");
  const first = await callsIn(sandbox).command("ls /tmp/not-reached || echo works");
  expect(first.structured.stdout).toBe("works\n");
  for (const { text } of [first, await owner.call("list_files", { sandbox, path: "/" })]) {
    expect(text).toContain("The set-up of this sandbox failed with exit code 3");
    expect(text).toContain("so it goes");
  }
  expect((await configure(sandbox, "echo a\u0000b")).isError).toBe(true);
  expect((await configure(sandbox, "x".repeat(100_001))).isError).toBe(true);
  await configure(sandbox, "true");
  expect((await callsIn(sandbox).command("echo again")).text).not.toContain("failed");
});
