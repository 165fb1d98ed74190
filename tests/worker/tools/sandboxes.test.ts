import { describe, expect, it, vi } from "vitest";
import { type Caller, evict, owner, principal, until, sleep, sandboxesOf, isRunning } from "../support.ts";

const run = (caller: Caller, sandbox: string, command: string) =>
  caller.call("run_command", { sandbox, command });

describe("sandboxes", () => {
  it("are created on first use and listed, the most recently used first", async () => {
    const caller = await principal("lister");
    expect((await caller.call("list_sandboxes")).text).toContain("You have no sandbox yet");
    await run(caller, "first", "true");
    await caller.call("run_command", { command: "true" });
    const found = await sandboxesOf(caller);
    expect(found).toMatchObject([
      { name: "default", state: "running" },
      { name: "first", state: "running" },
    ]);
    expect((await caller.call("list_sandboxes")).text).toMatch(/^default: running, .*\nfirst: running/);
  });

  it("must have a valid name, and an invalid one is refused with a valid one", async () => {
    const names = [
      ["", "sandbox"],
      ["-a", "a"],
      ["a.", "a"],
      ["../a", "a"],
      ["a".repeat(129), "a".repeat(128)],
      ["ž", "sandbox"],
      ["a\n", "a"],
      ["My project / 1", "My-project-1"],
    ] as const;
    const calls = [
      ["run_code", { code: "1" }],
      ["write_file", { path: "a", content: "" }],
      ["list_runs", {}],
      ["destroy_sandbox", {}],
    ] as const;
    for (const [tool, args] of calls)
      for (const [sandbox, proposal] of names)
        expect(await owner.call(tool, { ...args, sandbox })).toMatchObject({
          isError: true,
          text: expect.stringMatching(`sandbox must be 1 to 128 characters .*, such as "${proposal}"`),
        });
  });

  it("may have names that programs generate, and are separate if their names differ only at the end", async () => {
    const session = `${"s".repeat(60)}_._1`;
    const start = `build-my_repo.js-${"0".repeat(43)}`;
    const ends = [
      `${start}000`,
      `${start}0.9`,
      "user-alice@example.com",
      "user:42",
      "User:42",
      `A${"b".repeat(127)}`,
    ];
    const exposer = owner.withVariables({ PREVIEW_HOST: "preview.example" });
    const hosts = new Set<string>();
    for (const sandbox of ends) {
      const path = `${sandbox}.txt`;
      const written = await owner.call("write_file", { sandbox, path, content: sandbox });
      expect(written.isError, written.text).toBe(false);
      await owner.call("run_command", { sandbox, session, command: "cd /tmp; export name=kept" });
      const command = 'ls /workspace; echo "$PWD $name"';
      const found = await owner.call("run_command", { sandbox, session, command });
      expect(found.structured.stdout).toBe(`${path}\n/tmp kept\n`);
      const code = { sandbox, context: session, code: "1 + 1" };
      expect((await owner.call("run_code", code)).structured.id).toMatch(`${sandbox}.`);
      const { runs } = (await owner.call("list_runs", { sandbox })).structured as { runs: { id: string }[] };
      expect(runs).toHaveLength(3);
      const last = await owner.call("list_runs", { sandbox, cursor: runs[1]?.id });
      expect(last.structured.runs).toHaveLength(1);
      expect((await owner.call("get_result", { id: runs[1]?.id })).text).toContain("/tmp kept");
      const [name, file] = [sandbox, path].map(encodeURIComponent);
      for (const address of [`${name}/files/${file}`, `${sandbox}/files/${path}`])
        expect(await (await owner.http(`/sandboxes/${address}`)).text()).toBe(sandbox);
      const read = async (uri: string) =>
        owner.result<{ contents: object[] }>({ method: "resources/read", params: { uri } });
      const uri = `sandbox://${name}/${file}`;
      expect(await read(uri)).toMatchObject({ contents: [{ uri, text: sandbox }] });
      const log = `sandbox://runs/${encodeURIComponent(String(runs[1]?.id))}/log`;
      expect(await read(log)).toMatchObject({ contents: [{ text: expect.stringContaining("/tmp kept") }] });
      const { url } = (await exposer.call("expose_port", { sandbox, port: 8000 })).structured;
      const [label = ""] = new URL(String(url)).hostname.split(".");
      expect(label).toMatch(/^[a-z0-9-]{1,63}$/);
      hosts.add(label.slice(0, label.lastIndexOf("-")));
    }
    expect(hosts.size).toBe(ends.length);
    expect(await sandboxesOf()).toEqual(
      expect.arrayContaining(ends.map((name) => expect.objectContaining({ name }))),
    );
    for (const sandbox of ends) await owner.call("destroy_sandbox", { sandbox });
  });

  it("may have only sessions and contexts with valid names", async () => {
    for (const name of ["", "_setup", "..", "a/b", "A", "a".repeat(65)])
      for (const call of [
        { command: "true", session: name },
        { code: "1", context: name },
      ])
        expect(await owner.call("code" in call ? "run_code" : "run_command", call)).toMatchObject({
          isError: true,
          text: expect.stringContaining("must be 1 to 64 characters (a-z, 0-9, -, _, .)"),
        });
  });
});

