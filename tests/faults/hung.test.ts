/** The server's part of a sandbox hangs, its control server and sandboxd: both are stopped by SIGSTOP, for a while or for good. */
import { beforeAll, describe, expect, it } from "vitest";
import { idIn } from "../setup/mcp-client.ts";
import { tree } from "../setup/processes.ts";
import { sleep, until } from "../setup/until.ts";
import { type Bed, startBed } from "./support.ts";

let bed: Bed;
const stopped: number[] = [];

beforeAll(async () => {
  bed = await startBed();
  return () => {
    resume(stopped);
    return bed.close();
  };
});

/** Lets processes go on; some may be gone. */
function resume(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGCONT");
    } catch {
      // It is gone.
    }
  }
}

/** Stops what is the server's in a sandbox, also what would replace it. Its processes. */
async function hang(sandbox: string): Promise<number[]> {
  const first = await bed.first(sandbox);
  const pids = tree(first).flatMap(({ pid, command }) => (/^sbx(d|-control)$/.test(command) ? pid : []));
  if (pids.length !== 2) throw new Error(`no sandboxd or no control server of ${sandbox}`);
  pids.unshift(first);
  stopped.push(...pids);
  for (const pid of pids) process.kill(pid, "SIGSTOP");
  return pids;
}

// They wait most of the time: each in a sandbox of its own.
describe.concurrent("runtime hung for a while (SIGSTOP, SIGCONT)", () => {
  it("runs and calls continue; nothing is repeated", async () => {
    const sandbox = "pausing";
    const command = await bed.call("run_command", {
      sandbox,
      command: "for i in {0..29}; do echo $i; sleep 0.1; done",
      wait_seconds: 0,
    });
    const code = await bed.call("run_code", {
      sandbox,
      code: "import time; time.sleep(2); print('ran'); 42",
      wait_seconds: 0,
    });
    const printed = () => bed.call("get_result", { id: idIn(command), cursor: 0, wait_seconds: 0 });
    await until(async () => (await printed()).text.includes("\n5\n"));
    const hung = await hang(sandbox);
    const during = [
      bed.call("run_command", { sandbox, session: "b", command: "echo waited >> once; cat once" }),
      bed.call("write_file", { sandbox, path: "a", content: "1", append: true }),
    ];
    await sleep(4000);
    resume(hung);
    expect((await bed.call("get_result", { id: idIn(command) })).text).toContain(
      `${Array.from({ length: 30 }, (_, index) => index).join("\n")}\n`.trim(),
    );
    expect((await bed.call("get_result", { id: idIn(code) })).text).toMatch(/ran[^]*42/);
    const [ran, written] = await Promise.all(during);
    expect(ran?.structured).toMatchObject({ state: "succeeded", stdout: "waited\n" });
    expect(written?.structured).toMatchObject({ size: 1 });
  });
});

describe.concurrent("runtime hung for good (SIGSTOP)", () => {
  it("runs end soon after their timeout with the reason; other sandboxes work; destroy_sandbox works", async () => {
    const sandbox = "hanging";
    // Long enough for all of them to begin before it hangs.
    const limits = { wait_seconds: 0, timeout_seconds: 20 };
    const command = await bed.call("run_command", { sandbox, command: "echo before; sleep 60", ...limits });
    const sleeping = "import time; print('before', flush=True); time.sleep(60)";
    const code = await bed.call("run_code", { sandbox, code: sleeping, ...limits });
    const printed = (run: typeof code) => bed.call("get_result", { id: idIn(run), wait_seconds: 0 });
    for (const run of [command, code]) await until(async () => (await printed(run)).text.includes("before"));
    await hang(sandbox);
    const files = Promise.all([
      bed.call("list_files", { sandbox }),
      bed.call("read_file", { sandbox, path: "a" }),
      bed.call("write_file", { sandbox, path: "a", content: "a" }),
      bed.call("write_file", { sandbox, path: "b", content: "b".repeat(1_000_000) }),
    ]);
    const late = bed.call("run_command", { sandbox, session: "b", command: "true", timeout_seconds: 6 });
    const [first, second, third] = await Promise.all([
      bed.call("get_result", { id: idIn(command), wait_seconds: 50 }),
      bed.call("get_result", { id: idIn(code), wait_seconds: 50 }),
      late,
    ]);
    expect(first.text).toMatch(/state: timed_out[^]*did not confirm[^]*destroy_sandbox[^]*before/);
    expect(second.text).toMatch(/state: timed_out/);
    expect(third.text).toMatch(
      /state: timed_out[^]*longer than \d+ s and [^]*did not confirm[^]*destroy_sandbox/,
    );
    for (const { text } of await files) expect(text).toMatch(/has not answered [^]*destroy_sandbox/);
    expect((await bed.call("cancel_run", { id: idIn(command) })).text).toContain("state: timed_out");
    expect(await bed.sh("echo fine", { sandbox: "another" })).toBe("fine\n");
    expect((await bed.call("destroy_sandbox", { sandbox })).text).toContain("destroyed");
    expect(await bed.sh("echo afresh", { sandbox })).toBe("afresh\n");
  });

  it("its runs can be cancelled, and say what to do", async () => {
    const sandbox = "hanging-too";
    const command = await bed.call("run_command", { sandbox, command: "sleep 60", wait_seconds: 0 });
    await hang(sandbox);
    const { text } = await bed.call("cancel_run", { id: idIn(command) });
    expect(text).toMatch(/state: cancelled[^]*did not confirm[^]*destroy_sandbox/);
    await bed.call("destroy_sandbox", { sandbox });
    expect((await bed.call("get_result", { id: idIn(command) })).text).toContain("state: cancelled");
  });
});
