/** The actor is evicted, with everything in its memory, at random moments of a run. */
import * as fc from "../../setup/chance.ts";
import { describe, expect, inject, it, vi } from "vitest";
import { Sandbox } from "../../../src/actors/sandbox.ts";
import { type Result, evict, idIn, owner, runInActor, sh, sleep, until } from "../../worker/support.ts";

const ROUNDS = inject("isLong") ? 60 : 4;
vi.setConfig({ testTimeout: (ROUNDS + 2) * 30_000 });

/** Moments of eviction in milliseconds, from the start of the run or from the previous eviction. */
const moments = fc.array(fc.oneof(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 1500 })), {
  minLength: 1,
  maxLength: 3,
});

/** The errors that a call may return if its actor is evicted during the call. */
const RESTARTED = /^The server restarted during this call for sandbox [a-z-]+\. .* list_runs with sandbox/;

/** Checks that a call returned a result, or an error that gives the reason. Returns whether it was a result. */
function checkAnswer({ isError, text }: Result): boolean {
  expect(text).not.toContain("Internal error");
  if (isError) expect(text).toMatch(RESTARTED);
  return !isError;
}

const options = { numRuns: ROUNDS, endOnFailure: true };

async function evictAt(sandbox: string, when: readonly number[]): Promise<void> {
  for (const ms of when) {
    await sleep(ms);
    await evict(sandbox);
  }
}

/** Whether the actor's database has the run of the command that begins with `echo MARK`. */
async function isStored(sandbox: string, mark: string): Promise<boolean> {
  const query = "SELECT 1 FROM runs WHERE title LIKE ?";
  return await runInActor(
    sandbox,
    (_actor, { storage }) => storage.sql.exec(query, `echo ${mark} %`).toArray().length > 0,
  );
}

async function runOf(sandbox: string, mark: string): Promise<string | undefined> {
  const { structured } = await owner.call("list_runs", { sandbox, limit: 5 });
  const runs = structured.runs as { id: string; title: string }[];
  return runs.find(({ title }) => title.startsWith(`echo ${mark} `))?.id;
}

