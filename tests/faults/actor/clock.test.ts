/** The actor's clock (`Date`) jumps during runs, as on a machine that slept or was set. */
import { afterEach, describe, expect, it, vi } from "vitest";
import { Account } from "../../../src/actors/account.ts";
import { idIn, killContainer, owner, runInActor, sh, until } from "../../worker/support.ts";

afterEach(() => void vi.restoreAllMocks());

// Saves may wait for half a minute.
vi.setConfig({ testTimeout: 180_000 });

const HOUR = 3_600_000;

const { now } = Date;

/** The clock goes on after the jump. */
function jump(ms: number): void {
  const ahead = ms + Date.now() - now();
  vi.spyOn(Date, "now").mockImplementation(() => now() + ahead);
}

describe("when the actor's clock jumps", () => {
  it.each([
    ["an hour back", -HOUR],
    ["a day ahead", 24 * HOUR],
  ])("every run ends with its output and has its own id, and the next call works: %s", async (_which, ms) => {
    const sandbox = ms < 0 ? "clock-back" : "clock-ahead";
    await sh(sandbox, "true");
    const command = await owner.call("run_command", {
      sandbox,
      command: "echo begun; sleep 2; echo ended",
      wait_seconds: 0.5,
    });
    const code = await owner.call("run_code", {
      sandbox,
      code: "import time; time.sleep(2); 'returned'",
      wait_seconds: 0.5,
    });
    jump(ms);
    const [first, second] = await Promise.all(
      [command, code].map((run) => owner.call("get_result", { id: idIn(run), wait_seconds: 20 })),
    );
    // A run may report its timeout if the new time is after its deadline.
    expect(first?.text).toMatch(/begun\nended|state: timed_out[^]*begun/);
    expect(second?.text).toContain("returned");
    const next = await owner.call("run_command", { sandbox, command: "echo next" });
    expect(next.structured).toMatchObject({ state: "succeeded", stdout: "next\n" });
    const { structured } = await owner.call("list_runs", { sandbox });
    const runs = structured.runs as { id: string; state: string; duration_ms: number }[];
    // Ids begin with the time, so a run that starts after a jump back is listed below earlier ones.
    const ids = runs.map(({ id }) => id);
    expect(ids).toEqual([...new Set(ids)].toSorted().toReversed());
    expect(ids.indexOf(String(next.structured.id))).toBe(ms < 0 ? ids.length - 1 : 0);
    expect(runs.filter(({ state, duration_ms }) => state === "running" || duration_ms < 0)).toEqual([]);
  });

  it("calls that wait for output do not wait longer although the clock is set back by an hour", async () => {
    const sandbox = "waits";
    const started = await owner.call("run_command", {
      sandbox,
      interactive: true,
      command: "sleep 40",
      wait_seconds: 0.5,
    });
    const id = idIn(started);
    const waits = [
      owner.call("get_result", { id, wait_seconds: 3 }, { progressToken: "progress" }),
      owner.call("get_result", { id, cursor: 0, wait_seconds: 3 }),
      owner.call("send_input", { id, text: "typed" }),
    ];
    setTimeout(() => jump(-HOUR), 1000);
    for (const { structured } of await Promise.all(waits)) expect(structured.state).toBe("running");
    await owner.call("cancel_run", { id });
  });

  it("an unused sandbox is stopped to make room, and when it is idle, although the clock was set back by a day", async () => {
    const sandbox = "unused-clock-back";
    await sh(sandbox, "true");
    await owner.call("configure_sandbox", { sandbox, idle_minutes: 1 });
    jump(-24 * HOUR);
    const leftMs = () => runInActor(sandbox, (actor) => Reflect.get(actor, "platform").idle?.leftMs());
    expect(await leftMs()).toBe(60_000);
    // The time of the last use is stored with a minute's precision.
    jump(120_000);
    expect(await leftMs()).toBe(0);
    jump(-24 * HOUR);
    const stopped = runInActor(sandbox, (actor) =>
      actor.stopIfIdle({ principalID: "owner", sandbox }, 40_000),
    );
    expect(await stopped).toBe(true);
  });

  it.each([
    ["back", "before", -24 * HOUR],
    ["back", "after", -24 * HOUR],
    ["forward", "before", 24 * HOUR],
    ["forward", "in the save before", 24 * HOUR],
  ])(
    "a change is saved in less than a minute although the clock was set %s by a day %s the change",
    async (way, when, ms) => {
      const sandbox = `saved-${way}-${when.replaceAll(" ", "-")}`;
      const savedAt = async () => {
        const { structured } = await owner.call("list_sandboxes");
        const listed = structured.sandboxes as { name: string; saved_at?: string }[];
        return listed.find(({ name }) => name === sandbox)?.saved_at;
      };
      const commit = Account.prototype.commitSave;
      if (when === "in the save before")
        vi.spyOn(Account.prototype, "commitSave").mockImplementationOnce(function (this: Account, ...args) {
          jump(ms);
          return commit.apply(this, args);
        });
      await sh(sandbox, "echo first > file");
      await until(async () => (await savedAt()) !== undefined);
      const first = await savedAt();
      if (when === "before") jump(ms);
      await sh(sandbox, "echo second > file");
      if (when === "after") jump(ms);
      await until(async () => (await savedAt()) !== first);
      await killContainer(sandbox);
      expect(await sh(sandbox, "cat file")).toBe("second\n");
    },
  );
});
