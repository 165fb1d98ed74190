import { runInDurableObject } from "cloudflare:test";
import { expect, it, onTestFinished, vi } from "vitest";
import type { Account } from "../../../src/index.ts";
import { lacksFiles } from "../../../src/actors/saved-states.ts";
import {
  accountOf,
  callsIn,
  evict,
  idIn,
  runInActor,
  killContainer,
  owner,
  principal,
  result,
  waitForText,
  sh,
  sleep,
  until,
} from "../support.ts";

const configure = (sandbox: string, setup: string, more: Record<string, unknown> = {}) =>
  owner.call("configure_sandbox", { sandbox, setup, ...more });

/** A script that ends only when it is cancelled. */
const ENDLESS = "echo begun; sleep 600";

it("a set-up runs once before the first call, with the variables, and the next container and sandbox start from its result", async () => {
  const sandbox = "setup-once";
  // The last line stands for an installation with apt, which local sandboxes do not have.
  const script = `echo $WORD-$RANDOM$RANDOM >>~/.ran; cat ~/.ran >from; rm /opt/venv/lib64; mkdir /srv /srv/made
mkdir -p /var/lib/dpkg; echo installed >/var/lib/dpkg/status`;
  const look = "cat ~/.ran from; ls /srv; ls -d /opt/venv/lib64 2>/dev/null || echo none";
  const env = { WORD: "w" };
  expect((await configure(sandbox, script, { env, internet: "none" })).structured.setup).toBe("due");
  expect((await owner.call("read_file", { sandbox, path: "from" })).text).toContain("w-");
  const first = await callsIn(sandbox).command(look);
  const [ran] = String(first.structured.stdout).split("\n");
  const expectedFiles = `${ran}\n${ran}\nmade\nnone\n`;
  expect([first.structured.stdout, first.text]).toEqual([
    expectedFiles,
    expect.not.stringContaining("set up"),
  ]);
  await evict(sandbox);
  expect((await callsIn(sandbox).code("print(1)")).structured.stdout).toBe("1\n");
  expect((await configure(sandbox, script)).structured.setup).toBe("succeeded");
  await sh(sandbox, "echo mine >mine; echo later >~/.later");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
  await killContainer(sandbox);
  await until(async () => (await callsIn(sandbox).command("true")).text.includes("did not run again"));
  expect(await sh(sandbox, `${look}; cat mine ~/.later`)).toBe(`${expectedFiles}mine\nlater\n`);
  // Another sandbox starts from the result, has a notice about this, and has no later changes.
  await configure("setup-second", script, { env, internet: "none" });
  const second = await callsIn("setup-second").command(`${look}; ls mine ~/.later || true`);
  expect(second.structured.stdout).toBe(expectedFiles);
  expect(second.text).toMatch(
    /starts from the result of its set-up, saved at .*: the script did not run again/,
  );
  // A fork has the settings of the checkpoint, and the files of the set-up without another run.
  const fork = await owner.call("restore_sandbox", { checkpoint, sandbox: "setup-fork" });
  expect(fork.text).toContain("settings of the checkpoint");
  expect(await sh("setup-fork", `echo $WORD; ${look}; cat mine`)).toBe(`w\n${expectedFiles}mine\n`);
  expect((await owner.call("configure_sandbox", { sandbox: "setup-fork" })).structured).toMatchObject({
    setup: "succeeded",
    internet: "none",
    variables: ["WORD"],
  });
  // With other variables, another script or another principal, the set-up runs again.
  await configure("setup-third", script, { env: { WORD: "v" } });
  expect(await sh("setup-third", "cat ~/.ran")).toMatch(/^v-/);
  const other = await principal("set-up");
  await other.call("configure_sandbox", { sandbox, setup: script, env });
  const { structured } = await other.call("run_command", { sandbox, command: "cat ~/.ran" });
  expect(structured.stdout).toMatch(/^w-/);
  expect(structured.stdout).not.toContain(ran);
});

it("a set-up runs again in a fork whose saved files are incomplete", async () => {
  const sandbox = "setup-partial";
  await configure(sandbox, "echo ran >>~/.ran");
  expect(await sh(sandbox, "cat ~/.ran")).toBe("ran\n");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
  await runInDurableObject(accountOf(owner), (_account, { storage }) => {
    const of = "(SELECT snapshot FROM checkpoints WHERE id = ?)";
    const left = JSON.stringify({ count: 1, bytes: 5, names: ["large"] });
    storage.sql.exec(`UPDATE snapshots SET left_out = ? WHERE id = ${of}`, left, String(checkpoint));
  });
  const fork = "setup-partial-fork";
  await owner.call("restore_sandbox", { checkpoint, sandbox: fork });
  expect(await sh(fork, "cat ~/.ran")).toBe("ran\nran\n");
});

