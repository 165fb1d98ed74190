/** Code uses up a resource of its sandbox. Other sandboxes continue normally. */
import { execFileSync } from "node:child_process";
import { readlinkSync, rmSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { findGroupParents } from "../../local/engine/limits.ts";
import { endLater } from "../setup/end-later.ts";
import { processes } from "../setup/processes.ts";
import { idIn } from "../setup/mcp-client.ts";
import { until } from "../setup/until.ts";
import { startParts } from "../setup/parts.ts";
import { startServer } from "../setup/server.ts";
import { temporaryDirectory } from "../setup/temporary.ts";
import { LONG, callsOf } from "./support.ts";

const MIB = 1024 * 1024;

/** Without control groups, nothing limits a sandbox's memory: these tests would use up the machine's. */
const isMemoryLimited = (await findGroupParents()).some(({ controllers }) => controllers.includes("memory"));

/** Smaller than by default, so that code uses them up sooner. */
const limits = { memoryBytes: 768 * MIB, diskBytes: 512 * MIB };

const { url } = endLater(await startParts({ engine: { limits } }));
const server = callsOf(() => url);
beforeAll(() => server.call("run_code", { sandbox: "neighbour", code: "x = 7" }));

async function neighbourIsFine(): Promise<void> {
  expect((await server.call("run_code", { sandbox: "neighbour", code: "x" })).text).toContain("7");
  expect(await server.sh("echo fine", { sandbox: "neighbour" })).toBe("fine\n");
}

async function checkWorks(sandbox: string): Promise<void> {
  expect(await server.sh("echo works", { sandbox })).toBe("works\n");
  expect((await server.call("run_code", { sandbox, code: "1 + 1" })).text).toContain("2");
  const written = await server.call("write_file", { sandbox, path: "/workspace/works", content: "yes" });
  expect([written.isError, written.text]).toEqual([false, expect.any(String)]);
  expect((await server.call("read_file", { sandbox, path: "/workspace/works" })).text).toContain("yes");
}

type Case = [who: string, tool: string, args: Record<string, unknown>];

const ALL_HUNGRY: Case[] = [
  ["a command", "run_command", { command: "dd if=/dev/zero of=/dev/null bs=1900M count=1 iflag=fullblock" }],
  ["Python", "run_code", { code: "x = []\nwhile True: x.append(bytearray(50_000_000))" }],
  [
    "JavaScript",
    "run_code",
    { language: "javascript", code: "const x = []; for (;;) x.push(new Uint8Array(50_000_000).fill(1))" },
  ],
];
const ALL_BOMBS: Case[] = [
  ["in a command", "run_command", { command: ":(){ :|:& };:; sleep 3" }],
  [
    "in a command that ignores signals",
    "run_command",
    { command: "trap '' TERM INT HUP; b(){ b|b& }; b; sleep 2" },
  ],
  ["in code", "run_code", { code: "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass" }],
];

/** Each case keeps processors busy, so the short form has fewer. */
const HUNGRY = LONG ? ALL_HUNGRY : ALL_HUNGRY.slice(0, 2);
const BOMBS = LONG ? ALL_BOMBS : ALL_BOMBS.slice(0, 1);

describe("when the disk is full", () => {
  it("writes fail with the reason and change nothing, reads and deletions work, and writes work again after a deletion", async () => {
    const sandbox = "full";
    await server.call("write_file", { sandbox, path: "kept", content: "before" });
    await server.call("run_command", {
      sandbox,
      command: "cat /dev/zero > /workspace/fill 2>/dev/null; cat /dev/zero > /root/fill; true",
    });
    for (const append of [false, true]) {
      const written = await server.call("write_file", {
        sandbox,
        path: "kept",
        content: "x".repeat(100_000),
        append,
      });
      expect(written).toMatchObject({ isError: true });
      expect(written.text).toMatch(/No space left.*Delete files/);
    }
    expect((await server.call("read_file", { sandbox, path: "kept" })).text).toContain("before");
    expect((await server.call("list_files", { sandbox })).text).toContain("kept");
    expect(
      (await server.call("run_code", { sandbox, code: "open('y', 'w').write('y' * 10**6)" })).text,
    ).toContain("No space left");
    const command = await server.call("run_command", {
      sandbox,
      command: "echo still here; rm /workspace/fill /root/fill",
    });
    expect(command.structured).toMatchObject({ state: "succeeded", stdout: "still here\n" });
    await checkWorks(sandbox);
    await neighbourIsFine();
  });

  it("a command and Python that cannot start both name JavaScript, which deletes files", async () => {
    const sandbox = "filled";
    const fills = ["/workspace/fill", "/var/lib/sandbox-mcp/runs/fill"];
    const fill = fills.map((path) => `cat /dev/zero >${path}; `).join("");
    await server.call("run_command", { sandbox, command: `(${fill}) 2>/dev/null; true` });
    const command = await until(async () => {
      const answer = await server.call("run_command", { sandbox, command: "true" });
      return answer.isError ? answer : undefined;
    });
    const python = await server.call("run_code", { sandbox, code: "1" });
    for (const { text } of [command, python]) expect(text).toMatch(/full.*run_code in javascript/);
    const code = `${JSON.stringify(fills)}.forEach((path) => require("node:fs").rmSync(path))`;
    await server.call("run_code", { sandbox, language: "javascript", code });
    await checkWorks(sandbox);
  });
});

it.runIf(process.getuid?.() === 0)(
  "when the server's disk is full, calls say so, and they work again after there is space",
  async () => {
    const directory = temporaryDirectory();
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64m,mode=700", "full", directory]);
    const small = await startServer({ flags: ["--state-dir", directory] });
    const calls = callsOf(() => small.url);
    try {
      await calls.sh("echo kept > file", { sandbox: "small" });
      const { checkpoint } = (await calls.call("checkpoint_sandbox", { sandbox: "small" })).structured;
      const fill = join(directory, "fill");
      expect(() => execFileSync("dd", ["if=/dev/zero", `of=${fill}`, "bs=4k"], { stdio: "pipe" })).toThrow();
      // The server stores a record of a run that takes longer than a second.
      const refused = await calls.call("run_command", { sandbox: "small", command: "sleep 1.5" });
      expect(refused.text).toMatch(
        /^The server's disk is full, so this call for sandbox small was interrupted/,
      );
      const unmade = await calls.call("run_command", { sandbox: "new", command: "true" });
      expect(unmade.text).toMatch(
        /^The platform failed during this call for sandbox new \(.*the usual reason is a full disk/,
      );
      const unforked = await calls.call("restore_sandbox", { sandbox: "fork", checkpoint });
      expect(unforked.text).toMatch(
        /^The server could not use one of its databases .*the usual reason is a full disk/s,
      );
      rmSync(fill);
      expect(await calls.sh("echo made", { sandbox: "new" })).toBe("made\n");
      await calls.call("write_file", { sandbox: "small", path: "x", content: "now" });
      expect(await calls.sh("cat x", { sandbox: "small" })).toBe("now");
    } finally {
      await small.stop();
      execFileSync("umount", [directory]);
    }
  },
);

describe.runIf(isMemoryLimited)("when user code uses up the memory", () => {
  it.each(HUNGRY)("the code ends with the reason, and the next call works: %s", async (_who, name, args) => {
    const sandbox = "hungry";
    // A busy machine needs minutes to fill the memory.
    let answer = await server.call(name, { sandbox, ...args, timeout_seconds: 150, wait_seconds: 45 });
    while (answer.text.includes("state: running"))
      answer = await server.call("get_result", { id: idIn(answer), wait_seconds: 45 });
    expect(answer.text).toMatch(/137|memory|Memory|died|killed|gone/i);
    expect(answer.text).not.toMatch(/Internal error|Still running/);
    await checkWorks(sandbox);
    await neighbourIsFine();
  });
});

/** The PID namespace of a sandbox, from one of its processes. */
function namespaceOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

describe("when a fork bomb uses up the processes", () => {
  it.each(BOMBS)(
    "the run ends, other sandboxes continue, and destroy_sandbox leaves no process behind: %s",
    async (_where, name, args) => {
      const sandbox = "bomb";
      const namespace = namespaceOf(await server.firstPID(sandbox));
      const findProcesses = () => processes().filter(({ pid }) => namespaceOf(pid) === namespace);
      await server.call("run_code", { sandbox, code: "1" });
      const before = findProcesses().length;
      expect(before).toBeGreaterThan(0);
      await neighbourIsFine();
      const run = await server.call(name, { sandbox, ...args, timeout_seconds: 8, wait_seconds: 0 });
      await until(() => findProcesses().length > before + 40);
      await neighbourIsFine();
      const { text } = await server.call("get_result", { id: idIn(run), wait_seconds: 50 });
      expect(text).not.toMatch(/Internal error|Still running/);
      await neighbourIsFine();
      expect((await server.call("destroy_sandbox", { sandbox })).text).toContain("destroyed");
      // A bomb in the background survives its command, and ends with its sandbox.
      await until(() => findProcesses().length === 0);
      await checkWorks(sandbox);
    },
  );
});
