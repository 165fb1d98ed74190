/**
 * Our programs in a sandbox hang: the control server and sandboxd, or sandboxd alone, which is then replaced. The
 * tests run in parallel, because they wait for the server's time limits. Each uses its own sandbox.
 */
import { execFileSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { afterAll, describe, expect, it } from "vitest";
import { endLater } from "../setup/end-later.ts";
import { idIn } from "../setup/mcp-client.ts";
import { filterRunning, statusNumber, withoutForkedCopies, tree } from "../setup/processes.ts";
import { sleep, until, untilText } from "../setup/until.ts";
import { LONG, startFaultServer } from "./support.ts";
import EVALUATE from "../setup/evaluate.cjs?raw";
import TAKE_PLACE from "../setup/take-place.cjs?raw";

const server = endLater(await startFaultServer());
const stopped: number[] = [];
afterAll(() => resume(stopped));

/** Continues stopped processes; some may have ended. */
function resume(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGCONT");
    } catch {
      // The process has ended.
    }
  }
}

/**
 * The ids of a sandbox's first process, sandboxd and the control server. Stop them in this order, because the first process
 * restarts the others.
 */
async function runtimeOf(sandbox: string): Promise<number[]> {
  const first = await server.firstPID(sandbox);
  const programs = withoutForkedCopies(tree(first)).filter(({ command }) =>
    /^sbx(d|-control)$/.test(command),
  );
  if (programs.length !== 2) throw new Error(`${sandbox} has ${JSON.stringify(programs)}`);
  return [first, ...programs.map(({ pid }) => pid)];
}

function hang(pids: readonly number[]): void {
  stopped.push(...pids);
  for (const pid of pids) process.kill(pid, "SIGSTOP");
}

describe.concurrent("when the server's three programs in a sandbox hang for a while (SIGSTOP, SIGCONT)", () => {
  it("runs and calls continue, and nothing is repeated", async () => {
    const sandbox = "pausing";
    const runtime = await runtimeOf(sandbox);
    const command = await server.call("run_command", {
      sandbox,
      command: "for i in {0..29}; do echo $i; sleep 0.1; done",
      wait_seconds: 0,
    });
    const code = await server.call("run_code", {
      sandbox,
      code: "import time; time.sleep(2); print('ran'); 42",
      wait_seconds: 0,
    });
    const readResult = () => server.call("get_result", { id: idIn(command), cursor: 0, wait_seconds: 0 });
    await until(async () => (await readResult()).text.includes("\n5\n"));
    hang(runtime);
    const during = [
      server.call("run_command", { sandbox, session: "b", command: "echo waited >> once; cat once" }),
      server.call("write_file", { sandbox, path: "a", content: "1", append: true }),
    ];
    await sleep(4000);
    resume(runtime);
    expect((await server.call("get_result", { id: idIn(command) })).text).toContain(
      `${Array.from({ length: 30 }, (_, index) => index).join("\n")}\n`.trim(),
    );
    expect((await server.call("get_result", { id: idIn(code) })).text).toMatch(/ran[^]*42/);
    const [ran, written] = await Promise.all(during);
    expect(ran?.structured).toMatchObject({ state: "succeeded", stdout: "waited\n" });
    expect(written?.structured).toMatchObject({ size: 1 });
  });
});

