import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { owner } from "../support.ts";

const sandbox = "leak";
const caller = owner.withVariables({ LOG_LEVEL: "debug" });
const SECRET = "s3cr3t-of-the-user";

let logged: string[];
beforeEach(() => {
  logged = [];
  for (const level of ["debug", "log", "info", "warn", "error"] as const)
    vi.spyOn(console, level).mockImplementation((...args: unknown[]) => {
      logged.push(...args.map((arg) => (arg instanceof Error ? String(arg.stack) : JSON.stringify(arg))));
    });
});
afterEach(() => vi.restoreAllMocks());

describe("the server's log, if shells of the sandbox are killed during calls,", () => {
  it("has no part of a command, its variables, its directory or its session", async () => {
    const result = await caller.call("run_command", {
      sandbox,
      command: `: ${SECRET}; pkill -9 -x bash`,
      env: { KEY: SECRET },
      cwd: `/tmp/../workspace/../${SECRET}/..`,
      session: SECRET,
    });
    expect(result.text).not.toContain("Internal error");
    const killing = caller.call("run_command", {
      sandbox,
      session: SECRET,
      command: `: ${SECRET}; sleep 0.3; pkill -9 -x bash`,
      env: { KEY: SECRET },
    });
    expect((await killing).text).not.toContain("Internal error");
    expect(logged.join("\n")).toContain("run_command");
    expect(logged.join("\n")).not.toContain(SECRET);
  });

  it("has no path and no content of a file", async () => {
    const killer = caller.call("run_command", {
      sandbox,
      session: "killer",
      command:
        'exec python3 -c \'import time,subprocess\nfor i in range(15):\n  time.sleep(0.1); subprocess.run(["pkill","-9","-x","bash"])\'',
    });
    for (let n = 0; n < 6; n++)
      await caller.call("write_file", {
        sandbox,
        path: `/workspace/${SECRET}`,
        content: SECRET.repeat(n % 2 ? 2000 : 50_000),
      });
    await killer;
    expect(logged.join("\n")).toContain("write_file");
    expect(logged.join("\n")).not.toContain(SECRET);
  });
});
