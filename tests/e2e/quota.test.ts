/**
 * The quota of a principal, at the server that `npm start` started: 100 parallel calls, and all ways in which runs
 * end.
 */
import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { startServer } from "../setup/server.ts";
import type { Result } from "../setup/mcp-client.ts";
import { tool } from "../setup/tool.ts";
import { until } from "../setup/until.ts";
import { temporaryDirectory } from "../setup/temporary.ts";

const RUNS = 10;
/** Few, because each sandbox takes 0.4 s of processor time. */
const SANDBOXES = 2;
/** The time of one run. */
const RUN_SECONDS = 2;
/** The limit of run seconds for a day. */
const SECONDS = 5 * RUN_SECONDS;

const tokenOf = (name: string) => `e2e-quota-token-of-${name}`;
const NAMES = ["many", "ends", "destroys", "seconds", "sandboxes"];

const AUTH_TOKENS = NAMES.map((name) => ({
  name,
  sha256: createHash("sha256").update(tokenOf(name)).digest("hex"),
  scopes: ["sandbox:read", "sandbox:write", "sandbox:exec"],
}));
const limits = { MAX_CONCURRENT_RUNS: String(RUNS), MAX_SANDBOXES: String(SANDBOXES) };
const server = endLater(await startServer({ env: { AUTH_TOKENS: JSON.stringify(AUTH_TOKENS), ...limits } }));

interface Answer extends Result {
  structured: {
    id?: string;
    runs?: { id: string; state: string }[];
    sandboxes?: { name: string }[];
    run_seconds_today?: number;
  };
}

function caller(name: string, to = () => server) {
  return (named: string, args: Record<string, unknown>): Promise<Answer> =>
    tool(to().url, named, args, { token: tokenOf(name) });
}

type Call = ReturnType<typeof caller>;

const sandboxes = (count: number) => Array.from({ length: count }, (_, index) => `q${index}`);

/** Starts `count` commands in parallel in several sandboxes. They run until they are stopped. */
function startAtOnce(call: Call, count: number, names: readonly string[]): Promise<Answer[]> {
  return Promise.all(
    Array.from({ length: count }, (_, index) =>
      call("run_command", {
        command: "sleep 100",
        session: `s${index}`,
        sandbox: names[index % names.length],
        timeout_seconds: 120,
        wait_seconds: 0,
      }),
    ),
  );
}

async function listRunning(call: Call, names: readonly string[]): Promise<string[]> {
  const lists = await Promise.all(names.map((sandbox) => call("list_runs", { sandbox, limit: 200 })));
  return lists
    .flatMap(({ structured }) => structured.runs ?? [])
    .filter(({ state }) => state === "running")
    .map(({ id }) => id);
}

