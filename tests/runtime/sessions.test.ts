import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { failureOf, REMOTE_URL, startRuntime, type Runtime } from "./runtime.ts";

let runtime: Runtime;
let api: Runtime["api"];
let counter = 0;

/** A session of its own for each test, also on a remote server that has lived longer. */
const newID = (): string => `test-${process.pid}-${++counter}`;

beforeAll(async () => {
  runtime = await startRuntime();
  api = runtime.api;
});
afterAll(() => runtime.stop());

describe("a session's shell", () => {
  it("keeps directory, variables and functions from one command to the next", async () => {
    const id = newID();
    await api.commands.execute("cd /usr; export A=1; b=2; greet() { echo hello $1; }", id);
    const { stdout } = await api.commands.execute("pwd; echo $A $b; greet you", id);
    expect(stdout).toBe("/usr\n1 2\nhello you");
  });

  it("tells stdout, stderr and the exit code apart", async () => {
    const result = await api.commands.execute("echo out; echo err >&2; (exit 7)", newID());
    expect(result).toMatchObject({ success: false, exitCode: 7, stdout: "out", stderr: "err" });
  });

  it("loses exactly the last newline, as the container does", async () => {
    const id = newID();
    expect((await api.commands.execute("printf 'a\\n\\n'", id)).stdout).toBe("a\n");
    expect((await api.commands.execute("printf a", id)).stdout).toBe("a");
    expect((await api.commands.execute("true", id)).stdout).toBe("");
  });

  it("gives the command an empty standard input", async () => {
    expect((await api.commands.execute("cat; echo done", newID())).stdout).toBe("done");
  });

  it("takes quotes, newlines, unicode and heredocs, short and long", async () => {
    const id = newID();
    const text = `it's "quoted" $HOME \`x\` \\n ü 🦉`;
    const heredoc = `cat <<'END'\n${text}\nEND`;
    expect((await api.commands.execute(heredoc, id)).stdout).toBe(text);
    const long = `# ${"ö".repeat(1000)}\n${heredoc}\necho "last"`;
    expect((await api.commands.execute(long, id)).stdout).toBe(`${text}\nlast`);
  });

  it("ends with `exit` or a kill, says so once, and is new after that", async () => {
    const id = newID();
    await api.commands.execute("A=1", id);
    const failure = await failureOf(api.commands.execute("exit 3", id));
    expect(failure).toMatchObject({
      code: "SESSION_TERMINATED",
      message: `Session '${id}' shell exited (exit code: 3)`,
      details: { sessionId: id, exitCode: 3 },
    });
    expect((await api.commands.execute("echo ${A-gone}", id)).stdout).toBe("gone");
    expect(await failureOf(api.commands.execute("kill -9 $$", id))).toMatchObject({
      code: "SESSION_TERMINATED",
      details: { exitCode: 137 },
    });
    expect((await api.commands.execute("echo new", id)).stdout).toBe("new");
  });

  it("outlives the signals that ask a shell to end", async () => {
    const [id, other] = [newID(), newID()];
    const { stdout: pid } = await api.commands.execute("A=1; echo $$", id);
    for (const signal of ["TERM", "HUP", "INT"]) {
      await api.commands.execute(`kill -${signal} ${pid}`, other);
      expect((await api.commands.execute(`kill -${signal} $$; echo $A`, id)).stdout).toBe("1");
    }
  });

  it("notices at the next call that it was killed while idle", async () => {
    const [id, other] = [newID(), newID()];
    const { stdout: pid } = await api.commands.execute("echo $$", id);
    await api.commands.execute(
      `kill -9 ${pid}; while kill -0 ${pid} 2>/dev/null; do sleep 0.01; done`,
      other,
    );
    expect((await failureOf(api.commands.execute("true", id))).code).toBe("SESSION_TERMINATED");
    expect((await api.commands.execute("echo new", id)).stdout).toBe("new");
  });

  it("runs its own commands one after the other and other sessions' meanwhile", async () => {
    const [slow, other] = [newID(), newID()];
    const gate = `/tmp/gate-${slow}`;
    await api.commands.execute(`mkfifo ${gate}`, other);
    const first = api.commands.execute(`read line < ${gate}; echo first $line`, slow);
    const second = api.commands.execute("echo second", slow);
    let secondDone = false;
    void second.then(() => (secondDone = true));
    expect((await api.commands.execute("echo between", other)).stdout).toBe("between");
    expect(secondDone).toBe(false);
    await api.commands.execute(`echo opened > ${gate}; rm ${gate}`, other);
    expect((await first).stdout).toBe("first opened");
    expect((await second).stdout).toBe("second");
  });

  it("keeps what a background job writes later out of other commands' output", async () => {
    const id = newID();
    expect((await api.commands.execute("(sleep 0.2; echo late) & echo now", id)).stdout).toBe("now");
    expect((await api.commands.execute("wait; echo next", id)).stdout).toBe("next");
  });

  it("is not confused by a DEBUG trap that prints, or by strict options", async () => {
    const id = newID();
    await api.commands.execute("trap 'echo 0' DEBUG; set -uo pipefail; set -C", id);
    expect((await api.commands.execute("trap - DEBUG; (exit 4)", id)).exitCode).toBe(4);
    expect((await api.commands.execute("echo on", id)).stdout).toBe("on");
  });
});