// Concurrent, because the tests mostly wait. Each uses its own sandbox.
describe.concurrent("when an actor is evicted at random moments", () => {
  it("the next actor follows a command to its end; the command runs once, and its output is complete and not repeated", async () => {
    const sandbox = "evict-command";
    await sh(sandbox, "true");
    let round = 0;
    let recorded = 0;
    await fc.assert(
      fc.asyncProperty(moments, async (when) => {
        const mark = `m${round++}`;
        // Most evictions come after the run was stored, which must happen before the command ends.
        const isStoredFirst = round % 3 !== 0;
        const hold = isStoredFirst ? `until [ -e go-${mark} ]; do sleep 0.1; done; ` : "sleep 2.5; ";
        const [before, after] = round % 2 === 0 ? [hold, ""] : ["", hold];
        const command = `echo ${mark} >> started; ${before}for i in {1..20}; do echo $i; sleep 0.1; done; ${after}`;
        const answer = owner.call("run_command", { sandbox, command, session: mark });
        if (isStoredFirst) {
          await until(() => isStored(sandbox, mark));
          await sh(sandbox, `touch go-${mark}`, { session: "look" });
        }
        let isDue = false;
        for (const ms of when) {
          await sleep(ms);
          isDue ||= await isStored(sandbox, mark);
          await evict(sandbox);
        }
        isDue = checkAnswer(await answer) || isDue;
        const id = await runOf(sandbox, mark);
        const starts = Number(await sh(sandbox, `grep -cx ${mark} started || true`, { session: "look" }));
        // The actor was evicted before it stored the run. No caller has its id, and the command may or may not have
        // run.
        if (id === undefined && !isDue) return;
        expect(id).toBeDefined();
        recorded++;
        const { text } = await owner.call("get_result", { id: id ?? "" });
        if (text.includes("state: lost"))
          expect({ starts, text }).toMatchObject({
            starts: 0,
            text: expect.stringContaining("never started"),
          });
        else {
          expect(text).toContain(Array.from({ length: 20 }, (_, i) => i + 1).join("\n"));
          expect(starts).toBe(1);
        }
      }),
      options,
    );
    // In a round without a stored run, the test has checked almost nothing. Such rounds must be few.
    expect(recorded).toBeGreaterThanOrEqual(ROUNDS / 2);
  });

  it("the next actor follows a command with an id to its end, or says that it never started", async () => {
    const sandbox = "evict-given";
    await sh(sandbox, "true");
    let round = 0;
    let mark = "";
    await fc.assert(
      fc.asyncProperty(moments, async (when) => {
        const started = await owner.call("run_command", {
          sandbox,
          command: `touch ${(mark = `m${round++}`)}; for i in {1..20}; do echo $i; sleep 0.1; done; exit 3`,
          wait_seconds: 0,
        });
        await evictAt(sandbox, when);
        const { text } = await owner.call("get_result", { id: idIn(started) });
        if (text.includes("state: lost")) {
          expect(text).toContain("never started");
          expect(await sh(sandbox, `ls ${mark} 2>/dev/null || true`, { session: "look" })).toBe("");
          return;
        }
        expect(text).toContain("exit_code: 3");
        expect(text).toContain(Array.from({ length: 20 }, (_, i) => i + 1).join("\n"));
      }),
      options,
    );
  });

  it("code with an id ends with its result, or is lost with the reason", async () => {
    const sandbox = "evict-code";
    await owner.call("run_code", { sandbox, code: "1" });
    await fc.assert(
      fc.asyncProperty(moments, async (when) => {
        const started = await owner.call("run_code", {
          sandbox,
          code: "import time\nfor i in range(8): time.sleep(0.1)\n'finished'",
          wait_seconds: 0,
        });
        await evictAt(sandbox, when);
        const { text } = await owner.call("get_result", { id: idIn(started) });
        expect(text).toMatch(/finished|state: lost[^]*The server was restarted while the code ran/);
        expect((await owner.call("run_code", { sandbox, code: "6 * 7" })).text).toContain("42");
      }),
      options,
    );
  });

  it("the next actor repeats a read within the caller's original waiting time", async () => {
    const sandbox = "evict-reads";
    const run = await owner.call("run_command", { sandbox, command: "sleep 2; echo ended", wait_seconds: 0 });
    await sh(sandbox, "echo kept > file", { session: "look" });
    const reads = [
      owner.call("get_result", { id: idIn(run), wait_seconds: 20 }),
      owner.call("read_file", { sandbox, path: "file" }),
      owner.call("list_files", { sandbox }),
      owner.call("list_runs", { sandbox }),
    ];
    await sleep(5);
    await evict(sandbox);
    const [ended, ...others] = await Promise.all(reads);
    expect(ended?.text).toContain("ended");
    expect(others.map(({ isError }) => isError)).toEqual([false, false, false]);
    const endless = await owner.call("run_command", { sandbox, command: "sleep 60", wait_seconds: 0 });
    const readRun = vi.spyOn(Sandbox.prototype, "readRun");
    const waiting = owner.call("get_result", { id: idIn(endless), wait_seconds: 12 });
    const waits = () =>
      readRun.mock.calls.flatMap(([, { id, waitMs }]) => (id === idIn(endless) ? [waitMs] : []));
    await until(() => waits().length === 1);
    await sleep(3000);
    await evict(sandbox);
    expect((await waiting).text).toContain("Still running");
    // The wait does not start again from the beginning.
    const [first = 0, second = Infinity] = waits();
    expect(second).toBeLessThan(first - 2000);
    readRun.mockRestore();
    await owner.call("cancel_run", { id: idIn(endless) });
  });

  it("a file exists if its write was confirmed, and an append happens once", async () => {
    const sandbox = "evict-files";
    await sh(sandbox, "true");
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 40 }), async (ms) => {
        const line = `line ${round++}\n`;
        const content = `${line}${"x".repeat(round % 2 ? 10 : 100_000)}`;
        const writes = [
          owner.call("write_file", { sandbox, path: "log", content: line, append: true }),
          owner.call("write_file", { sandbox, path: `file-${round}`, content }),
        ];
        await evictAt(sandbox, [ms]);
        const [isAppended, isWritten] = (await Promise.all(writes)).map(checkAnswer);
        const count = Number(await sh(sandbox, `grep -cx '${line.trim()}' log || true`));
        if (isAppended) expect(count).toBe(1);
        expect(count).toBeLessThanOrEqual(1);
        if (isWritten)
          expect((await sh(sandbox, `stat -c %s file-${round}`)).trim()).toBe(String(content.length));
      }),
      { ...options, numRuns: ROUNDS * 3 },
    );
    expect(await sh(sandbox, "ls -A | grep -v '^file-\\|^log$' || true")).toBe("");
  });
});
