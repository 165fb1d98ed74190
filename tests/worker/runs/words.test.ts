/** The texts of runs: the previous run in the queue, durations, cursors, and the source of an error. */
import { describe, expect, it } from "vitest";
import { callsIn, idIn, owner, sh, result, waitForText } from "../support.ts";

const sandbox = "words";

const { command, code } = callsIn(sandbox);

/** The milliseconds that list_runs shows for a run. */
async function durationOf(id: string): Promise<number> {
  const { text } = await owner.call("list_runs", { sandbox });
  return Number(new RegExp(`^${id.replace(".", "\\.")} .* (\\d+) ms: `, "m").exec(text)?.[1]);
}

describe("a run that waits for another", () => {
  it("names the command that it waits for, suggests another session, and counts only its own time", async () => {
    const first = idIn(
      await command("until [ -e /tmp/go ]; do sleep 0.05; done", { session: "line", wait_seconds: 0 }),
    );
    const askedAt = Date.now();
    const answer = await command("true", { session: "line", wait_seconds: 1 });
    const second = idIn(answer);
    expect(answer.text).toContain(`waits for run ${first}`);
    expect(answer.text).toMatch(/another session/i);
    expect(answer.text).not.toContain("Still running");
    expect((await result(second, { wait_seconds: 0 })).text).toContain(`waits for run ${first}`);
    for (const shown of [answer, await result(second, { wait_seconds: 0, cursor: 0 })])
      expect(shown).toMatchObject({
        text: expect.stringMatching(/^state: waiting$/m),
        structured: { state: "running" },
      });
    const listed = await owner.call("list_runs", { sandbox });
    const lines = listed.text.split("\n").filter((line) => /^\S+ command (waiting|running) /.test(line));
    expect(lines).toEqual([
      expect.stringMatching(`^${second} command waiting for \\d+ s: true$`),
      expect.stringMatching(`^${first} command running for \\d+ s: `),
    ]);
    expect(listed.structured.runs).toContainEqual(expect.objectContaining({ id: second, state: "running" }));
    expect(await sh(sandbox, "echo at once; touch /tmp/go", { session: "other" })).toBe("at once\n");
    const ended = await result(second);
    const waited = Date.now() - askedAt;
    expect(ended.text).not.toContain("waits for");
    expect(await durationOf(second)).toBeLessThan(waited - 900);
  });

  it("names the code that it waits for, and suggests another context", async () => {
    const wait = "import os, time\nwhile not os.path.exists('/tmp/code'): time.sleep(0.05)";
    const first = idIn(await code(wait, { wait_seconds: 0 }));
    const answer = await code("1 + 1", { wait_seconds: 0.5 });
    expect(answer.text).toContain(`waits for run ${first}`);
    expect(answer.text).toMatch(/another context/i);
    expect((await code("open('/tmp/code', 'w').close()", { context: "other" })).isError).toBe(false);
    expect((await result(idIn(answer))).text).toContain("2");
  });

  it("has no duration if it is cancelled before its start", async () => {
    const first = idIn(await command("sleep 100", { session: "never", wait_seconds: 0 }));
    const second = idIn(await command("true", { session: "never", wait_seconds: 1 }));
    await owner.call("cancel_run", { id: second });
    expect(await durationOf(second)).toBe(0);
    await owner.call("cancel_run", { id: first });
  });
});

describe("a cursor", () => {
  it.concurrent.each([1, 3])("points to the end of output that paused 0.%d s", async (n) => {
    const mark = `/tmp/cursor-${n}`;
    const answer = await command(
      `echo twelve bytes; sleep 0.${n}; echo more of them; until [ -e ${mark} ]; do sleep 0.05; done; echo the end`,
      { session: `cursor-${n}`, wait_seconds: 0 },
    );
    const id = idIn(answer);
    await waitForText(id, "more of them");
    const cursor = "twelve bytes\nmore of them\n".length;
    await sh(sandbox, `touch ${mark}`);
    await result(id);
    expect((await result(id, { cursor })).text).toMatch(/\[stdout\]\n```\nthe end\n```$/);
  });
});

describe("an error of bash", () => {
  it.each([
    ["a missing program", "nosuchprogram", "bash: line 1: nosuchprogram: command not found\n"],
    [
      "a command on a later line",
      "true\n\nnosuchprogram",
      "bash: line 3: nosuchprogram: command not found\n",
    ],
    ["a builtin", "cd /no/such", "bash: line 1: cd: /no/such: No such file or directory\n"],
    ["an unset variable", "set -u\necho $NONE", "bash: line 2: NONE: unbound variable\n"],
    ["a redirection", "echo >/no/such/file", "bash: line 1: /no/such/file: No such file or directory\n"],
  ])("names bash and the line of %s", async (_what, line, stderr) => {
    expect((await command(line)).structured).toMatchObject({ stderr });
  });

  it.each([
    ["as an argument", "echo the return value >&2; nosuch", "the return value\n", 1, 127],
    ["in a substitution", "x=$(nosuch return)", "", 1, 127],
    ["at the start of a later line", "nosuch\nreturn 3", "", 1, 3],
    ["in a list of commands", "true\nnosuch || return 4; echo on", "", 2, 4],
    ["after a keyword of the shell", "nosuch; if true; then return 5; fi; echo on", "", 1, 5],
    ["after a pattern", "nosuch; case a in a) return 6;; esac; echo on", "", 1, 6],
  ])(
    "names bash and the line also if the command has the word return %s",
    async (_where, line, before, number, exit_code) => {
      const stderr = `${before}bash: line ${number}: nosuch: command not found\n`;
      expect((await command(line)).structured).toMatchObject({ stderr, stdout: "", exit_code });
    },
  );

  it("names no file of the server for a syntax error", async () => {
    const { structured } = await command("true\nif");
    expect(structured.stderr).toMatch(/^bash: .*line \d+: syntax error/);
    expect(structured.stderr).not.toContain("/");
  });

  it("names no file of the server in a function of an earlier command", async () => {
    await command("broken() { nosuchprogram; }", { session: "functions" });
    const { structured } = await command("broken", { session: "functions" });
    expect(structured.stderr).toMatch(/nosuchprogram: command not found\n$/);
    expect(structured.stderr).not.toContain("/");
  });
});

describe("a warning of Python", () => {
  it("shows the line of the cell, and no file of the server", async () => {
    const { text } = await code("import warnings\n\nwarnings.warn('mind this')");
    expect(text).toMatch(/<cell \d+>:3: UserWarning: mind this\n {2}warnings\.warn\('mind this'\)/);
    const show = "def show():\n    warnings.warn('mind that', stacklevel=2)\n\nshow()";
    expect((await code(show)).text).toMatch(/<cell \d+>:4: UserWarning: mind that/);
  });

  it("names no file of the server if the stack level exceeds the frames of the cell", async () => {
    const deep = "import warnings\nwarnings.warn('deep', stacklevel=9)";
    expect((await code(deep)).text).not.toContain("/opt/sandbox-mcp");
    expect(
      (
        await code(
          "class Loud:\n    def __repr__(self):\n        warnings.warn('shown', stacklevel=2)\n        return 'loud'\nLoud()",
        )
      ).text,
    ).not.toContain("present.py");
  });
});
