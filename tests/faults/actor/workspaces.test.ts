/** R2 fails, is slow or breaks off, and actors are evicted, during saves and restores. */
import * as fc from "../../setup/chance.ts";
import { afterAll, describe, expect, inject, it, onTestFinished, vi } from "vitest";
import type { NetworkPlatform } from "../../../src/actors/platform/platform.ts";
import {
  actorOf,
  evict,
  evictActor,
  idIn,
  runInActor,
  killContainer,
  owner,
  principal,
  result,
  setLimits,
  sh,
  sleep,
  until,
} from "../../worker/support.ts";
import { Account, bucketOf, endFaults } from "./worker.ts";

const save = (sandbox: string) => owner.call("checkpoint_sandbox", { sandbox });

/** Makes the saves of this sandbox never end. */
function hang(sandbox: string): void {
  bucketOf(sandbox).fault = (operation) =>
    operation === "put" ? new Promise(() => undefined) : Promise.resolve();
}

/** Holds these operations of the sandbox's bucket. `requested` resolves at the first one, and `release` lets all continue. */
function hold(sandbox: string, held: "get" | "put") {
  const requested = Promise.withResolvers<void>();
  const released = Promise.withResolvers<void>();
  bucketOf(sandbox).fault = async (operation) => {
    if (operation !== held) return;
    requested.resolve();
    await released.promise;
  };
  return { requested: requested.promise, release: released.resolve };
}

// Calls wait for time limits of the server.
vi.setConfig({ testTimeout: 180_000 });

afterAll(endFaults);

// These tests change state that all sandboxes share, so they run alone.
describe("when a save takes long", () => {
  it("another sandbox starts during the save", async () => {
    const caller = await principal("ws-room");
    const run = (sandbox: string, command: string) => caller.call("run_command", { sandbox, command });
    onTestFinished(await setLimits({ runningSandboxes: 2 }));
    for (const sandbox of ["a", "b"]) {
      await run(sandbox, `echo ${sandbox} > file`);
      await caller.call("checkpoint_sandbox", { sandbox });
    }
    hang("a");
    await run("a", "echo late > file");
    // An evicted actor does not know that its sandbox was just used.
    for (const name of ["a", "b"]) await evictActor(await actorOf(name, caller));
    expect((await run("c", "echo ran")).text).toContain("ran");
    const { text } = await caller.call("list_sandboxes");
    expect(text.match(/^\w(?=: running)/gm)?.sort()).toEqual(["a", "c"]);
  });

  it("after the container is killed during the save, the next one is restored from that save and can be saved", async () => {
    const sandbox = "ws-committing";
    await sh(sandbox, "echo first > file");
    await save(sandbox);
    const commitRequested = Promise.withResolvers<void>();
    const commitMayContinue = Promise.withResolvers<void>();
    const commit = Account.prototype.commitSave;
    const commitSpy = vi.spyOn(Account.prototype, "commitSave");
    commitSpy.mockImplementation(async function (this: Account, ...args) {
      commitRequested.resolve();
      await commitMayContinue.promise;
      return commit.apply(this, args);
    });
    await sh(sandbox, "echo second > file");
    await commitRequested.promise;
    await killContainer(sandbox);
    const next = sh(sandbox, "cat file");
    await Promise.race([next, sleep(2000)]);
    commitMayContinue.resolve();
    expect(await next).toBe("second\n");
    await sh(sandbox, "echo third > file");
    expect((await save(sandbox)).isError).toBe(false);
    await killContainer(sandbox);
    expect(await sh(sandbox, "cat file")).toBe("third\n");
    commitSpy.mockRestore();
  });
  it("a change that a call makes while the server saves before its own stop is saved too", async () => {
    const sandbox = "ws-stopping";
    await sh(sandbox, "echo first > file");
    await save(sandbox);
    const held = hold(sandbox, "put");
    await sh(sandbox, "echo second > file");
    const stopping = runInActor(sandbox, (actor) => actor.saveToStop());
    await held.requested;
    await sh(sandbox, "echo third > file");
    held.release();
    expect(await stopping).toBe(true);
    await killContainer(sandbox);
    expect(await sh(sandbox, "cat file")).toBe("third\n");
  });
});

