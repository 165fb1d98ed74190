import { describe, expect, it } from "vitest";
import { owner, sh } from "../support.ts";

const sandbox = "command";

async function run(command: string, more: Record<string, unknown> = {}) {
  return (await owner.call("run_command", { sandbox, command, ...more })).structured;
}

describe("run_command", () => {
  it("returns exit code, stdout and stderr separately", async () => {
    const result = await owner.call("run_command", { sandbox, command: "echo out; echo err >&2; exit 3" });
    expect(result).toMatchObject({
      isError: false,
      structured: {
        state: "failed",
        exit_code: 3,
        stdout: "out\n",
        stderr: "err\n",
        stdout_bytes: 4,
        stderr_bytes: 4,
      },
    });
    expect(result.text).toBe("exit_code: 3\nstdout: out\nstderr: err");
  });

  it("starts in /workspace as root with an empty standard input", async () => {
    expect(await run("pwd; id -u; cat", { session: "fresh" })).toMatchObject({
      state: "succeeded",
      stdout: "/workspace\n0\n",
      stderr: "",
      exit_code: 0,
    });
  });

  it.each([
    [
      "quotes",
      `printf '%s|' "it's" 'say "hi"' \\$HOME '$HOME' "\\\`x\\\`"`,
      `it's|say "hi"|$HOME|$HOME|\`x\`|`,
    ],
    ["several lines", "a=1\nif true; then\n  echo $((a + 1))\nfi", "2\n"],
    ["unicode", "echo 'žluťoučký 🐎 ' | rev; printf '\\xf0\\x9f\\x90\\x8e'", " 🐎 ýkčuoťulž\n🐎"],
    ["a heredoc", "cat <<'END'\n$HOME `date` \\\nEND\necho after", "$HOME `date` \\\nafter\n"],
    ["a comment at the end", "echo a # comment", "a\n"],
    ["a command that continues on the next line", "echo a \\\n  b", "a b\n"],
    ["arrays and processes", "x=(1 2); cat <(echo ${x[1]})", "2\n"],
    ["trailing line breaks", "printf 'a\\n\\n\\n'", "a\n\n\n"],
    ["carriage returns", "printf 'a\\r\\nb\\r'", "a\r\nb\r"],
    ["a dot at the end", "printf 'a.'", "a."],
    ["escapes of a terminal", "printf '\\e[31mred\\e[0m'", "\u001b[31mred\u001b[0m"],
    [
      "a command that shows that it ignores no signals",
      "grep SigIgn /proc/self/status",
      "SigIgn:\t0000000000000000\n",
    ],
    ["a command that shows that it has no arguments", 'echo "$#:$*"', "0:\n"],
  ])("returns exactly the output of %s", async (_what, command, stdout) => {
    expect(await run(command)).toMatchObject({ state: "succeeded", stdout, stderr: "" });
  });

  it.each([
    ["a syntax error", "echo a\nif then", 2, /syntax error/],
    ["an unclosed quote", "echo 'a", 2, /unexpected EOF/],
    ["set -e", "set -e; false; echo not here", 1, /^$/],
    ["exec", "exec bash -c 'exit 9'", 9, /^$/],
    ["a shell that kills itself", "kill -9 $$", 137, /^$/],
    ["a signal to the shell", "kill -TERM $$; sleep 5", 143, /^$/],
    ["SIGINT", "kill -INT $$; sleep 5", 130, /^$/],
    ["return", "return 5", 5, /^$/],
  ])("reports the exit code of %s", async (_what, command, exit_code, stderr) => {
    expect(await run(command)).toMatchObject({
      state: "failed",
      exit_code,
      stderr: expect.stringMatching(stderr),
    });
    expect(await sh(sandbox, "echo next")).toBe("next\n");
  });

  it.each([
    ["a Python program", "python3 -c \"import time; print('epoch 0'); time.sleep(600)\""],
    ["its child", 'bash -c "python3 -c \\"import time; print(\'epoch 0\'); time.sleep(600)\\" | cat"'],
  ])("shows what %s printed before its time limit", async (_what, command) => {
    expect(await run(command, { timeout_seconds: 5 })).toMatchObject({
      state: "timed_out",
      stdout: "epoch 0\n",
    });
  });

  it("shows binary output, and counts its bytes", async () => {
    const result = await run("printf 'a\\377\\376b'; printf '\\360\\237\\220|' >&2");
    expect(result).toMatchObject({
      stdout: "a\ufffd\ufffdb",
      stdout_bytes: 4,
      stderr: "\ufffd|",
      stderr_bytes: 4,
    });
    expect(await run("printf 'a\\0b'")).toMatchObject({ stdout: "a\0b", stdout_bytes: 3 });
  });

  it("accepts a command at the limit, and names the limit for a longer one", async () => {
    const long = (length: number) => `echo end; #${"x".repeat(length - 11)}`;
    expect(await run(long(100_000))).toMatchObject({ stdout: "end\n" });
    const result = await owner.call("run_command", { sandbox, command: long(100_001) });
    expect(result.isError).toBe(true);
    expect(result.text).toMatch(/longer than 100000 characters: save it with write_file/);
  });

  it("starts a command of blank lines as soon as another one of its length", async () => {
    const timeOf = async (text: string) => {
      const startedAt = performance.now();
      expect(await run(`${text.repeat(99_000)}\necho end`, { wait_seconds: 45 })).toMatchObject({
        stdout: "end\n",
      });
      return performance.now() - startedAt;
    };
    await run("true");
    const other = await timeOf("#");
    // The shorter of two times, because other programs may delay one of them.
    const times = [await timeOf("\n"), await timeOf("\n")];
    expect(Math.min(...times)).toBeLessThan(5 * other + 1000);
  });

  it("accepts surrogates and unusual characters", async () => {
    expect(await run("printf %s '\ud83d'")).toMatchObject({ stdout: "\ufffd" });
    expect(await run("printf %s '\u2028\u0085\ufeff'")).toMatchObject({ stdout: "\u2028\u0085\ufeff" });
    const result = await owner.call("run_command", { sandbox, command: "echo a\0b" });
    expect(result.isError).toBe(true);
    expect(result.text).toContain("NUL");
  });

  it("reports the exit code of commands that end while sandboxd starts a process for their output", async () => {
    // sandboxd starts this process 20 ms after the command. Each command lasts about as long, so that some end meanwhile.
    const codes = await Promise.all(
      Array.from({ length: 2 }, async (_, session) => {
        const found = [];
        for (let milliseconds = 4; milliseconds < 34; milliseconds++) {
          const command = `sleep 0.${String(milliseconds).padStart(3, "0")}; exit 123`;
          found.push((await run(command, { session: `timed-${session}` })).exit_code);
        }
        return found;
      }),
    );
    expect(codes.flat().filter((code) => code !== 123)).toEqual([]);
  });
});

describe("a command that cannot be started", () => {
  it("because its files cannot be written has an error with the reason, which does not mention a full disk", async () => {
    const broken = "broken";
    await owner.call("run_code", {
      sandbox: broken,
      code: "import shutil; shutil.rmtree('/var/lib/sandbox-mcp/runs', True); open('/var/lib/sandbox-mcp/runs', 'w').close()",
    });
    const result = await owner.call("run_command", { sandbox: broken, command: "true" });
    expect(result).toMatchObject({ isError: true });
    expect(result.text).toMatch(
      /\/var\/lib\/sandbox-mcp cannot be written \(.*Not a directory"\).*destroy_sandbox/,
    );
    expect(result.text).not.toContain("full");
    await owner.call("destroy_sandbox", { sandbox: broken });
  });
});
