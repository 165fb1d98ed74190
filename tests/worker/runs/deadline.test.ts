/** Runs end in time, although user code can hide its end or report a false one. */
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { ActiveRun } from "../../../src/runs/active-run.ts";
import { callsIn, idIn, owner, sh, sleep, until, result, waitForText } from "../support.ts";

const sandbox = "deadline";

beforeAll(() => sh(sandbox, "true"));
const { command } = callsIn(sandbox);

/** A command that stops its own shell, which would report the command's end. */
const ENDLESS = "kill -STOP $PPID; echo begun; sleep 1000";

describe.concurrent("a command that hides its end", () => {
  it("is ended at its deadline, and its session continues", async () => {
    const started = await command(ENDLESS, { session: "hidden", timeout_seconds: 10, wait_seconds: 0 });
    const ended = await result(idIn(started), { wait_seconds: 45 });
    expect(ended.text).toContain("state: timed_out");
    expect(ended.text).toContain("begun");
    expect(await sh(sandbox, "echo next", { session: "hidden" })).toBe("next\n");
  });

  it("is ended when it is cancelled", async () => {
    const id = idIn(await command(ENDLESS, { session: "cancelled", wait_seconds: 0 }));
    await waitForText(id, "begun");
    const cancelled = await owner.call("cancel_run", { id });
    expect(cancelled.text).toContain("state: cancelled");
    await until(async () => (await sh(sandbox, `pgrep -fc 'SANDBOX_MCP_RUN=${id}' || true`)) === "0\n");
  });
});

describe("user programs in place of the system's programs", () => {
  const NAMES = "stat tail head base64 grep fallocate mv cat chmod find sort wc setsid mkdir rm".split(" ");

  it("do not break commands, files and code", async () => {
    const liars = NAMES.map((name) => `printf '#!/bin/sh\\necho 999999999999\\n' >$HOME/.local/bin/${name}`);
    await command(`mkdir -p $HOME/.local/bin; ${liars.join("; ")}; chmod +x $HOME/.local/bin/*`);
    const shadows = NAMES.map((name) => `${name}() { echo 999999999999; }; export -f ${name}`).join("; ");
    const session = "shadowed";
    const shadow = `export PATH=$HOME/.local/bin:$PATH; ${shadows}; cd() { echo no; }; printf() { echo no; }; export -f cd printf
      export BASH_ENV=/tmp/env LD_PRELOAD=/tmp/none.so; echo 'echo from BASH_ENV' >/tmp/env`;
    await command(shadow, { session });
    // The command itself uses the user's programs.
    const lied = await command("stat /", { session });
    expect(lied.structured).toMatchObject({ state: "succeeded", stdout: "999999999999\n" });
    const long = await command("for i in {1..20000}; do echo $i; done; sleep 1.2; echo the end", {
      session,
      cwd: "/tmp",
      env: { ONLY: "1" },
      timeout_seconds: 30,
    });
    expect(long.structured).toMatchObject({ state: "succeeded" });
    expect(long.structured.stdout).toMatch(/^1\n2\n.*the end\n$/s);
    const content = "a line\n".repeat(20_000);
    await owner.call("write_file", { sandbox, path: "long", content });
    await owner.call("write_file", { sandbox, path: "long", content: "last", append: true });
    expect((await owner.call("read_file", { sandbox, path: "long", offset: 20_001 })).text).toContain("last");
    expect((await owner.call("list_files", { sandbox })).text).toContain("long");
    const slow = await command("echo begun; sleep 1000", { session, timeout_seconds: 1 });
    expect(slow.structured).toMatchObject({ state: "timed_out" });
  });
});

describe("output that arrives long after its code has ended", () => {
  const slow = "deadline-slow";
  const code = "import sys\nprint('a warning', file=sys.stderr)\nprint('x' * 3_000_000)\n{'answer': 42}";
  beforeAll(() => owner.call("run_code", { sandbox: slow, code: "1" }));
  afterAll(() => owner.call("destroy_sandbox", { sandbox: slow }));
  afterEach(() => void vi.restoreAllMocks());

  /** Holds the output of the sandbox's runs until the promise resolves. */
  function hold(released: Promise<unknown>) {
    const take = ActiveRun.prototype.take;
    vi.spyOn(ActiveRun.prototype, "take").mockImplementation(async function (this: ActiveRun, output) {
      if (this.record.id.startsWith(slow)) await released;
      await take.call(this, output);
    });
  }

  it("does not count in the time limit and the duration of the code", async () => {
    hold(sleep(24_000));
    const { structured, text } = await owner.call("run_code", {
      sandbox: slow,
      code,
      timeout_seconds: 5,
      wait_seconds: 40,
    });
    expect(text).toContain("{'answer': 42}");
    expect(structured).toMatchObject({ state: "succeeded", stdout_bytes: 3_000_001 });
    expect(structured.note).toBeUndefined();
    const { structured: listed } = await owner.call("list_runs", { sandbox: slow, limit: 1 });
    const [run] = listed.runs as { duration_ms: number }[];
    expect(run?.duration_ms).toBeLessThan(10_000);
  });

  it.each(["the limit of the delivery", "a cancel"])(
    "does not change the run's result, and %s ends the wait for it",
    async (what) => {
      const held = Promise.withResolvers<void>();
      hold(held.promise);
      if (what !== "a cancel") {
        const setTimer = globalThis.setTimeout;
        vi.spyOn(globalThis, "setTimeout").mockImplementation(((work: () => void, ms: number) =>
          setTimer(work, Math.abs(ms - 600_000) < 1000 ? 100 : ms)) as never);
      }
      const started = await owner.call("run_code", {
        sandbox: slow,
        code,
        timeout_seconds: 30,
        wait_seconds: 3,
      });
      const id = String(started.structured.id);
      if (what === "a cancel") await owner.call("cancel_run", { id });
      const { structured, text } = await owner.call("get_result", { id, wait_seconds: 40 });
      expect(structured).toMatchObject({ state: "succeeded", stdout_bytes: 3_000_001, stderr_bytes: 10 });
      expect(text).toContain("{'answer': 42}");
      expect(text).toContain("a warning");
      expect(text).toContain("the sandbox did not deliver them in time");
      vi.restoreAllMocks();
      held.resolve();
      expect((await owner.call("run_code", { sandbox: slow, code: "6 * 7" })).text).toContain("42");
    },
  );
});