describe("when a restore takes long", () => {
  it.each([
    ["command", "run_command", { command: "echo second >> file" }],
    ["code", "run_code", { code: "print('second', file=open('file', 'a'))" }],
  ])(
    "a %s that waits for it runs once, in the next container, if its own is killed",
    async (kind, tool, args) => {
      const sandbox = `ws-restoring-${kind}`;
      await sh(sandbox, "echo first > file");
      await save(sandbox);
      await killContainer(sandbox);
      const held = hold(sandbox, "get");
      const waiting = owner.call(tool, { sandbox, ...args });
      await held.requested;
      await killContainer(sandbox);
      held.release();
      expect((await waiting).structured).toMatchObject({
        state: "succeeded",
        notice: expect.stringContaining("The sandbox was restarted: its files are as saved"),
      });
      expect(await sh(sandbox, "cat file")).toBe("first\nsecond\n");
    },
  );
});

// This test waits for the time limit of a save before a stop, so it starts first.
describe.concurrent("when a save never ends", () => {
  it("the server still enforces a network policy", async () => {
    const sandbox = "policy";
    const caller = await principal("ws-policy");
    const run = (command: string) => caller.call("run_command", { sandbox, command });
    await run("echo saved > file");
    await caller.call("checkpoint_sandbox", { sandbox });
    // R2 has a time limit of its own, so a save that waits for R2 would end.
    const commitFails = Promise.withResolvers<never>();
    const commit = Account.prototype.commitSave;
    const commitSpy = vi.spyOn(Account.prototype, "commitSave").mockImplementation(async function (
      this: Account,
      given,
      ...args
    ) {
      if (given.sandbox === sandbox) await commitFails.promise;
      return commit.call(this, given, ...args);
    });
    await run("echo late > file");
    const platform = await runInActor(sandbox, (actor) => actor["networkPlatform"], caller);
    // Cloudflare cannot restrict a container that was started with full internet access.
    const enforceSpy = vi
      .spyOn<NetworkPlatform, "enforce">(Object.getPrototypeOf(platform), "enforce")
      .mockImplementation(async ({ internet }) => internet === "full");
    await caller.call("configure_sandbox", { sandbox, internet: "none" });
    const isStopped = async () => /^policy: stopped/m.test((await caller.call("list_sandboxes")).text);
    await until(isStopped, 100_000);
    enforceSpy.mockRestore();
    commitSpy.mockRestore();
    commitFails.reject(new Error("the account does not respond"));
    const next = await run("cat file");
    expect(next.structured.stdout).toBe("saved\n");
    expect(next.text).toMatch(/to restrict its network.* and any later changes/);
  });
});

// Each test has its own sandbox.
describe.concurrent("when R2 fails under a workspace", () => {
  it("calls continue to work while R2 refuses; after a crash, no call starts until the last save is restored", async () => {
    const sandbox = "ws-refused";
    await sh(sandbox, "echo first > file");
    await save(sandbox);
    bucketOf(sandbox).fault = async () => {
      throw new Error("R2 is not there (10001)");
    };
    await sh(sandbox, "echo second > file");
    const failed = await save(sandbox);
    expect(failed.text).toMatch(/could not be saved: the storage does not respond/);
    expect(await sh(sandbox, "cat file")).toBe("second\n");
    await killContainer(sandbox);
    // No call starts with an empty workspace.
    const refused = await owner.call("write_file", { sandbox, path: "file", content: "from nothing" });
    expect(refused.text).toMatch(
      /could not be restored: the storage does not respond.*This call was not started/,
    );
    const run = await owner.call("run_command", { sandbox, command: "touch from-nothing" });
    expect(run.text).toContain("could not be restored");
    delete bucketOf(sandbox).fault;
    expect(await sh(sandbox, "cat file; ls")).toBe("first\nfile\n");
  });

  it("if R2 refused a save and the container was then killed, the next container is saved without a call", async () => {
    const sandbox = "ws-saved-again";
    await sh(sandbox, "echo first > file");
    await save(sandbox);
    bucketOf(sandbox).fault = async (operation) => {
      if (operation === "put") throw new Error("R2 is not there (10001)");
    };
    await sh(sandbox, "echo second > file");
    expect((await save(sandbox)).isError).toBe(true);
    await killContainer(sandbox);
    delete bucketOf(sandbox).fault;
    expect(await sh(sandbox, "cat file; echo third > file")).toBe("first\n");
    const changed = Date.now();
    await until(async () => {
      const { structured } = await owner.call("list_sandboxes");
      const listed = structured.sandboxes as { name: string; saved_at?: string }[];
      return Date.parse(listed.find(({ name }) => name === sandbox)?.saved_at ?? "") > changed;
    });
    await killContainer(sandbox);
    expect(await sh(sandbox, "cat file")).toBe("third\n");
  });

  it("a restore goes on if R2 refuses every other read", async () => {
    const sandbox = "ws-unsteady";
    await sh(sandbox, "echo first > file");
    await save(sandbox);
    await killContainer(sandbox);
    let reads = 0;
    bucketOf(sandbox).fault = async (operation) => {
      if (operation === "get" && reads++ % 2 === 0) throw new Error("R2 is not there (10001)");
    };
    expect(await sh(sandbox, "cat file")).toBe("first\n");
    delete bucketOf(sandbox).fault;
  });

  it("no call waits for a save if R2 is slow", async () => {
    const sandbox = "ws-slow";
    const held = hold(sandbox, "put");
    await sh(sandbox, "echo first > file");
    await held.requested;
    expect(await sh(sandbox, "cat file")).toBe("first\n");
    held.release();
    expect((await save(sandbox)).isError).toBe(false);
    delete bucketOf(sandbox).fault;
    await killContainer(sandbox);
    expect(await sh(sandbox, "cat file")).toBe("first\n");
  });
});