describe.concurrent("when the server's three programs in a sandbox hang for good (SIGSTOP)", () => {
  it("runs end soon after their timeout with the reason, and other sandboxes and destroy_sandbox work", async () => {
    const sandbox = "hanging";
    // Finding the processes takes time, so it comes before the runs: the programs must hang long before the runs' time limits.
    const runtime = await runtimeOf(sandbox);
    // All runs begin before the hang. The start of a kernel would count in the time limit.
    await server.call("run_code", { sandbox, code: "0" });
    const limits = { wait_seconds: 0, timeout_seconds: 30 };
    const command = await server.call("run_command", {
      sandbox,
      command: "echo before; sleep 60",
      ...limits,
    });
    const sleeping = "import time; print('before', flush=True); time.sleep(60)";
    const code = await server.call("run_code", { sandbox, code: sleeping, ...limits });
    const readResult = (run: typeof code) => server.call("get_result", { id: idIn(run), wait_seconds: 0 });
    for (const run of [command, code])
      await until(async () => (await readResult(run)).text.includes("before"));
    hang(runtime);
    const files = Promise.all([
      server.call("list_files", { sandbox }),
      server.call("read_file", { sandbox, path: "a" }),
      server.call("write_file", { sandbox, path: "a", content: "a" }),
      server.call("write_file", { sandbox, path: "b", content: "b".repeat(1_000_000) }),
    ]);
    const waiting = server.call("run_command", {
      sandbox,
      session: "b",
      command: "true",
      timeout_seconds: 6,
    });
    const [first, second, third] = await Promise.all([
      server.call("get_result", { id: idIn(command), wait_seconds: 50 }),
      server.call("get_result", { id: idIn(code), wait_seconds: 50 }),
      waiting,
    ]);
    expect(first.text).toMatch(/state: timed_out[^]*did not confirm[^]*destroy_sandbox[^]*before/);
    expect(second.text).toMatch(/state: timed_out/);
    expect(third.text).toMatch(/state: timed_out[^]*longer than \d+ s[^]*did not confirm[^]*destroy_sandbox/);
    for (const { text } of await files) expect(text).toMatch(/has not responded [^]*destroy_sandbox/);
    expect((await server.call("cancel_run", { id: idIn(command) })).text).toContain("state: timed_out");
    expect(await server.sh("echo fine", { sandbox: "another" })).toBe("fine\n");
    expect((await server.call("destroy_sandbox", { sandbox })).text).toContain("destroyed");
    expect(await server.sh("echo afresh", { sandbox })).toBe("afresh\n");
  });

  it("runs can be cancelled, and their results say what to do", async () => {
    const sandbox = "hanging-too";
    const runtime = await runtimeOf(sandbox);
    const command = await server.call("run_command", {
      sandbox,
      command: "echo before; sleep 60",
      wait_seconds: 0,
    });
    await untilText(
      async () => (await server.call("get_result", { id: idIn(command), wait_seconds: 0 })).text,
      "before",
    );
    hang(runtime);
    const { text } = await server.call("cancel_run", { id: idIn(command) });
    expect(text).toMatch(/state: cancelled[^]*did not confirm[^]*destroy_sandbox/);
    await server.call("destroy_sandbox", { sandbox });
    expect((await server.call("get_result", { id: idIn(command) })).text).toContain("state: cancelled");
  });
});

/** Starts a sandbox with a session and a file. Returns a function for the id of its current sandboxd on the host. */
async function prepare(sandbox: string): Promise<() => Promise<number>> {
  await server.sh("export KEPT=kept; echo was there >before", { sandbox });
  const first = await server.firstPID(sandbox);
  return () => until(() => tree(first).find(({ command }) => command === "sbxd")?.pid);
}

/** Makes calls while sandboxd hangs, and returns their results. Each call must take effect once. */
async function callDuringHang(sandbox: string): Promise<unknown[]> {
  const [ran, appended, read] = await Promise.all([
    server.call("run_command", { sandbox, command: 'echo "$KEPT" >>runs; cat runs', timeout_seconds: 120 }),
    server.call("write_file", { sandbox, path: "appended", content: "x", append: true }),
    server.call("read_file", { sandbox, path: "before" }),
  ]);
  return [ran.structured.stdout ?? ran.text, appended.structured.size ?? appended.text, read.text];
}
const EXPECTED_RESULTS = ["kept\n", 1, "```\nwas there\n```"];

async function evaluate(sandbox: string, expression: string): Promise<void> {
  await server.call("write_file", { sandbox, path: "/tmp/evaluate.cjs", content: EVALUATE });
  await server.sh(`setsid -f node /tmp/evaluate.cjs '${expression}' >/dev/null 2>&1`, { sandbox });
}

/** Takes sandboxd's place, and never responds. */
const SILENT = `${TAKE_PLACE}
takePlace(net.createServer(() => fs.writeFileSync("/tmp/asked", "")));
`;