it.each([
  // Sockets are no loss.
  [{ count: 0, special: { count: 1, names: ["s"] } }, false],
  [{ count: 0, crowded: { count: 9, names: ["node_modules"] } }, true],
  [{ count: 0, unreadable: { count: 1, names: ["locked"] } }, true],
  [{ count: 1 }, true],
  [undefined, false],
])("saved files are incomplete if regular files are missing: %j", (left, isIncomplete) => {
  expect(lacksFiles(left)).toBe(isIncomplete);
});

it("a call waits for a set-up no longer than its waiting time; the set-up can be cancelled by its id, and another script replaces it", async () => {
  const sandbox = "setup-held";
  await configure(sandbox, ENDLESS);
  const calls = callsIn(sandbox);
  const waiting = await calls.command("echo after >/tmp/after; cat /tmp/made || true", { wait_seconds: 0 });
  expect(waiting.text).toContain("The sandbox's set-up runs first: setup-held.");
  const [firstRun = ""] =
    /setup-held\.\w+(?=\.)/.exec(waiting.text.slice(waiting.text.indexOf("set-up runs"))) ?? [];
  await waitForText(firstRun, "begun");
  // The next actor continues the set-up.
  await evict(sandbox);
  const behind = await calls.code("1 + 1", { wait_seconds: 0 });
  expect(behind.text).toContain(firstRun);
  expect((await configure(sandbox, "echo new >/tmp/made")).structured.setup).toBe("due");
  expect(await sh(sandbox, "cat /tmp/made")).toBe("new\n");
  expect((await result(idIn(behind))).text).toContain("2");
  expect((await result(firstRun)).structured.state).toBe("cancelled");
  await configure(sandbox, `touch half; ${ENDLESS}`);
  const withdrawn = idIn(await calls.command("touch /tmp/withdrawn", { wait_seconds: 0 }));
  expect((await owner.call("cancel_run", { id: withdrawn })).text).toContain("before it started");
  const { text } = await owner.call("list_runs", { sandbox });
  const [nextRun = ""] = /setup-held\.\w+(?=[^\n]*echo begun)/.exec(text) ?? [text];
  // No part of this workspace was saved before.
  const checkpoint = owner.call("checkpoint_sandbox", { sandbox });
  await waitForText(nextRun, "begun");
  await owner.call("cancel_run", { id: nextRun });
  expect((await calls.command("ls /tmp")).text).toMatch(/The set-up of this sandbox was cancelled[^]*made$/);
  expect((await checkpoint).structured).toMatchObject({ files: 1 });
  await configure(sandbox, "");
  expect((await calls.command("ls /tmp")).text).not.toMatch(/set-up|withdrawn/);
});

it("a set-up runs again if its container is killed, and is skipped after the third time", async () => {
  const sandbox = "setup-killed";
  await owner.call("write_file", { sandbox, path: "mine", content: "of before" });
  await configure(sandbox, `[ -d half ] || { mkdir half; touch half/made; ${ENDLESS}; }`);
  for (let times = 1; times <= 3; times++) {
    const waiting = await callsIn(sandbox).command("true", { wait_seconds: 0 });
    const [run = ""] =
      /setup-killed\.\w+(?=\.)/.exec(waiting.text.slice(waiting.text.indexOf("set-up runs"))) ?? [];
    await waitForText(run, "begun");
    await runInActor(sandbox, (one) => one.saveToStop());
    await evict(sandbox, { kill: true });
    await until(async () => (await result(run, { wait_seconds: 0 })).structured.state === "lost");
  }
  const { text, structured } = await callsIn(sandbox).command("ls; cat mine");
  expect([structured.stdout, text]).toEqual(["mine\nof before", expect.stringContaining("3 times in a row")]);
  await configure(sandbox, "touch /tmp/ok");
  expect(await sh(sandbox, "ls /tmp/ok")).toBe("/tmp/ok\n");
});

it("a set-up runs before a file call that writes, also if the container is killed meanwhile; a call that only reads does not start it", async () => {
  const sandbox = "setup-files";
  await configure(sandbox, "echo begun; sleep 1; ls >~/seen");
  const { text } = await callsIn(sandbox).command("true", { wait_seconds: 0 });
  const [run = ""] = /setup-files\.\w+(?=\.)/.exec(text.slice(text.indexOf("set-up runs"))) ?? [];
  await waitForText(run, "begun");
  const written = owner.call("write_file", { sandbox, path: "new", content: "text", append: true });
  await killContainer(sandbox);
  expect((await written).isError, (await written).text).toBeFalsy();
  expect(await sh(sandbox, "ls . ~/seen; cat ~/seen")).toBe("/root/seen\n\n.:\nnew\n");
  const [all, reader] = [await principal("set-up-reads"), await principal("set-up-reads", ["sandbox:read"])];
  await all.call("write_file", { sandbox, path: "file", content: "read" });
  await all.call("configure_sandbox", { sandbox, setup: "rm file" });
  expect((await reader.call("read_file", { sandbox, path: "file" })).text).toContain("read");
  expect((await all.call("configure_sandbox", { sandbox })).structured.setup).toBe("due");
});

