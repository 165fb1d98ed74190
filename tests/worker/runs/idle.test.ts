/** When the server stops an unused sandbox, and what keeps it running. */
import { describe, expect, it } from "vitest";
import { evict, inActor, owner, sh, until, isRunning, sandboxesOf, untilStopped } from "../support.ts";

const HOUR_MS = 3_600_000;

/** Starts a new actor that finds its sandbox unused for this time. */
async function leaveAlone(sandbox: string, ms: number): Promise<void> {
  await inActor(sandbox, (_actor, { storage }) => storage.kv.put("used", Date.now() - ms));
  await evict(sandbox);
}

/** The idle time is over, as the platform says. Answers whether the container runs then. */
async function outlives(sandbox: string): Promise<boolean> {
  await inActor(sandbox, (actor) => actor.onActivityExpired());
  return isRunning(sandbox);
}

/** Waits for the look at a sandbox that follows its use, which list_sandboxes shows by its size. */
async function looked(sandbox: string): Promise<void> {
  const size = async () => (await sandboxesOf()).find(({ name }) => name === sandbox)?.size_bytes;
  await until(async () => (await size()) !== undefined);
}

describe("idle_minutes", () => {
  it("stops a sandbox after the minutes that it says, and another after the server's", async () => {
    const minutes = { "idle-short": 3, "idle-long": undefined };
    for (const [sandbox, idle_minutes] of Object.entries(minutes)) {
      const { structured } = await owner.call("configure_sandbox", { sandbox, idle_minutes });
      expect(structured.idle_minutes).toBe(idle_minutes ?? 10);
      await sh(sandbox, "true");
      await leaveAlone(sandbox, HOUR_MS / 12);
      await inActor(sandbox, async (actor) => {
        actor.renewActivityTimeout();
        await actor.scheduleNextAlarm();
      });
    }
    await untilStopped("idle-short");
    expect(await isRunning("idle-long")).toBe(true);
  });

  it("may not be more than the operator allows", async () => {
    const call = { sandbox: "idle-most", env: { A: "1" } };
    expect(await owner.call("configure_sandbox", { ...call, idle_minutes: 61 })).toMatchObject({
      isError: true,
      text: expect.stringContaining("Give 60 at most"),
    });
    const { structured } = await owner.call("configure_sandbox", { sandbox: "idle-most", idle_minutes: 60 });
    expect(structured).toMatchObject({ idle_minutes: 60, variables: [] });
  });
});

describe("background processes", () => {
  it("hold their sandbox while they use the processor", async () => {
    const sandbox = "idle-spins";
    const pid = await sh(sandbox, "(while :; do :; done) >/dev/null 2>&1 & echo $!");
    await looked(sandbox);
    expect(await outlives(sandbox)).toBe(true);
    await sh(sandbox, `kill -9 ${pid}`);
    await until(async () => !(await outlives(sandbox)));
  });

  it("hold it while they are connected to something outside, and not to each other", async () => {
    const sandbox = "idle-connected";
    const pair =
      "import socket,time; s = socket.create_server(('127.0.0.1', 9000)); c = socket.create_connection(('127.0.0.1', 9000)); a = s.accept(); open('connected', 'w'); time.sleep(1000)";
    await sh(sandbox, `python3 -c "${pair}" >/dev/null 2>&1 & until [ -e connected ]; do sleep 0.1; done`);
    // The way out of a local sandbox is the server's own proxy.
    const out = "(exec 3<>/dev/tcp/127.0.0.1/3128; touch out; exec sleep 1000) >/dev/null 2>&1 &";
    const pid = await sh(sandbox, `${out} echo $!; until [ -e out ]; do sleep 0.1; done`);
    await looked(sandbox);
    expect(await outlives(sandbox)).toBe(true);
    expect(await outlives(sandbox)).toBe(true);
    await sh(sandbox, `kill -9 ${pid.trim()}`);
    await until(async () => !(await outlives(sandbox)));
  });

  it("keep it running for the hours that the operator allows", async () => {
    const sandbox = "idle-limit";
    await sh(sandbox, "(while :; do :; done) >/dev/null 2>&1 &");
    await looked(sandbox);
    await leaveAlone(sandbox, 2 * HOUR_MS);
    expect(await outlives(sandbox)).toBe(true);
    await leaveAlone(sandbox, 3 * HOUR_MS);
    expect(await outlives(sandbox)).toBe(false);
  });
});
