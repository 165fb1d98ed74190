/** The actor's storage refuses operations, is slow, or reaches a limit. */
import { afterAll, afterEach, describe, expect, it, vi } from "vitest";
import { DAY_MS } from "../../../src/shared/days.ts";
import { actorOf, idIn, objectsOf, owner, sh, until } from "../../worker/support.ts";
import { bucketOf, endFaults } from "./worker.ts";

// Calls wait for time limits of the server.
vi.setConfig({ testTimeout: 180_000 });

afterAll(endFaults);

const refuse = async () => {
  throw new Error("R2 is not there (10001)");
};

/** Reads the whole log of a run, page by page. */
async function log(id: string): Promise<string> {
  let text = "";
  for (let cursor = 0; ;) {
    const page = await owner.call("get_result", { id, cursor, wait_seconds: 0 });
    if (page.isError) throw new Error(page.text);
    const {
      log: stretches,
      next_cursor,
      log_bytes,
    } = page.structured as {
      log: { text: string }[];
      next_cursor: number;
      log_bytes: number;
    };
    text += stretches.map((stretch) => stretch.text).join("");
    if (next_cursor >= log_bytes) return text;
    cursor = next_cursor;
  }
}

const COMMAND = "seq 1 60000";
const EXPECTED = Array.from({ length: 60_000 }, (_, index) => `${index + 1}\n`).join("");

describe("when R2 refuses operations", () => {
  const sandbox = "refused";
  afterEach(() => delete bucketOf(sandbox).fault);

  it("a run ends normally, and all of its output is stored and readable", async () => {
    bucketOf(sandbox).fault = refuse;
    const result = await owner.call("run_command", { sandbox, command: COMMAND });
    expect(result.structured).toMatchObject({ state: "succeeded", stdout_bytes: EXPECTED.length });
    expect(await log(String(result.structured.id))).toBe(EXPECTED);
  });

  it("reading a log fails with advice to retry, and succeeds once R2 works again", async () => {
    const result = await owner.call("run_command", { sandbox, command: COMMAND });
    const id = String(result.structured.id);
    await until(async () => (await objectsOf(id)).length > 0);
    bucketOf(sandbox).fault = refuse;
    // The database has the log too until the object is complete.
    const answer = await until(async () => {
      const read = await owner.call("get_result", { id, cursor: 0 });
      return read.isError ? read : undefined;
    });
    expect(answer.text).toMatch(/its storage did not respond.*again/);
    expect((await owner.call("get_result", { id })).text).toContain("60000");
    delete bucketOf(sandbox).fault;
    expect(await log(id)).toBe(EXPECTED);
  });

  it("the record of an expired log remains, and a later attempt deletes both", async () => {
    const result = await owner.call("run_command", { sandbox, command: COMMAND });
    const id = String(result.structured.id);
    await until(async () => (await objectsOf(id)).length > 0);
    const expire = async () => (await actorOf(sandbox)).evictRuns(Infinity, Date.now() + DAY_MS);
    bucketOf(sandbox).fault = refuse;
    await expect(expire()).rejects.toThrow("R2 is not there");
    // The actor may not have moved all of the log to R2 yet.
    const answer = await until(async () => {
      const text = await log(id).catch(String);
      return text === EXPECTED ? undefined : text;
    });
    expect(answer).toContain("did not respond");
    delete bucketOf(sandbox).fault;
    await expire();
    expect((await owner.call("get_result", { id })).text).toContain("There is no run");
    expect(await objectsOf(id)).toEqual([]);
  });
});

describe("when R2 is slow", () => {
  it("runs start, end and return results without waiting for R2, which gets the logs later", async () => {
    const sandbox = "slow-bucket";
    await sh(sandbox, "true");
    const held = Promise.withResolvers<void>();
    let hasStored = false;
    bucketOf(sandbox).fault = async () => {
      await held.promise;
      hasStored = true;
    };
    const result = await owner.call("run_command", { sandbox, command: COMMAND });
    expect(result.structured).toMatchObject({ state: "succeeded" });
    expect(await sh(sandbox, "echo next")).toBe("next\n");
    const id = String(result.structured.id);
    expect(await log(id)).toBe(EXPECTED);
    expect((await owner.call("list_runs", { sandbox })).isError).toBe(false);
    expect(hasStored).toBe(false);
    held.resolve();
    await until(() => hasStored);
    delete bucketOf(sandbox).fault;
    expect(await log(id)).toBe(EXPECTED);
  });
});

describe("when SQLite's row limit is reached", () => {
  it.each([
    ["many large results", "for _ in range(100): display('日本' * 100_000)\n'last'"],
    ["one long result", "'🐍' * 250_000"],
    [
      "an image over the limit",
      "from IPython.display import Image, display\nimport os\ndisplay(Image(data=b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(7_000_000), format='png'))",
    ],
    ["an exception with a huge message", "raise ValueError('日本' * 1_000_000)"],
    ["an exception with a huge name", "raise type('É' * 1_000_000, (Exception,), {})('x')"],
    [
      "a traceback of huge lines",
      `def f(n):\n    ${"x = '日'; ".repeat(3000)}\n    return f(n - 1) if n else 1 / 0\nf(60)`,
    ],
    ["a source with a huge first line", `x = '${"🐍".repeat(200_000)}'\nlen(x)`],
  ])("the run ends and is listed: %s", async (_what, code) => {
    const sandbox = "rows";
    const answer = await owner.call("run_code", {
      sandbox,
      code: code.replace(/^for/, "from IPython.display import display\nfor"),
    });
    expect(answer.text).not.toMatch(/Internal error|Still running/);
    const listed = await owner.call("list_runs", { sandbox, limit: 1 });
    const [run] = listed.structured.runs as { id: string; state: string }[];
    expect(["succeeded", "failed"]).toContain(run?.state);
    const repeated = await owner.call("get_result", { id: run?.id, wait_seconds: 0 });
    expect(repeated.text).toBe(answer.text);
    expect(await sh(sandbox, "echo next")).toBe("next\n");
  });

  it("list_runs shows runs with results of the largest size, in a short answer", async () => {
    const sandbox = "heavy";
    const code = "for _ in range(8): display('x' * 250_000)";
    for (let run = 0; run < 30; run++) await owner.call("run_code", { sandbox, code, wait_seconds: 30 });
    const listed = await owner.call("list_runs", { sandbox, limit: 200 });
    expect(listed.structured.runs).toHaveLength(30);
    expect(listed.text.length).toBeLessThan(10_000);
  });

  it("a command with the largest allowed input runs, and gets an id", async () => {
    const answer = await owner.call("run_command", {
      sandbox: "rows",
      command: `: ${"é".repeat(99_000)}; echo done`,
    });
    expect(answer.structured).toMatchObject({ state: "succeeded", stdout: "done\n" });
    expect(idIn({ ...answer, text: String(answer.structured.id) })).toBeTruthy();
  });
});