describe("destroy_sandbox", () => {
  const sandbox = "destroyed";

  it("is logged only if there was something to destroy", async () => {
    const caller = await principal("recorded");
    const spy = vi.spyOn(console, "log").mockImplementation(() => {});
    try {
      const line = `"action":"destroy","principal":"${caller.principalID}","sandbox":"ran"`;
      const lines = () => spy.mock.calls.filter(([text]) => String(text).includes(line)).length;
      for (let time = 0; time < 2; time += 1) {
        await caller.call("list_runs", { sandbox: "ran" });
        await caller.call("destroy_sandbox", { sandbox: "ran" });
      }
      expect(lines()).toBe(0);
      await run(caller, "ran", "true");
      await caller.call("destroy_sandbox", { sandbox: "ran" });
      expect(lines()).toBe(1);
      await caller.call("destroy_sandbox", { sandbox: "ran" });
      expect(lines()).toBe(1);
    } finally {
      spy.mockRestore();
    }
  });

  it("ends processes and kernels, deletes files, keeps the records, and frees the name", async () => {
    const prepared = await run(owner, sandbox, "echo kept; echo file >file; export A=1; cd /tmp");
    await owner.call("run_code", { sandbox, code: "x = 1" });
    const running = [
      owner.call("run_command", { sandbox, command: "echo begun; sleep 1000", session: "b" }),
      owner.call("run_code", { sandbox, code: "print('begun'); import time; time.sleep(100)", context: "b" }),
    ];
    // A call that has not arrived yet would start in the next sandbox.
    const begun = async () => {
      const { runs } = (await owner.call("list_runs", { sandbox })).structured as { runs: { id: string }[] };
      const ids = runs.map(({ id }) => ({ id, wait_seconds: 0 }));
      const results = await Promise.all(ids.map((of) => owner.call("get_result", of)));
      return results.filter(({ text }) => text.includes("stdout: begun")).length;
    };
    await until(async () => (await begun()) === 2);
    const result = await owner.call("destroy_sandbox", { sandbox });
    expect(result).toMatchObject({
      isError: false,
      structured: { sandbox, existed: true },
    });
    expect((await sandboxesOf()).map(({ name }) => name)).not.toContain(sandbox);
    for (const { text, isError } of await Promise.all(running)) {
      expect(isError).toBe(false);
      expect(text).toContain("state: lost");
      expect(text).toContain("The sandbox was destroyed during this run.");
      expect(text).toContain("stdout: begun");
    }
    expect((await owner.call("get_result", { id: prepared.structured.id })).text).toContain("kept");
    const anew = await run(owner, sandbox, "ls; echo [$A] $PWD; pgrep -c sleep || true");
    expect(anew.structured.stdout).toBe("[] /workspace\n0\n");
    expect(anew.structured.notice).toBeUndefined();
    expect((await owner.call("run_code", { sandbox, code: "x" })).text).toContain("NameError");
  });

  it("of a sandbox that never existed leaves its name usable when the actor is replaced", async () => {
    const name = "never-existed";
    const { isError, text } = await owner.call("destroy_sandbox", { sandbox: name });
    expect({ isError, text }).toMatchObject({ isError: false, text: expect.stringContaining("no sandbox") });
    await evict(name);
    expect((await run(owner, name, "echo ran")).structured.stdout).toBe("ran\n");
    await owner.call("destroy_sandbox", { sandbox: name });
  });

  it("reports that a sandbox does not exist, also after it was destroyed, and needs the sandbox's name", async () => {
    expect((await owner.call("destroy_sandbox", { sandbox: "never-there" })).structured).toMatchObject({
      existed: false,
    });
    // It runs since the previous test.
    expect(await isRunning(sandbox)).toBe(true);
    const results = await Promise.all([1, 2].map(() => owner.call("destroy_sandbox", { sandbox })));
    expect(results.map(({ isError }) => isError)).toEqual([false, false]);
    expect((await owner.call("destroy_sandbox", { sandbox })).structured).toMatchObject({
      existed: false,
    });
    expect((await owner.call("destroy_sandbox", {})).isError).toBe(true);
  });
});

describe("a call that comes while its sandbox is destroyed", () => {
  it.concurrent.each([
    [0, "list_files"],
    [80, "run_command"],
  ])("after %i ms by %s leaves a sandbox that is listed, or none", async (ms, tool) => {
    const sandbox = `at-once-${ms}`;
    await run(owner, sandbox, "true");
    const destroyed = owner.call("destroy_sandbox", { sandbox });
    await sleep(ms);
    const args = tool === "run_command" ? { command: "sleep 4007", wait_seconds: 0 } : {};
    await Promise.all([destroyed, owner.call(tool, { sandbox, ...args })]);
    const runs = await isRunning(sandbox);
    const known = (await sandboxesOf()).some(({ name, state }) => name === sandbox && state === "running");
    expect(known || !runs).toBe(true);
    await owner.call("destroy_sandbox", { sandbox });
  });
});
