/** When a sandbox is registered with its account, and when that is taken back. */
import { describe, expect, it } from "vitest";
import { Activity } from "../../../src/actors/activity.ts";
import { ContainerStarts } from "../../../src/actors/container-starts.ts";
import { Registration, type RegistrationHost } from "../../../src/actors/registration.ts";
import { until } from "../support.ts";

const OWNER = { principalID: "owner", sandbox: "main" };

/** A registration whose account and container are notes of what was done. */
function registrationWith(
  changes: Partial<RegistrationHost> = {},
  account: Partial<RegistrationHost["accountLink"]> = {},
) {
  const done: string[] = [];
  const starts = new ContainerStarts(() => false);
  const accountLink = {
    isRegistered: false,
    isUnstarted: false,
    isKnown: async () => false,
    register: async () => {
      done.push("register");
      Object.assign(accountLink, { isRegistered: true, isUnstarted: true });
    },
    withdraw: async () => {
      done.push("withdraw");
      Object.assign(accountLink, { isRegistered: false, isUnstarted: false });
    },
    ...account,
  };
  const registration = new Registration({
    accountLink,
    starts,
    lease: { release: async () => ({ turn: 1, spent: new Map(), inUse: { slots: 0, seconds: 0 } }) },
    running: () => false,
    isInUse: () => false,
    prepare: async () => void done.push("prepare"),
    ...changes,
  });
  return { done, starts, registration };
}

describe("a registration", () => {
  it("is made after what there was before has ended, and lets calls start the container", async () => {
    const { done, starts, registration } = registrationWith();
    starts.close();
    expect(registration.holds).toBe(false);
    await registration.make(OWNER);
    expect(done).toEqual(["prepare", "register"]);
    expect(registration.holds).toBe(true);
  });

  it("is made again where the sandbox is destroyed meanwhile", async () => {
    const destroyed = Promise.withResolvers<void>();
    let destroying: Promise<void> | undefined;
    const { done, starts, registration } = registrationWith({
      prepare: async () => {
        destroying ??= starts.destroy(() => destroyed.promise);
      },
    });
    const made = registration.make(OWNER);
    await until(() => done.length === 1);
    destroyed.resolve();
    await made;
    expect(done).toEqual(["register", "register"]);
    expect(starts.isOpen).toBe(true);
  });

  it("is refused to an owner who may start no container, where none runs", async () => {
    const { done, registration } = registrationWith();
    await expect(registration.make({ ...OWNER, mayStart: false })).rejects.toThrow(
      "Sandbox main is not running",
    );
    expect(done).toEqual([]);
  });

  it("is refused for files of a sandbox that was never used, and made for those of one that was stopped", async () => {
    const { done, registration } = registrationWith();
    const owner = { ...OWNER, mayStart: "again" } as const;
    await expect(registration.make(owner)).rejects.toThrow("Sandbox main is not running and was never used");
    expect(done).toEqual([]);
    const known = registrationWith({}, { isKnown: async () => true });
    await known.registration.make(owner);
    expect(known.done).toEqual(["prepare", "register"]);
    await expect(
      registrationWith({}, { isKnown: async () => true }).registration.make({ ...OWNER, mayStart: false }),
    ).rejects.toThrow("What was saved of its /workspace is kept.");
  });

  it.each([
    ["no container came up", {}, ["withdraw"]],
    ["one runs", { running: () => true }, []],
    ["a call may still start one", { isInUse: () => true }, []],
  ])("is withdrawn as it should be where %s", async (_what, changes, withdrawn) => {
    const { done, starts, registration } = registrationWith(changes);
    await registration.make(OWNER);
    done.length = 0;
    await registration.withdrawUnstarted();
    await registration.withdrawUnstarted();
    expect(done).toEqual(withdrawn);
    expect(starts.isOpen).toBe(withdrawn.length === 0);
  });
});

describe("what is under way", () => {
  it("is a call until its work has ended, also in failure", async () => {
    const activity = new Activity({ background: () => undefined, used: () => undefined });
    const failed = activity.call(async () => {
      expect(activity).toMatchObject({ hasCalls: true, isBusy: true });
      throw new Error("refused");
    });
    await expect(failed).rejects.toThrow("refused");
    expect(activity).toMatchObject({ hasCalls: false, isBusy: false });
  });

  it.each([
    [{}, true, 1],
    [{ isOfContainer: false }, false, 0],
  ])("is a stream of the container's until its last byte was read: %j", async (options, isBusy, uses) => {
    let used = 0;
    const passing: Promise<unknown>[] = [];
    const background = (work: Promise<unknown>) => void passing.push(work);
    const activity = new Activity({ background, used: () => used++ });
    const passed = activity.passOn(new Blob(["a file"]).stream(), options);
    expect(activity).toMatchObject({ hasCalls: false, isBusy });
    expect(await new Response(passed).text()).toBe("a file");
    await Promise.all(passing);
    expect(activity.isBusy).toBe(false);
    expect(used).toBe(uses);
  });
});
