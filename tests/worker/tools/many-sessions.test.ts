import { describe, expect, it } from "vitest";
import { evict, runInActor, owner, sh, until, untilStopped } from "../support.ts";

const sandbox = "many-sessions";

describe("many sessions", () => {
  it("keep their state without a shell for each", async () => {
    const names = Array.from({ length: 28 }, (_, n) => `name-${n}`);
    for (const session of names)
      await sh(sandbox, `cd /tmp; export NAME=${session}; place() { echo "$NAME in $PWD"; }`, { session });
    const shells = async () => Number(await sh(sandbox, "pgrep -xc sbx-sh || true"));
    await until(async () => (await shells()) < 24);
    for (const session of ["name-0", "name-20", "name-27"])
      expect(await sh(sandbox, "place", { session })).toBe(`${session} in /tmp\n`);
  });

  it("leave no shells of earlier actors behind, and new actors do not make the sandbox run longer", async () => {
    const name = "many-evicted";
    for (let round = 0; round < 2; round++) {
      for (let n = 0; n < 12; n++) await sh(name, "true", { session: `round-${round}-${n}` });
      await evict(name);
    }
    const shells = async () => Number(await sh(name, "pgrep -xc sbx-sh || true"));
    await until(async () => (await shells()) < 20);
    expect(await sh(name, "echo $0", { session: "round-0-0" })).toBe("bash\n");
    // The time until an unused sandbox is stopped does not begin again with a new actor.
    await runInActor(name, (_sandbox, { storage }) => storage.kv.put("used_at", Date.now() - 700_000));
    await evict(name);
    await untilStopped(name);
    expect((await owner.call("run_command", { sandbox: name, command: "true" })).text).toContain(
      "stopped because it was idle",
    );
    await owner.call("destroy_sandbox", { sandbox: name });
  });

  it("leave no shells behind after their parents, the keepers, have ended, even if many commands end at once", async () => {
    const name = "many-at-once";
    for (let round = 0; round < 3; round++) {
      const sessions = Array.from({ length: 24 }, (_, n) => `s-${n}`);
      await Promise.all(sessions.map((session) => sh(name, "true", { session })));
    }
    const orphans = () => sh(name, "pgrep -xc -P 1 sbx-sh || true");
    // Twice in a row, because a shell that is just being ended can appear for a moment.
    await until(async () => (await orphans()) === "0\n" && (await orphans()) === "0\n");
    expect(await orphans()).toBe("0\n");
    await owner.call("destroy_sandbox", { sandbox: name });
  });

  it("do not end a command or its background processes", async () => {
    const useOtherSession = (n: number) => sh(sandbox, "true", { session: `other-${n}` });
    const running = owner.call("run_command", {
      sandbox,
      session: "busy",
      command:
        "(while sleep 0.1; do date +%N >/tmp/tick; done) & until [ -e /tmp/over ]; do sleep 0.1; done; echo through",
    });
    for (let n = 0; n < 28; n++) await useOtherSession(n);
    await until(async () => Number(await sh(sandbox, "pgrep -xc sbx-sh || true")) < 26);
    await sh(sandbox, "touch /tmp/over");
    expect((await running).structured).toMatchObject({ state: "succeeded", stdout: "through\n" });
    const first = await sh(sandbox, "cat /tmp/tick");
    await until(async () => (await sh(sandbox, "cat /tmp/tick")) !== first);
  });
});
