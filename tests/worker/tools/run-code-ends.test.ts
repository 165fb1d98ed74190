/** How the server ends code and kernels that hang, and how it limits the size of results. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { callsIn, idIn, owner, sh, until } from "../support.ts";

const sandbox = "code-ends";

const { code: run } = callsIn(sandbox);

/** How many processes of the sandbox have this argument; the brackets keep grep from finding itself. */
const count = async (argument: string) => {
  const pattern = `[${argument.slice(0, 1)}]${argument.slice(1)}`;
  return Number(
    await sh(sandbox, `grep -lzx '${pattern}' /proc/[0-9]*/cmdline | wc -l`, { session: "look" }),
  );
};

describe("code that is stopped", () => {
  it.concurrent.each([
    [
      "python",
      "import signal, subprocess\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nsubprocess.Popen(['sleep', '3604'], start_new_session=True)\nimport time\nwhile True: time.sleep(9)",
      "3604",
    ],
    [
      "python",
      "import multiprocessing, os, signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nmultiprocessing.get_context('fork').Process(target=lambda: os.spawnlp(os.P_WAIT, 'sleep', 'sleep', '3605')).start()\nimport time\nwhile True: time.sleep(9)",
      "3605",
    ],
    [
      "python",
      "import subprocess\nsubprocess.Popen(['sleep', '3608'], env={}, start_new_session=True)\nimport time\ntime.sleep(99)",
      "3608",
    ],
    ["javascript", "require('child_process').execSync('setsid env -i sleep 3610 & sleep 3610')", "3610"],
  ])("ends together with the processes that it started: %s %s", async (language, code, seconds) => {
    const result = await run(code, { language, timeout_seconds: 2, context: `stop-${seconds}` });
    expect(result.text).toContain("state: timed_out");
    await until(async () => (await count(seconds)) === 0);
  });

  it("ends together with its forks and their forks", async () => {
    const code = [
      "import ctypes, os, signal, time",
      "signal.signal(signal.SIGINT, signal.SIG_IGN)",
      "if os.fork() == 0:",
      "    os.fork()",
      "    ctypes.CDLL(None).prctl(15, b'code-ends-fork')",
      "while True: time.sleep(0.1)",
    ].join("\n");
    await run("1", { context: "forks" });
    const { text } = await run(code, { timeout_seconds: 1, context: "forks" });
    expect(text).toContain("are lost");
    const forks = () =>
      sh(sandbox, "cat /proc/[0-9]*/comm | grep -c '[c]ode-ends-fork' || true", { session: "look" });
    await until(async () => (await forks()) === "0\n");
  });

  it("ends together with its forks also if its kernel continues", async () => {
    const code = [
      "import ctypes, os, time",
      "if os.fork() == 0:",
      "    ctypes.CDLL(None).prctl(15, b'code-ends-kept')",
      "    while True:",
      "        try: time.sleep(0.1)",
      "        except KeyboardInterrupt: pass",
      "while True: time.sleep(0.1)",
    ].join("\n");
    await run("1", { context: "kept-forks" });
    const { text } = await run(code, { timeout_seconds: 1, context: "kept-forks" });
    expect(text).toContain("are kept");
    // The kernel did not wait for its child, which is a zombie until then.
    expect(await sh(sandbox, "ps -eo stat=,comm= | grep -c '^[^Z].*code-ends-kept' || true")).toBe("0\n");
  });

  it("leaves processes running that earlier code of its kernel started", async () => {
    // The kernel of the previous test still runs.
    const context = "kept-forks";
    await run("import subprocess\nserver = subprocess.Popen(['sleep', '3606'])", { context });
    const result = await run("time.sleep(99)", { context, timeout_seconds: 1 });
    expect(result.text).toContain("are kept");
    expect((await run("server.poll(), server.kill()", { context })).text).toBe("result: (None, None)");
  });
});

describe("a kernel that does not start", () => {
  const hung = "code-hung";
  afterAll(() => owner.call("destroy_sandbox", { sandbox: hung }));
  const start = (more: Record<string, unknown>) =>
    owner.call("run_code", { sandbox: hung, code: "print('ran')", ...more });

  beforeAll(async () => {
    const content = "import time\ntime.sleep(3607)\n";
    await sh(hung, "mkdir -p $(python3 -c 'import site; print(site.getusersitepackages())')");
    const path = await sh(hung, "python3 -c 'import site; print(site.getusersitepackages())'");
    await owner.call("write_file", { sandbox: hung, path: `${path.trim()}/usercustomize.py`, content });
  });

  it("is reported at the code's timeout, and blocks no other kernel", async () => {
    const { text } = await start({ timeout_seconds: 2 });
    expect(text).toMatch(/state: timed_out\n.*did not start within 2 s: the code never ran/s);
    expect((await start({ language: "javascript", code: "1 + 1" })).text).toBe("result: 2");
  });

  it("does not delay the cancellation of its run", async () => {
    const id = idIn(await start({ wait_seconds: 0, context: "other" }));
    const { text } = await owner.call("cancel_run", { id });
    expect(text).toMatch(/state: cancelled\n.*while its kernel was starting: the code never ran/s);
  });

  it("is reported with its error if it ends at once", async () => {
    const path = (await sh(hung, "find / -xdev -name usercustomize.py 2>/dev/null | head -1")).trim();
    // Kernels that start after the write are not hung, so they need not be killed.
    await sh(hung, `echo 'raise SystemExit("not today")' >${path}; pkill -9 -f 'python3 -u'`);
    const { text } = await start({ context: "third" });
    expect(text).toMatch(/python kernel did not start: .*SystemExit: not today/s);
    expect(text).not.toMatch(/out of processes/);
  });
});

describe("a kernel that ends between two calls", () => {
  it("is replaced, and the next result in each of its contexts says that variables are lost", async () => {
    const own = "code-control";
    const start = (code: string, context: string) => callsIn(own).code(code, { context });
    for (const context of ["default", "b"]) await start("kept = 1", context);
    // The kernels end with the control server, which the sandbox's first process starts again.
    await sh(own, "pkill -9 -x sbx-control");
    await until(async () => (await start("'kept' in globals()", "c")).text === "result: False");
    const lost = /note:\s+The python kernel( b)? had ended, so the code ran in a fresh one: .* are lost\./;
    for (const context of ["default", "b"]) {
      const { text } = await start("'kept' in globals()", context);
      expect(text).toMatch(lost);
      expect(text).toContain("result: False");
      expect((await start("1 + 1", context)).text).toBe("result: 2");
    }
    // The first code of a context can end the control server too.
    expect((await start("kept = 1; import os; os.system('pkill -9 -x sbx-control')", "d")).text).toContain(
      "state: lost",
    );
    await until(async () => (await start("1 + 1", "c")).text.endsWith("result: 2"));
    expect((await start("'kept' in globals()", "d")).text).toMatch(/kernel d had ended.*result: False/s);
    await owner.call("destroy_sandbox", { sandbox: own });
  });
});

describe("long values", () => {
  it.each([
    ["python", "for i in range(10): display('x' * 10**6)\nprint('é' * 10**6)\nraise ValueError('z' * 10**6)"],
    [
      "javascript",
      "for (let i = 0; i < 10; i++) display('\\u20ac'.repeat(10 ** 6)); throw new Error('z'.repeat(10 ** 6))",
    ],
  ])("take less than half a megabyte together: %s", async (language, code) => {
    const { content, text } = await run(code, { language });
    expect(text).toMatch(/left out/);
    expect(new TextEncoder().encode(JSON.stringify(content)).length).toBeLessThan(500_000);
  });
});