it("a set-up that fails stops at its first error, is reported by each result, and blocks no call", async () => {
  const sandbox = "setup-fails";
  // Results show the end of the log. A cut at a byte would split a character here.
  await configure(
    sandbox,
    "{ printf 'é%.0s' {1..400}; echo 'so it goes\u200b'; } >&2\n(exit 3)\ntouch /tmp/not-reached",
  );
  const first = await callsIn(sandbox).command("ls /tmp/not-reached || echo works");
  expect(first.structured.stdout).toBe("works\n");
  for (const { text } of [first, await owner.call("list_files", { sandbox, path: "/" })]) {
    expect(text).toContain("The set-up of this sandbox failed with exit code 3");
    expect(text).toContain("so it goes");
    expect(text).not.toMatch(/[\ufffd\u200b]/);
  }
  expect((await configure(sandbox, "echo a\u0000b")).isError).toBe(true);
  expect((await configure(sandbox, "x".repeat(100_001))).isError).toBe(true);
  await configure(sandbox, "true");
  const { text } = await callsIn(sandbox).command("echo again");
  expect(text).toMatch(/The set-up of this sandbox ran first \([^)]*\)\.\n/);
});

it("files of a call that began before the set-up was set are in no other sandbox", async () => {
  const [sandbox, other] = ["setup-late", "setup-other"];
  const began = callsIn(sandbox).command("sleep 2; echo mine >own", { session: "before" });
  await until(() => runInActor(sandbox, async (actor) => (await actor.condition()).isAlive));
  await configure(sandbox, "sleep 4; echo built >from");
  await callsIn(sandbox).command("true");
  expect((await began).structured.state).toBe("succeeded");
  await configure(other, "sleep 4; echo built >from");
  expect(await sh(other, "ls")).toBe("from\n");
});

it("a set-up that failed is reported once in the answer of a task that has sent progress", async () => {
  const sandbox = "setup-fails-once";
  await configure(sandbox, "exit 3");
  const { text } = await owner.call(
    "execute_task",
    { sandbox, task: "[[write]] x" },
    { progressToken: "setup" },
  );
  expect(text.match(/The set-up of this sandbox failed/g)).toHaveLength(1);
});

it("a set-up runs before a command whose container ended while the command waited for quota", async () => {
  const sandbox = "setup-quota";
  await configure(sandbox, "touch /tmp/made");
  await sh(sandbox, "ls /tmp/made");
  // The next run has to ask the account.
  await runInActor(sandbox, (actor) => void actor.settleLease());
  const { promise: asked, resolve } = Promise.withResolvers<void>();
  let isEnded = false;
  const spy = await runInDurableObject(accountOf(owner), (account) => {
    const prototype: Account = Object.getPrototypeOf(account);
    const lease = Reflect.get(prototype, "lease") as Account["lease"];
    return vi.spyOn(prototype, "lease").mockImplementation(async function (this: Account, one, request) {
      if (one.sandbox === sandbox) resolve();
      while (one.sandbox === sandbox && !isEnded) await sleep(20);
      return await lease.call(this, one, request);
    });
  });
  onTestFinished(() => spy.mockRestore());
  const waiting = callsIn(sandbox).command("ls /tmp/made");
  await asked;
  await killContainer(sandbox);
  isEnded = true;
  expect((await waiting).structured).toMatchObject({ state: "succeeded", stdout: "/tmp/made\n" });
});

it("a sandbox that is destroyed while its set-up begins stays destroyed", async () => {
  const sandbox = "setup-destroyed";
  await configure(sandbox, ENDLESS);
  const { structured } = await callsIn(sandbox).command("true", { wait_seconds: 0 });
  await owner.call("destroy_sandbox", { sandbox });
  expect((await result(String(structured.id))).structured.state).toBe("lost");
  await sleep(2000);
  expect((await owner.call("list_sandboxes")).text).not.toContain(sandbox);
});

it("a task that waits for the set-up has an id and its sandbox's directory", async () => {
  const sandbox = "setup-task";
  await configure(sandbox, ENDLESS);
  const { structured } = await owner.call("execute_task", { task: "[[write]] x", sandbox, wait_seconds: 0 });
  expect(structured).toMatchObject({
    state: "running",
    success: false,
    directory: "/workspace",
    artifacts: [],
  });
  await owner.call("cancel_run", { id: structured.id });
  await owner.call("destroy_sandbox", { sandbox });
});
