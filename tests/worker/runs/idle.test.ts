import { describe, expect, it, onTestFinished, vi } from "vitest";
import { Activity } from "../../../src/actors/activity.ts";
import { IdleStop } from "../../../src/actors/idle-stop.ts";
import { FileOperations } from "../../../src/container/file-operations.ts";
import {
  evict,
  runInActor,
  owner,
  sh,
  sleep,
  until,
  isRunning,
  sandboxesOf,
  untilStopped,
} from "../support.ts";

const HOUR_MS = 3_600_000;

/** Starts a new actor, and makes its sandbox look unused for this time. */
async function leaveAlone(sandbox: string, ms: number): Promise<void> {
  await runInActor(sandbox, (_actor, { storage }) => storage.kv.put("used_at", Date.now() - ms));
  await evict(sandbox);
}

/** Reports the idle timeout to the actor. Returns whether the container still runs. */
async function survivesIdleTimeout(sandbox: string): Promise<boolean> {
  await runInActor(sandbox, (actor) => actor.onActivityExpired());
  return isRunning(sandbox);
}

/** Waits until the server has measured the sandbox after its use. */
async function waitForSize(sandbox: string): Promise<void> {
  const size = async () => (await sandboxesOf()).find(({ name }) => name === sandbox)?.size_bytes;
  await until(async () => (await size()) !== undefined);
}

describe("idle_minutes", () => {
  it("stops its sandbox after these minutes without use, and no other sandbox", async () => {
    const minutes = { "idle-short": 3, "idle-long": undefined };
    for (const [sandbox, idle_minutes] of Object.entries(minutes)) {
      const { structured } = await owner.call("configure_sandbox", { sandbox, idle_minutes });
      expect(structured.idle_minutes).toBe(idle_minutes ?? 10);
      await sh(sandbox, "true");
      await leaveAlone(sandbox, HOUR_MS / 12);
      await runInActor(sandbox, async (actor) => {
        actor.renewActivityTimeout();
        await actor.scheduleNextAlarm();
      });
    }
    await untilStopped("idle-short");
    expect(await isRunning("idle-long")).toBe(true);
  });

  it("may not exceed the operator's limit", async () => {
    const call = { sandbox: "idle-most", env: { A: "1" } };
    expect(await owner.call("configure_sandbox", { ...call, idle_minutes: 61 })).toMatchObject({
      isError: true,
      text: expect.stringContaining("Give 60 at most"),
    });
    const { structured } = await owner.call("configure_sandbox", { sandbox: "idle-most", idle_minutes: 60 });
    expect(structured).toMatchObject({ idle_minutes: 60, variables: [] });
  });
});

describe("an idle sandbox that cannot be stopped", () => {
  it("is tried again after a minute, not at once", async () => {
    await sh("idle-unsaved", "true");
    const attempts = await runInActor("idle-unsaved", async (_actor, { storage }) => {
      let count = 0;
      const idle = new IdleStop({
        kv: storage.kv,
        platform: { noteUse: () => undefined },
        account: { unusedMs: HOUR_MS },
        lifecycle: { isInUse: false, stopIfUnused: async () => ++count < 0 },
        previews: { isInUse: async () => false },
        glancing: Object.create(FileOperations.prototype) as FileOperations,
        limits: { minutes: 10, maxMinutes: 10, busyHours: 0 },
      });
      // As the platform's alarm does.
      for (let alarm = 0; alarm < 5; alarm++) if (idle.leftMs() === 0) await idle.onIdleTimeout();
      return { count, leftMs: idle.leftMs() };
    });
    expect(attempts.count).toBe(1);
    expect(attempts.leftMs).toBeGreaterThan(50_000);
    expect(attempts.leftMs).toBeLessThanOrEqual(60_000);
  });
});

it("a download whose client does not read prevents an idle stop for at most a day", async () => {
  const activity = new Activity({ background: () => undefined, platform: { noteUse: () => undefined } });
  const { promise, resolve } = Promise.withResolvers<void>();
  const begunAt = Date.now();
  const transfer = activity.transfer(promise);
  const clock = vi.spyOn(Date, "now");
  onTestFinished(() => clock.mockRestore());
  const isBusyAfter = (ms: number) => {
    clock.mockReturnValue(begunAt + ms);
    return activity.isBusy;
  };
  expect([0, 23, 25].map((hours) => isBusyAfter(hours * HOUR_MS))).toEqual([true, true, false]);
  resolve();
  await transfer;
  expect(isBusyAfter(0)).toBe(false);
});

describe("a call that the control server never answers", () => {
  it("does not keep an unused sandbox, nor repeat the alarm", async () => {
    await sh("idle-hung", "true");
    await leaveAlone("idle-hung", HOUR_MS);
    await runInActor("idle-hung", async (actor) => {
      // As the SDK counts such a call.
      expect(String(Reflect.get(actor, "isActivityExpired"))).toContain("inflightRequests");
      Reflect.set(actor, "inflightRequests", 1);
      actor.renewActivityTimeout();
      await actor.alarm();
    });
    expect(await isRunning("idle-hung")).toBe(false);
  });
});

describe("background processes", () => {
  it("keep their sandbox running while they are connected to other hosts, but not if only to each other", async () => {
    const sandbox = "idle-connected";
    const pair =
      "import socket,time; s = socket.create_server(('127.0.0.1', 9000)); c = socket.create_connection(('127.0.0.1', 9000)); a = s.accept(); open('connected', 'w'); time.sleep(1000)";
    await sh(sandbox, `python3 -c "${pair}" >/dev/null 2>&1 & until [ -e connected ]; do sleep 0.1; done`);
    // A local sandbox reaches other hosts through the server's own proxy.
    const out = "(exec 3<>/dev/tcp/127.0.0.1/3128; touch out; exec sleep 1000) >/dev/null 2>&1 &";
    const pid = await sh(sandbox, `${out} echo $!; until [ -e out ]; do sleep 0.1; done`);
    await waitForSize(sandbox);
    expect(await survivesIdleTimeout(sandbox)).toBe(true);
    expect(await survivesIdleTimeout(sandbox)).toBe(true);
    await sh(sandbox, `kill -9 ${pid.trim()}`);
    await until(async () => !(await survivesIdleTimeout(sandbox)));
  });

  it("keep their sandbox running for at most the hours that the operator allows", async () => {
    const sandbox = "idle-works";
    // The process occupies a processor, so it starts late, shortly before the test needs it.
    await sh(sandbox, "(sleep 3; while :; do :; done) >/dev/null 2>&1 &");
    await sleep(3500);
    await waitForSize(sandbox);
    await leaveAlone(sandbox, 2 * HOUR_MS);
    expect(await survivesIdleTimeout(sandbox)).toBe(true);
    await leaveAlone(sandbox, 3 * HOUR_MS);
    // A new actor may still measure the sandbox.
    await until(async () => !(await survivesIdleTimeout(sandbox)));
  });
});