// Concurrent, because some tests mostly wait.
describe.concurrent("a principal's quota", () => {
  describe("for parallel use", () => {
    it.sequential("limits the runs of 100 parallel calls over many sandboxes, also after these runs have ended", async () => {
      const call = caller("many");
      const names = sandboxes(SANDBOXES);
      for (let round = 0; round < 2; round++) {
        const answers = await startAtOnce(call, 100, names);
        const refused = answers.filter(({ isError }) => isError);
        for (const { text } of refused)
          expect(text).toMatch(/You have \d+ runs at once, and your limit is 10\..*cancel_run/);
        const ids = await listRunning(call, names);
        expect(ids).toHaveLength(RUNS);
        expect(refused).toHaveLength(100 - RUNS);
        await Promise.all(ids.map((id) => call("cancel_run", { id })));
      }
    });

    it.sequential("is released by runs that ended, failed, timed out or were cancelled, killed or refused", async () => {
      const call = caller("ends");
      const [a = "", b = ""] = sandboxes(2);
      const endInEveryWay = async (sandbox: string, session: string) => {
        const run = (command: string, more = {}) =>
          call("run_command", { sandbox, session, command, timeout_seconds: 20, ...more });
        await run("true");
        await run("exit 3");
        await run("sleep 5", { timeout_seconds: 1 });
        await run("true", { cwd: "/nowhere" });
        await run("kill -9 $$");
        const cut = await run("sleep 50", { wait_seconds: 0 });
        await call("cancel_run", { id: cut.structured.id });
      };
      await Promise.all([
        endInEveryWay(a, "one"),
        endInEveryWay(a, "two"),
        endInEveryWay(b, "one"),
        endInEveryWay(b, "two"),
      ]);
      await call("run_code", { sandbox: a, code: "1/0", timeout_seconds: 20 });
      await call("run_code", { sandbox: a, code: "import os; os._exit(1)", timeout_seconds: 20 });
      await call("run_code", { sandbox: a, code: "while True: pass", timeout_seconds: 1 });
      expect(await listRunning(call, [a, b])).toEqual([]);
      await startAtOnce(call, RUNS + 5, [a]);
      const ids = await listRunning(call, [a]);
      expect(ids).toHaveLength(RUNS);
      await Promise.all(ids.map((id) => call("cancel_run", { id })));
      await startAtOnce(call, RUNS + 5, [b]);
      expect(await listRunning(call, [b])).toHaveLength(RUNS);
      // The runs end with their sandbox, and the other sandbox gets their slots.
      await call("destroy_sandbox", { sandbox: b });
      await startAtOnce(call, RUNS + 5, [a]);
      expect(await listRunning(call, [a])).toHaveLength(RUNS);
    });

    it.sequential("cannot be exceeded by runs in sandboxes that were destroyed and created again", async () => {
      const call = caller("destroys");
      const names = sandboxes(SANDBOXES);
      for (const sandbox of names) {
        await call("run_command", { sandbox, command: "true", timeout_seconds: 2 });
        await call("destroy_sandbox", { sandbox });
      }
      await startAtOnce(call, 40, names);
      expect(await listRunning(call, names)).toHaveLength(RUNS);
    });

    it.sequential("limits the sandboxes of 100 parallel calls, and the refusal says how to free one", async () => {
      const call = caller("sandboxes");
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, index) => call("list_files", { path: ".", sandbox: `n${index}` })),
      );
      const refused = answers.filter(({ isError }) => isError);
      expect(refused).toHaveLength(100 - SANDBOXES);
      for (const { text } of refused)
        expect(text).toMatch(/You have 2 sandboxes, and your limit is 2\..*destroy_sandbox/);
      const { structured } = await call("list_sandboxes", {});
      expect(structured.sandboxes).toHaveLength(SANDBOXES);
      await call("destroy_sandbox", { sandbox: structured.sandboxes?.[0]?.name });
      expect((await call("list_files", { path: ".", sandbox: "one-more" })).isError).toBe(false);
    });
  });

  it("counts the day's run seconds, also of a destroyed sandbox and from before a restart of the server", async () => {
    const state = temporaryDirectory();
    const flags = ["--state-dir", state];
    const env = {
      AUTH_TOKENS: JSON.stringify([
        {
          name: "seconds",
          sha256: createHash("sha256").update(tokenOf("seconds")).digest("hex"),
          scopes: ["sandbox:read", "sandbox:write", "sandbox:exec"],
        },
      ]),
      MAX_RUN_SECONDS_PER_DAY: String(SECONDS),
    };
    let ownServer = await startServer({ flags, env });
    const call = caller("seconds", () => ownServer);
    const spendSeconds = (sandbox: string) =>
      call("run_command", {
        sandbox,
        command: `sleep ${RUN_SECONDS}`,
        timeout_seconds: RUN_SECONDS + 1,
        wait_seconds: 50,
      });
    try {
      expect((await spendSeconds("first")).isError).toBe(false);
      await call("destroy_sandbox", { sandbox: "first" });
      const usage = (await call("list_sandboxes", {})).structured.run_seconds_today;
      expect(usage).toBeGreaterThanOrEqual(RUN_SECONDS);
      expect((await spendSeconds("second")).isError).toBe(false);
      // The next server knows the seconds that were not yet reported to the account.
      await ownServer.stop();
      ownServer = await startServer({ flags, env });
      await call("list_runs", { sandbox: "second" });
      const used = async () => (await call("list_sandboxes", {})).structured.run_seconds_today ?? 0;
      await until(async () => (await used()) >= 2 * RUN_SECONDS);
      const answers: Answer[] = [];
      for (let index = 0; index < 5; index++) answers.push(await spendSeconds("second"));
      // At most the seconds of three runs remain, and the last run may get less time.
      const refused = answers.filter(({ isError }) => isError);
      expect(refused.length).toBeGreaterThanOrEqual(2);
      for (const { text } of refused) expect(text).toContain(`of ${SECONDS} run seconds today`);
    } finally {
      await ownServer.stop();
    }
  });
});
