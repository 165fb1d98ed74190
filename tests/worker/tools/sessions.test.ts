import { describe, expect, it } from "vitest";
import { owner, sh } from "../support.ts";

const sandbox = "sessions";

async function run(session: string, command: string, more: Record<string, unknown> = {}) {
  return (await owner.call("run_command", { sandbox, session, command, ...more })).structured;
}

const outputOf = async (session: string, command: string, more?: Record<string, unknown>) =>
  (await run(session, command, more)).stdout;

describe("a session of run_command", () => {
  it("keeps directory, exported variables, functions and umask for its next command", async () => {
    await run(
      "state",
      "mkdir -p 'a b' && cd 'a b'; export WORD=$'two\\nlines \\'quoted\\''; umask 077; f() { echo \"f $1\"; }",
    );
    expect(await outputOf("state", 'pwd; echo "$WORD"; umask; f x')).toBe(
      "/workspace/a b\ntwo\nlines 'quoted'\n0077\nf x\n",
    );
    await run("state", "cd ..; unset WORD; unset -f f");
    expect(await outputOf("state", "pwd; echo ${WORD-none}; type -t f || echo gone; cd -")).toBe(
      "/workspace\nnone\ngone\n/workspace/a b\n",
    );
  });

  it("keeps no variables that were not exported, and no shell options", async () => {
    await run("plain", "word=1; set -e; shopt -s nullglob; alias ll=ls");
    expect(await outputOf("plain", "false; echo ${word-none}; shopt -q nullglob || echo off")).toBe(
      "none\noff\n",
    );
  });

  it("keeps functions that are named like builtins, and continues to work", async () => {
    const used = ". : builtin command declare eval exec exit export set trap unset".split(" ");
    const others =
      "[ alias cd echo enable hash kill let local printf pwd read readonly return shift shopt source stty test times true type typeset ulimit umask wait".split(
        " ",
      );
    const checkSession = async (names: string[], session: string) => {
      const definitions = names
        .map((name) => `function ${name} { /bin/echo "mine: ${name} $*"; }`)
        .join("\n");
      await run(session, `cd /tmp; export WORD=word\n${definitions}`);
      for (const stdin of ["first", "second"]) {
        const called = names.map((name) => `${name} 1`).join("\n");
        const result = await run(session, `/bin/cat; /bin/echo $PWD $WORD\n${called}`, { stdin });
        const mine = names.map((name) => `mine: ${name} 1\n`).join("");
        expect(result).toMatchObject({ stdout: `${stdin}/tmp word\n${mine}`, stderr: "", exit_code: 0 });
      }
    };
    const sessions = [...used.map((name) => [name]), others, [...used, ...others]];
    await Promise.all(sessions.map((names, n) => checkSession(names, `function-${n}`)));
  });

  it("keeps its state if aliases are named like builtins", async () => {
    const names = ["builtin", ".", "eval", "set", "unset", "export", "trap"];
    const aliases = names.map((name) => `alias ${name}='echo no'`).join("\n");
    await run("aliases", `shopt -s expand_aliases\n${aliases}\ncd /tmp`);
    expect(await run("aliases", "pwd")).toMatchObject({ stdout: "/tmp\n", stderr: "" });
  });

  it.each([
    ["exit", "exit 4", 4],
    ["an error under set -e", "set -eu; false", 1],
    ["a syntax error on a later line", "\nif then", 2],
    ["a trap of its own", "trap 'echo bye' EXIT", 0],
    ["a trap of its own and exit", "trap 'echo bye' EXIT; exit 4", 4],
    ["a trap of its own that exits", "trap 'exit 5' EXIT; exit 4", 5],
    ["a trap that was removed and exit", "trap 'echo bye' EXIT; trap - EXIT; exit 4", 4],
    ["a trap in a subshell", "(trap 'echo bye' EXIT; cd /; exit 3) || exit", 3],
    ["exit in a subshell with a trap", "trap 'echo bye' EXIT; (cd /; exit 3)", 3],
    ["exit in a function with a trap", "trap 'echo bye' EXIT; f() { exit 4; }; f", 4],
    ["exit by a signal with a trap", "trap 'echo bye' EXIT; trap 'exit 6' USR1; kill -USR1 $$; sleep 1", 6],
    ["exit under set -eu with a trap", "set -eu; trap 'echo bye' EXIT; false || exit 4", 4],
    ["noclobber", "set -C", 0],
    ["noclobber with a trap", "set -C; trap true EXIT; exit 4", 4],
    ["its timeout", "sleep 100", 143],
    ["redirected output", "exec >/dev/null 2>&1", 0],
    ["a failing last command", "false", 1],
  ])("keeps earlier changes after %s", async (what, end, exit_code) => {
    const session = what.replaceAll(" ", "-");
    expect(
      await run(session, `cd /tmp; export WHAT='${what}'; ${end}`, { timeout_seconds: 3 }),
    ).toMatchObject({ exit_code });
    expect(await outputOf(session, 'pwd; echo "$WHAT"')).toBe(`/tmp\n${what}\n`);
  });

  it("runs a trap of the command with the command's variables", async () => {
    const command = `trap 'echo "$ONLY in $PWD"' EXIT; export KEPT=1; cd lib`;
    expect(await outputOf("trap", command, { env: { ONLY: "for this" }, cwd: "/usr" })).toBe(
      "for this in /usr/lib\n",
    );
    expect(await outputOf("trap", "echo $PWD $KEPT ${ONLY-gone}")).toBe("/workspace 1 gone\n");
  });

  it("runs a trap of the command like bash, once and last, and ignores changes that the trap makes", async () => {
    const command = `trap 'echo "$? $ONLY in $PWD"; export KEPT=2; cd /; false; exit' EXIT; export KEPT=1; cd lib`;
    const only = { env: { ONLY: "for this" }, cwd: "/usr" };
    for (const [end, exit_code] of [
      ["exit 4", 4],
      ["(exit 3); exit", 3],
      ["true", 0],
    ] as const) {
      const ran = await run("chained", `${command}; ${end}`, only);
      expect(ran).toMatchObject({ exit_code, stdout: `${exit_code} for this in /usr/lib\n`, stderr: "" });
      expect(await outputOf("chained", "echo $PWD $KEPT ${ONLY-gone}; trap -p EXIT; unset KEPT")).toMatch(
        /^\/workspace 1 gone\n/,
      );
    }
  });

  it.each([
    ["set -x; echo hi"],
    ["set -x; false || exit 3"],
    ["set -ex; false"],
    ["set -x; f() { exit 9; }; f"],
    ["set -x; (exit 4); exit"],
    ["set -x; exec 3>&2 2>/tmp/trace; false; exec 2>&3; exit 3"],
    ["trap 'echo bye $?' EXIT; set -x; false || exit 3"],
    ["trap 'echo bye $?' EXIT; set -x; sh -c 'exit 7'"],
    ["trap 'echo bye $?\n echo more' EXIT; set -ex; (exit 4) || exit"],
    ["trap 'echo bye $?; false; echo not' EXIT; set -ex; (exit 4)\necho no"],
    ["trap 'echo bye' EXIT; trap - EXIT; set -x; exit 2"],
    ["trap 'exit 6' USR1; (sleep 0.7; kill -USR1 $$) & set -x; wait; sleep 5"],
    ["set -v\necho hi\nexit 5\necho no"],
  ])("shows only the command in the trace of %j", async (command) => {
    const script = `file=/tmp/traced; cat >$file <<'END'\n${command}\nEND\nbash $file`;
    const [ours, bash] = [await run("traced", command), await run("plain-bash", script)];
    // The shell sources the file of a command. Bash shows this level as one more plus.
    const trace = (text: unknown) => String(text).replaceAll(/^\++/gm, "+");
    expect(trace(ours.stderr)).toBe(trace(bash.stderr));
    expect(ours).toMatchObject({ stdout: bash.stdout, exit_code: bash.exit_code });
  });

  it("keeps only the functions that commands define", async () => {
    await run("functions", "trap true EXIT; f() { true; }; exit");
    expect(await outputOf("functions", "declare -F")).toBe("declare -f f\n");
  });

  it("accepts a function called exit", async () => {
    await run("own-exit", "exit() { echo mine; }; cd /tmp");
    expect(await outputOf("own-exit", "exit; pwd; unset -f exit")).toBe("mine\n/tmp\n");
    expect(await run("own-exit", "trap 'echo bye' EXIT; cd /; exit 2")).toMatchObject({ exit_code: 2 });
    expect(await outputOf("own-exit", "pwd")).toBe("/\n");
  });

  it("keeps its state and its status if the command redefines builtin", async () => {
    expect(await run("own-builtin", "builtin() { :; }; cd /tmp; f() { echo f; }; (exit 3)")).toMatchObject({
      exit_code: 3,
    });
    expect(await outputOf("own-builtin", "pwd; f; builtin echo own")).toBe("/tmp\nf\n");
  });

  it("returns to /workspace if its directory was deleted", async () => {
    await run("gone", "mkdir -p deep/er; cd deep/er; rm -rf /workspace/deep");
    // Without the message, nothing would explain what a command such as `rm -rf *` did in /workspace.
    expect(await run("gone", "pwd")).toMatchObject({
      stdout: "/workspace\n",
      stderr:
        "The session's directory /workspace/deep/er no longer exists. The session continues in /workspace.\n",
      exit_code: 0,
    });
    expect(await run("gone", "mkdir 'go ne'; cd 'go ne'; rmdir '/workspace/go ne'")).toMatchObject({
      stderr: "",
    });
    expect(await run("gone", "pwd", { cwd: "/tmp" })).toMatchObject({
      stdout: "/tmp\n",
      stderr: expect.stringContaining("directory /workspace/go\\ ne no longer exists"),
    });
  });

  it("keeps its state if a command ends without saving it", async () => {
    await run("kept", "cd /tmp; export KEPT=1");
    await run("kept", "cd /; export KEPT=2; kill -9 $$");
    await run("kept", "cd /; exec true");
    await run("kept", "cd /; export KEPT=3; trap '' TERM; sleep 100", { timeout_seconds: 1 });
    expect(await outputOf("kept", "pwd; echo $KEPT")).toBe("/tmp\n1\n");
  });

  it("keeps its state when shells that wait for a command are killed", async () => {
    await run("killed", "cd /tmp; export KEPT=1");
    for (const round of [1, 2])
      expect(
        await outputOf(
          "killed",
          "echo $PWD $KEPT; for p in $(pgrep -x sbx-sh); do [ $p = $$ ] || kill -9 $p; done",
        ),
        `round ${round}`,
      ).toBe("/tmp 1\n");
    expect(await outputOf("killed", "echo $PWD $KEPT")).toBe("/tmp 1\n");
  });

  it("uses cwd and env for one command only", async () => {
    await run("once", "export BOTH=session; cd /tmp");
    const only = { cwd: "/usr", env: { BOTH: "call", ONE: 'it\'s\n"one" $HOME `x`' } };
    expect(await outputOf("once", 'pwd; echo "$BOTH/$ONE"; cd lib; export BOTH=changed', only)).toBe(
      '/usr\ncall/it\'s\n"one" $HOME `x`\n',
    );
    expect(await outputOf("once", "pwd; echo $BOTH ${ONE-none}")).toBe("/tmp\nsession none\n");
    for (const [cwd, path] of [
      ["/no/such", "/no/such"],
      ["such", "/tmp/such"],
      ["/etc/passwd", "/etc/passwd"],
    ])
      expect(
        await owner.call("run_command", { sandbox, session: "once", command: "touch /tmp/ran", cwd }),
      ).toMatchObject({
        isError: true,
        text: `The command was not run, because its cwd ${path} is not a directory. Use another cwd, or create the directory first (mkdir -p).`,
      });
    expect(await outputOf("once", "[ -e ran ] || pwd", { cwd: "" })).toBe("/tmp\n");
    expect(await outputOf("once", "pwd", { env: { A: "1" } })).toBe("/tmp\n");
  });

  it("does not wait for another session, and shares only files with it", async () => {
    const command = (name: string, other: string) =>
      `export WHO=${name}; cd /tmp; mkdir -p ${name}; cd ${name}; touch here; until [ -e /tmp/${other}/here ]; do sleep 0.05; done; sleep 0.2; echo $WHO $PWD`;
    const outputs = await Promise.all([
      outputOf("tab-a", command("a", "b")),
      outputOf("tab-b", command("b", "a")),
    ]);
    expect(outputs).toEqual(["a /tmp/a\n", "b /tmp/b\n"]);
    expect(await outputOf("tab-a", "echo $WHO $PWD")).toBe("a /tmp/a\n");
    expect(await outputOf("tab-b", "echo $WHO $PWD")).toBe("b /tmp/b\n");
  });

  it("runs its commands one after another", async () => {
    const runs = [1, 2, 3, 4].map((n) =>
      run("line", `echo start ${n} >>/tmp/line; sleep 0.2; echo end ${n} >>/tmp/line`),
    );
    await Promise.all(runs);
    const lines = (await sh(sandbox, "cat /tmp/line")).trim().split("\n");
    expect(lines).toHaveLength(8);
    for (let at = 0; at < 8; at += 2) expect(lines[at + 1]).toBe(lines[at]?.replace("start", "end"));
  });

  it("does not mix the output of twenty simultaneous commands", async () => {
    const numbers = Array.from({ length: 20 }, (_, n) => n);
    const results = await Promise.all(
      numbers.map((n) =>
        run(`many-${n % 5}`, `for i in $(seq 200); do echo "out ${n}"; echo "err ${n}" >&2; done; exit ${n}`),
      ),
    );
    for (const n of numbers)
      expect(results[n]).toMatchObject({
        exit_code: n,
        stdout: `out ${n}\n`.repeat(200),
        stderr: `err ${n}\n`.repeat(200),
      });
  });
});

describe("a session whose command is killed while the shell saves the session's state", () => {
  // On SIGTERM the shell saves its state, and SIGKILL follows two seconds later. The test writes the incomplete state itself.
  it.each([
    ["no part of it", ": >"],
    ["a part of it", "export -p | head -c 100 >"],
  ])("continues with the previous state: %s was written", async (written, write) => {
    const session = `killed-${written.length}`;
    await run(session, "cd /tmp; export WORD=before");
    const { exit_code } = await run(session, `export WORD=after; ${write} "$sbx_run/state"; kill -KILL $$`);
    expect(exit_code).toBe(137);
    expect(await outputOf(session, 'pwd; echo "$WORD"; command -v node >/dev/null && echo node')).toBe(
      "/tmp\nbefore\nnode\n",
    );
  });
});

it("processes in the background are not affected by the end of another run", async () => {
  await run("background", "nohup sleep 2000 >/dev/null 2>&1 & disown; sleep 1000 &");
  await run("background", "sleep 100", { timeout_seconds: 1 });
  expect(await sh(sandbox, "pgrep -fc '^sleep [12]000$'")).toBe("2\n");
});
