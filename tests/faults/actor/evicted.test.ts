/** The actor is evicted, with everything in its memory, at random moments of a run. */
import { env } from "cloudflare:workers";
import * as fc from "fast-check";
import { afterAll, describe, expect, it, vi } from "vitest";
import { type Result, evict, idIn, owner, sh, sleep } from "../../worker/support.ts";

const ROUNDS = Reflect.get(env, "FAULTS") === "long" ? 60 : 4;
/** A run is stored after a second at the latest; a busy machine needs a little more. */
const WRITTEN_MS = 1500;
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

const options = { numRuns: ROUNDS, seed: Date.now() & 0x7fffffff, endOnFailure: true };

afterAll(() => {
  console.log(`evictions: seed ${options.seed}`);
});

/** Evicts at these moments. Returns the times in milliseconds since the epoch. */
async function evictAt(sandbox: string, when: readonly number[]): Promise<number[]> {
  const evictions: number[] = [];
  for (const ms of when) {
    await sleep(ms);
    evictions.push(Date.now());
    await evict(sandbox);
  }
  return evictions;
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
        // Most evictions come after the run was stored.
        const at = round % 3 === 0 ? when : [2200, ...when.slice(1)];
        const quiet = round % 2 === 0 ? "sleep 2.5; " : "";
        const command = `echo ${mark} >> started; date +%s%3N > begun-${mark}; ${quiet}for i in {1..20}; do echo $i; sleep 0.1; done`;
        const answer = owner.call("run_command", { sandbox, command, session: mark });
        const evictions = await evictAt(sandbox, at);
        const isResult = checkAnswer(await answer);
        const id = await runOf(sandbox, mark);
        const starts = Number(await sh(sandbox, `grep -cx ${mark} started || true`, { session: "look" }));
        const startedAt = Number(await sh(sandbox, `cat begun-${mark} || echo NaN`, { session: "look" }));
        // A request that the actor sent before its eviction may take effect a moment later.
        const first = evictions.find((time) => time > startedAt - 200) ?? Number.NaN;
        const isDue = isResult || first - startedAt >= WRITTEN_MS;
        // The actor was evicted before it stored the run. No caller has its id, and the command may or may not have
        // run.
        if (id === undefined && !isDue) return;
        expect(id, `begun ${startedAt}, evicted ${evictions.join(", ")}`).toBeDefined();
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
    const from = Date.now();
    const waiting = owner.call("get_result", { id: idIn(endless), wait_seconds: 6 });
    await sleep(5000);
    await evict(sandbox);
    expect((await waiting).text).toContain("Still running");
    // The wait does not start again from the beginning.
    expect(Date.now() - from).toBeLessThan(11_000);
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