/** A half of the operations by chance, or all in the long form. For each, a sandbox starts, and a failure names the operation. */
function chooseOperations(count: number): number[] {
  const all = Array.from({ length: count }, (_, at) => at);
  const chosen = inject("isLong") ? count : Math.ceil(count / 2);
  return fc.sample(fc.shuffledSubarray(all, { minLength: chosen, maxLength: chosen }), 1).flat();
}

describe.concurrent("when an actor is evicted at any operation of R2", () => {
  it.each(["before", "after"] as const)(
    "the old or the new state is restored completely if the container is killed next: %s the next save",
    async (when) => {
      const sandbox = `ws-evict-${when}`;
      // The file changes by one rename, because the actor that follows an eviction may save while this command runs.
      const change = [
        "head -c 5000000 /dev/urandom > /tmp/data",
        "(sha256sum < /tmp/data; cat /tmp/data) > .new",
        "mv .new data",
      ].join(" && ");
      await sh(sandbox, change);
      let count = 0;
      bucketOf(sandbox).fault = async () => void (count += 1);
      await save(sandbox);
      const operations = count;
      expect(operations).toBeGreaterThan(1);
      for (const at of chooseOperations(operations)) {
        await sh(sandbox, change);
        count = 0;
        bucketOf(sandbox).fault = async () => {
          if (count++ === at) await evict(sandbox);
        };
        await save(sandbox);
        const which = `operation ${at} of ${operations}`;
        expect(count, which).toBeGreaterThan(at);
        delete bucketOf(sandbox).fault;
        // The next actor saves the workspace by itself, unless the container ends first.
        if (when === "after") await save(sandbox);
        await killContainer(sandbox);
        expect(
          await sh(sandbox, "tail -n +2 data | sha256sum | cmp - <(head -n 1 data) && echo complete"),
          which,
        ).toBe("complete\n");
      }
    },
  );

  it("the next call finds the complete state if the eviction interrupts a restore", async () => {
    const sandbox = "ws-evict-restore";
    await sh(sandbox, "head -c 10000000 /dev/urandom > data; sha256sum data > sum");
    await save(sandbox);
    let count = 0;
    bucketOf(sandbox).fault = async () => void (count += 1);
    await killContainer(sandbox);
    await sh(sandbox, "true");
    const operations = count;
    expect(operations).toBeGreaterThan(1);
    for (const at of chooseOperations(operations)) {
      await killContainer(sandbox);
      count = 0;
      bucketOf(sandbox).fault = async () => {
        if (count++ === at) await evict(sandbox);
      };
      const id = idIn(await owner.call("run_command", { sandbox, command: "true", wait_seconds: 0 }));
      // The next actor gets the result from sandboxd over a new connection, which stays open.
      await result(id);
      const which = `operation ${at} of ${operations}`;
      expect(count, which).toBeGreaterThan(at);
      delete bucketOf(sandbox).fault;
      expect(await sh(sandbox, "sha256sum -c sum"), which).toBe("data: OK\n");
    }
  });
});