describe("sessions", () => {
  it("are one even when their first calls come together", async () => {
    const id = newID();
    const [, second] = await Promise.all([
      api.commands.execute("A=1", id),
      api.commands.execute("echo $A", id),
    ]);
    expect(second.stdout).toBe("1");
  });

  it("are created with their variables and directory, once", async () => {
    const id = newID();
    const made = await api.utils.createSession({ id, cwd: "/usr", env: { A: "1" } });
    expect(made).toMatchObject({ success: true, id, containerPlacementId: null });
    expect((await api.commands.execute("pwd; echo $A", id)).stdout).toBe("/usr\n1");
    expect(await failureOf(api.utils.createSession({ id }))).toMatchObject({
      code: "SESSION_ALREADY_EXISTS",
      details: { sessionId: id },
    });
  });

  it("start elsewhere when their directory does not exist", async () => {
    const id = newID();
    await api.utils.createSession({ id, cwd: "/no/such" });
    expect((await api.commands.execute("pwd", id)).exitCode).toBe(0);
  });

  it("are made again by createSession after their shell ended", async () => {
    const id = newID();
    await failureOf(api.commands.execute("exit", id));
    await api.utils.createSession({ id, env: { A: "1" } });
    expect((await api.commands.execute("echo $A", id)).stdout).toBe("1");
  });
});

describe.skipIf(REMOTE_URL)("a session's shell where it differs from the container's", () => {
  it.each([
    ["a syntax error", "echo (", 2, ""],
    ["an unclosed quote", "echo 'never closed", 2, ""],
    ["an assignment that bash refuses", "readonly R=1; echo one; R=2; echo two", 1, "one"],
  ])("survives %s", async (_, command, exitCode, stdout) => {
    const id = newID();
    await api.commands.execute("A=1", id);
    expect(await api.commands.execute(command, id)).toMatchObject({ exitCode, stdout });
    expect((await api.commands.execute("echo $A", id)).stdout).toBe("1");
  });

  it("returns both ends of a large output and counts the rest", async () => {
    const command = "head -c 300000000 /dev/zero | tr '\\0' x; echo; echo end";
    const { stdout, exitCode } = await api.commands.execute(command, newID());
    expect(exitCode).toBe(0);
    expect(stdout.length).toBeLessThan(17 * 1024 * 1024);
    expect(stdout).toMatch(/^xxx/);
    expect(stdout).toMatch(/\n\[\d+ bytes left out by the local runtime\]\n/);
    expect(stdout.endsWith("x\nend")).toBe(true);
  });

  it.each([{ cwd: "/" }, { env: { A: "1" } }, { timeoutMs: 1000 }])(
    "refuses the option %o",
    async (option) => {
      const refused = await failureOf(api.commands.execute("true", newID(), option));
      expect(refused).toMatchObject({
        code: "VALIDATION_FAILED",
        message: expect.stringContaining(`'${Object.keys(option)[0]}'`),
      });
    },
  );
});

describe.skipIf(REMOTE_URL)("what a user can do to the runtime", () => {
  it("removing its files between and during commands costs nothing", async () => {
    const id = newID();
    const scratch = join(runtime.local?.directory ?? "", "scratch");
    await api.commands.execute("A=1", id);
    const during = await api.commands.execute(`echo before; rm -rf ${scratch}; echo after $A`, id);
    expect(during.stdout).toBe("before\nafter 1");
    expect((await api.commands.execute(`echo $A ${"#".repeat(500)}`, id)).stdout).toBe("1");
  });

  it("nothing is left open or on disk after a command", async () => {
    const id = newID();
    const pid = runtime.local?.process.pid;
    const open = (): number => readdirSync(`/proc/${pid}/fd`).length;
    for (let i = 0; i < 5; i++)
      await api.commands.execute(`echo ${"x".repeat(300)}; exit 1`, id).catch(() => {});
    const before = open();
    for (let i = 0; i < 50; i++)
      await api.commands.execute(i % 10 === 0 ? "exit 1" : "echo x", id).catch(() => {});
    await expect.poll(open, { timeout: 10_000 }).toBeLessThanOrEqual(before + 2);
    const left = readdirSync(join(runtime.local?.directory ?? "", "scratch"), { recursive: true });
    expect(left.filter((name) => /out|err/.test(String(name)))).toEqual([]);
  });

  it("is kept away from the runtime's own process group", async () => {
    const id = newID();
    await api.commands.execute("kill -TERM 0", id).catch(() => {});
    expect(await api.utils.ping()).toBe("healthy");
    const pid = runtime.local?.process.pid;
    expect(readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ")[0]).not.toBe("Z");
  });
});
