/** A command that keeps killing the shells of its sandbox: what follows commands there is none of them. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { owner } from "../support.ts";

const killers = { brief: "killer-brief", lasting: "killer-lasting", damaging: "killer-damaging" };

/** Kills every bash but the first process for so many seconds, then says that it is done. */
const KILLER = `import os, sys, time
end = time.time() + float(sys.argv[1])
while time.time() < end:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if pid != "1" and open(f"/proc/{pid}/comm").read() == "bash\\n":
                os.kill(int(pid), 9)
        except OSError:
            pass
print("done killing", flush=True)
`;

/** Has the next shell find nothing of ours; what the local platform keeps beside it stays. */
const DAMAGE = "mv /opt /gone && mkdir /opt && ln -s /gone/sandbox-runtime /opt/sandbox-runtime";

beforeAll(async () => {
  for (const sandbox of Object.values(killers))
    await owner.call("write_file", { sandbox, path: "/tmp/k.py", content: KILLER });
});
afterAll(async () => {
  for (const sandbox of Object.values(killers)) await owner.call("destroy_sandbox", { sandbox });
});

const kill = (sandbox: string, command: string, more: Record<string, unknown> = {}) =>
  owner.call("run_command", { sandbox, command, wait_seconds: 45, ...more });

const states = async (sandbox: string) => {
  const { structured } = await owner.call("list_runs", { sandbox });
  return (structured as { runs: { state: string }[] }).runs.map(({ state }) => state);
};

describe.concurrent("a command that kills every shell", () => {
  it("is followed to its end", async () => {
    const run = await kill(killers.brief, "exec python3 /tmp/k.py 8");
    expect(run.isError).toBe(false);
    expect(run.text).toContain("done killing");
    expect(await states(killers.brief)).toEqual(["succeeded"]);
  });

  it("ends at its deadline", async () => {
    const run = await kill(killers.lasting, "exec python3 /tmp/k.py 25", { timeout_seconds: 2 });
    expect(run.isError).toBe(false);
    expect(run.text).toContain("state: timed_out");
    expect(run.text).not.toContain("same call again");
    expect(await states(killers.lasting)).toEqual(["timed_out"]);
  });

  it("has its end also where our programs are gone, and the next one says that they are", async () => {
    const run = await kill(killers.damaging, `${DAMAGE}; exec python3 /tmp/k.py 2`);
    expect(run.isError).toBe(false);
    expect(run.text).toContain("done killing");
    expect(await states(killers.damaging)).toEqual(["succeeded"]);
    const next = await kill(killers.damaging, "true");
    expect(next.isError).toBe(true);
    expect(next.text).toContain("is damaged");
  });
});
