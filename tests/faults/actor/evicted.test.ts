/** The actor is evicted, with all it had in memory, at random moments of a run: at any await there is. */
import { env } from "cloudflare:workers";
import * as fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { evict, idIn, owner, sh } from "../../worker/support.ts";

const ROUNDS = Reflect.get(env, "FAULTS") === "long" ? 60 : 6;
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Moments of eviction within a run, in milliseconds from its start or from the eviction before. */
const moments = fc.array(fc.oneof(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 1500 })), {
  minLength: 1,
  maxLength: 3,
});

const options = { numRuns: ROUNDS, seed: Date.now() & 0x7fffffff, endOnFailure: true };

afterAll(() => {
  console.log(`evictions: seed ${options.seed}`);
});

/** Evicts at these moments; each answer that an eviction cut off is asked for again by its id, as a client would. */
async function evictAt(sandbox: string, when: readonly number[]): Promise<void> {
  for (const ms of when) {
    await pause(ms);
    await evict(sandbox);
  }
}

async function runOf(sandbox: string, mark: string): Promise<string | undefined> {
  const { structured } = await owner.call("list_runs", { sandbox, limit: 5 });
  const runs = structured.runs as { id: string; title: string }[];
  return runs.find(({ title }) => title.startsWith(`echo ${mark} `))?.id;
}

describe("actor evicted at any await of a run", () => {
  it("a command is followed to its end by the next actor: output whole, nothing doubled, run once", async () => {
    const sandbox = "evict-command";
    await sh(sandbox, "true");
    let round = 0;
    await fc.assert(
      fc.asyncProperty(moments, async (when) => {
        const mark = `m${round++}`;
        const command = `echo ${mark} >> started; for i in {1..20}; do echo $i; sleep 0.1; done`;
        const answer = owner.call("run_command", { sandbox, command, session: mark }).catch(() => undefined);
        await evictAt(sandbox, when);
        await answer;
        const id = await runOf(sandbox, mark);
        const starts = Number(await sh(sandbox, `grep -cx ${mark} started || true`, { session: "look" }));
        // Evicted before the run was on disk: nobody was given its id, and it may or may not have begun.
        if (id === undefined) return;
        const { text } = await owner.call("get_result", { id });
        if (text.includes("state: lost"))
          expect({ starts, text }).toMatchObject({ starts: 0, text: expect.stringContaining("never ran") });
        else expect(text).toContain(Array.from({ length: 20 }, (_, i) => i + 1).join("\n"));
      }),
      options,
    );
  });

  it("a command whose id was given out is followed to its end, or has never started and says so", async () => {
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
          expect(text).toContain("never ran");
          expect(await sh(sandbox, `ls ${mark} 2>/dev/null || true`, { session: "look" })).toBe("");
          return;
        }
        expect(text).toContain("exit_code: 3");
        expect(text).toContain(Array.from({ length: 20 }, (_, i) => i + 1).join("\n"));
      }),
      options,
    );
  });

  it("code whose id was given out ends: with its result, or lost with the reason", async () => {
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
        expect(text).toMatch(/finished|state: lost[^]*The server was restarted while it ran/);
        expect((await owner.call("run_code", { sandbox, code: "6 * 7" })).text).toContain("42");
      }),
      options,
    );
  });

  it("a file that was acknowledged is there, and an append is there once", async () => {
    const sandbox = "evict-files";
    await sh(sandbox, "true");
    let round = 0;
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: 40 }), async (ms) => {
        const line = `line ${round++}\n`;
        const content = `${line}${"x".repeat(round % 2 ? 10 : 100_000)}`;
        const writes = [
          owner
            .call("write_file", { sandbox, path: "log", content: line, append: true })
            .catch(() => undefined),
          owner.call("write_file", { sandbox, path: `file-${round}`, content }).catch(() => undefined),
        ];
        await evictAt(sandbox, [ms]);
        const [appended, written] = await Promise.all(writes);
        const count = Number(await sh(sandbox, `grep -cx '${line.trim()}' log || true`));
        if (appended && !appended.isError) expect(count).toBe(1);
        expect(count).toBeLessThanOrEqual(1);
        if (written && !written.isError)
          expect((await sh(sandbox, `stat -c %s file-${round}`)).trim()).toBe(String(content.length));
      }),
      { ...options, numRuns: ROUNDS * 3 },
    );
    expect(await sh(sandbox, "ls -A | grep -v '^file-\\|^log$' || true")).toBe("");
  });
});