describe.concurrent("when sandboxd hangs for good", () => {
  it("a new sandboxd serves the next calls if the first one was stopped (SIGSTOP) while idle", async () => {
    const sandbox = "idle";
    const sandboxd = await prepare(sandbox);
    process.kill(await sandboxd(), "SIGSTOP");
    expect(await callDuringHang(sandbox)).toEqual(EXPECTED_RESULTS);
  });

  it("a run continues while sandboxd is stopped, and its output is neither repeated nor lost", async () => {
    const sandbox = "running";
    const sandboxd = await prepare(sandbox);
    const command = "export KEPT=later; for i in {0..299}; do echo $i; sleep 0.1; done; exit 3";
    const run = await server.call("run_command", { sandbox, command, wait_seconds: 0, timeout_seconds: 150 });
    const result = () => server.call("get_result", { id: idIn(run), cursor: 0, wait_seconds: 0 });
    await until(async () => (await result()).text.includes("\n5\n"));
    process.kill(await sandboxd(), "SIGSTOP");
    const ended = await until(async () => {
      const { structured } = await server.call("get_result", { id: idIn(run), wait_seconds: 50 });
      return structured.state === "running" ? undefined : structured;
    }, 120_000);
    expect(ended).toMatchObject({ state: "failed", exit_code: 3 });
    const { text } = await result();
    expect(text.match(/^\d+$/gm)).toEqual(Array.from({ length: 300 }, (_, index) => String(index)));
    expect(await server.sh("echo $KEPT", { sandbox })).toBe("later\n");
  });

  it("a file is unchanged or complete if sandboxd was stopped during the write", async () => {
    const sandbox = "writing";
    const sandboxd = await prepare(sandbox);
    await server.sh("echo old >file", { sandbox });
    const half = randomBytes(3_000_000);
    const sent = Promise.withResolvers<void>();
    const body = new ReadableStream({
      async start(controller) {
        controller.enqueue(half);
        await sent.promise;
        controller.enqueue(half);
        controller.close();
      },
    });
    const upload = async (content: BodyInit) => {
      const created = await server.call("file_link", { sandbox, path: "file", direction: "upload" });
      const init = { method: "PUT", body: content, duplex: "half" };
      return (await fetch(String(created.structured.url), init)).status;
    };
    const written = upload(body);
    const writes = () => server.sh("ls /var/lib/sandbox-mcp/writes", { sandbox });
    await until(async () => (await writes()) !== "");
    process.kill(await sandboxd(), "SIGSTOP");
    sent.resolve();
    const size = (await written) < 300 ? "6000000\n" : "4\n";
    expect(await server.sh("stat -c %s file", { sandbox })).toBe(size);
    expect(await upload(half)).toBe(201);
    expect(await server.sh("stat -c %s file", { sandbox })).toBe("3000000\n");
    await until(async () => (await writes()) === "");
  });

  it("a new sandboxd serves the next calls if the event loop of the first one is blocked", async () => {
    const sandbox = "waiting";
    const sandboxd = await prepare(sandbox);
    const stuck = await sandboxd();
    await evaluate(sandbox, "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)");
    await until(async () => (await sandboxd()) !== stuck);
    expect(await callDuringHang(sandbox)).toEqual(EXPECTED_RESULTS);
  });

  it.runIf(LONG)("a new sandboxd serves the next calls if the first one is in an endless loop", async () => {
    const sandbox = "looping";
    const sandboxd = await prepare(sandbox);
    const stuck = await sandboxd();
    await evaluate(sandbox, "for (;;);");
    // The first process waits until sandboxd's loop used some processor time, which takes long on a busy machine.
    await until(async () => (await sandboxd()) !== stuck, 150_000);
    expect(await callDuringHang(sandbox)).toEqual(EXPECTED_RESULTS);
  });

  it("a new sandboxd serves the next calls if a program that never responds takes the place of the first one", async () => {
    const sandbox = "replaced";
    const sandboxd = await prepare(sandbox);
    const replaced = await sandboxd();
    const root = `/proc/${await server.firstPID(sandbox)}/root`;
    await server.call("write_file", { sandbox, path: "/tmp/silent.cjs", content: SILENT });
    await server.sh("setsid -f node /tmp/silent.cjs >/tmp/silent", { sandbox });
    // The program takes the place when it has started. Until then, sandboxd answers.
    const callUntilSilent = async () => {
      while (!existsSync(`${root}/tmp/asked`)) await server.call("list_files", { sandbox });
    };
    const asked = callUntilSilent();
    await until(() => existsSync(`${root}/tmp/asked`));
    await until(async () => (await sandboxd()) !== replaced);
    await asked;
    expect(await callDuringHang(sandbox)).toEqual(EXPECTED_RESULTS);
  });
});

describe.concurrent("when sandboxd ends whenever it is started", () => {
  it("the server stops following one run, does not start the next, and both results say what to do", async () => {
    const sandbox = "away";
    const first = await server.firstPID(sandbox);
    const before = await server.call("run_command", {
      sandbox,
      session: "early",
      command: "sleep 300",
      wait_seconds: 0,
    });
    const daemons = withoutForkedCopies(tree(first)).filter(({ command }) => command === "sbxd");
    // Node does not start with so little address space. A loop that kills each sandboxd would lose the race on a busy machine.
    // Only a process with the same ids, or with a capability that root has not on every machine, can set the limit of another.
    const [uid, gid] = ["Uid", "Gid"].map((name) => statusNumber(first, name));
    execFileSync("prlimit", ["--pid", String(first), "--as=100000000"], { uid, gid });
    for (const { pid } of daemons) process.kill(pid, "SIGKILL");
    await until(() => filterRunning(daemons).length === 0);
    const after = await server.call("run_command", {
      sandbox,
      session: "late",
      command: "echo ran",
      wait_seconds: 0,
    });
    for (const run of [before, after]) {
      const note = await until(async () => {
        const { structured, text } = await server.call("get_result", { id: idIn(run), wait_seconds: 50 });
        return structured.state !== "running" && structured.state !== "starting" && text;
      }, 120_000);
      expect(note).toMatch(/has not responded for .*destroy_sandbox/s);
    }
    await server.call("destroy_sandbox", { sandbox });
    expect(await server.sh("echo ran", { sandbox })).toBe("ran\n");
  });
});
