/** A workspace in real containers: saved automatically, restored in the next container, checkpointed, forked, destroyed. */
import { runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it, vi } from "vitest";
import { saveAll } from "../../../local/platform/stop.ts";
import type { Account, Sandbox } from "../../../src/index.ts";
import type { SandboxNamespaces } from "../../../src/shared/config.ts";
import { workspacesPrefix } from "../../../src/actors/saved-states.ts";
import { principalHash } from "../../../src/shared/names.ts";
import {
  accountOf,
  actorOf,
  bucket,
  evaluateInSandboxd,
  evict,
  runInActor,
  runInKernel,
  killContainer,
  owner,
  principal,
  sh,
  until,
} from "../support.ts";

const save = (sandbox: string) => runInActor(sandbox, (actor) => actor.saveToStop());

const savedAt = async (sandbox: string) => (await accountOf(owner).workspace(sandbox))?.savedAt;

let withSettings: Promise<unknown> | undefined;

/** A checkpoint with settings. Several tests fork it, because each start of a sandbox takes half a second of processor time. */
function checkpointWithSettings(): Promise<unknown> {
  const make = async () => {
    const sandbox = "with-settings";
    await owner.call("configure_sandbox", { sandbox, internet: "none", env: { WORD: "w" } });
    await sh(sandbox, "echo kept > file");
    return (await owner.call("checkpoint_sandbox", { sandbox })).structured.checkpoint;
  };
  return (withSettings ??= make());
}

/** Makes sandboxd hold back writes of images' originals until /tmp/continue exists. */
const HOLD = `
const { existsSync, writeFileSync } = process.getBuiltinModule("fs");
const { Server } = process.getBuiltinModule("http");
const { emit } = Server.prototype;
Server.prototype.emit = function (event, request, ...rest) {
  const pass = () => emit.call(this, event, request, ...rest);
  const isHeld = event === "request" && request.method === "PUT" && request.url.includes("outputs");
  if (!isHeld) return pass();
  const wait = () => (existsSync("/tmp/continue") ? pass() : setTimeout(wait, 50));
  wait();
  return true;
};
writeFileSync("/tmp/holds", "");
`;

describe.concurrent("a workspace", () => {
  it("is saved after a change and restored after a crash, with all metadata of the file system", async () => {
    const sandbox = "survives";
    await sh(
      sandbox,
      `mkdir -p 'a b/c' empty; printf 'bytes\\0\\377' > 'a b/c/file'; chmod 750 'a b'; chmod 4711 'a b/c/file'
       ln -s ../nowhere 'a b/link'; ln 'a b/c/file' hard; touch -d 2001-02-03T04:05:06 'a b/c/file'
       truncate -s 20M sparse; printf x | dd of=sparse bs=1 seek=9000000 conv=notrunc status=none
       head -c 9000000 /dev/urandom > large; mkfifo pipe; printf n > "$(printf 'not\\377utf8')"; : > nothing`,
    );
    const listCommand = `find . -not -type p -printf '%p %y %m %s %l %T@ %n\\n' | sort; find . -type f | sort | xargs -d '\\n' sha256sum`;
    const before = await sh(sandbox, listCommand);
    await until(async () => (await savedAt(sandbox)) !== undefined);
    await killContainer(sandbox);
    const after = await owner.call("run_command", { sandbox, command: listCommand });
    expect(after.structured.notice).toMatch(/^The sandbox was restarted: its files are as saved at /);
    const times = (text: string) => text.replaceAll(/(\.\d{6})\d+/g, "$1");
    expect(times(String(after.structured.stdout)).replaceAll(/^\. .*\n/gm, "")).toBe(
      times(before).replaceAll(/^\. .*\n/gm, ""),
    );
    // A checkpoint after a crash has the saved files, and the result says that changes are missing.
    await sh(sandbox, "echo unsaved > file");
    await killContainer(sandbox);
    const { structured } = await owner.call("checkpoint_sandbox", { sandbox });
    expect(structured.notice).toMatch(/its files are as saved at .*any later changes are gone/);
    await owner.call("destroy_sandbox", { sandbox, checkpoints: true });
  });

  it("is saved soon after the original of a scaled image is stored, also if the run has already ended", async () => {
    const sandbox = "late-original";
    await evaluateInSandboxd(sandbox, HOLD);
    await sh(sandbox, "until [ -e /tmp/holds ]; do sleep 0.1; done");
    const code = "from PIL import Image; Image.new('RGB', (3000, 2000))";
    const { text } = await owner.call("run_code", { sandbox, code });
    expect(text).toContain("made smaller from 3000 x 2000 pixels, PNG");
    expect(text).not.toContain("The original is");
    const endedAt = Date.now();
    await sh(sandbox, "echo changed > file");
    const before = await until(async () => {
      const at = await savedAt(sandbox);
      return at !== undefined && at > endedAt ? at : undefined;
    });
    await runInKernel(sandbox, "open('/tmp/continue', 'w')");
    await until(async () => (await savedAt(sandbox)) !== before);
    await killContainer(sandbox);
    expect(await sh(sandbox, "ls .outputs")).toMatch(/^\S+-1\.png\n$/);
  });

  it("is saved before the server stops although calls change it, or start its sandbox, during the saves", async () => {
    const [changed, started] = ["changed-during-stop", "started-during-stop"];
    // Both start before, because the saves have a time limit.
    for (const sandbox of [changed, started]) await sh(sandbox, "echo early > file");
    const write = (sandbox: string) => owner.call("write_file", { sandbox, path: "file", content: "late\n" });
    const idOf = async (sandbox: string) => (await actorOf(sandbox)).id.toString();
    const running = [await idOf(changed)];
    // What happens before each list of the running sandboxes. The first list is made before the saves.
    const events = [
      async () => undefined,
      () => write(changed),
      async () => {
        await write(started);
        running.push(await idOf(started));
      },
    ];
    const response = await saveAll(env, async () => {
      await events.shift()?.();
      return running;
    });
    expect(events).toEqual([]);
    expect(await response.json()).toEqual({ unsaved: 0 });
    for (const sandbox of [changed, started]) {
      await killContainer(sandbox);
      expect(await sh(sandbox, "cat file")).toBe("late\n");
    }
  });

  it("is saved again before the server stops although the save of another sandbox never ends", async () => {
    let [saves, isChanged] = [0, false];
    const actors: Record<string, { saveToStop(): Promise<boolean>; isSaved(): Promise<boolean> }> = {
      hostile: { saveToStop: () => new Promise(() => {}), isSaved: async () => false },
      changed: {
        saveToStop: async () => {
          saves += 1;
          isChanged = false;
          return true;
        },
        isSaved: async () => !isChanged,
      },
    };
    const Sandbox = { idFromString: (id: string) => id, get: (id: string) => actors[id] };
    let lists = 0;
    const response = await saveAll(
      { Sandbox } as unknown as SandboxNamespaces,
      async () => {
        if (++lists === 2) isChanged = true;
        return Object.keys(actors);
      },
      6000,
    );
    expect(saves).toBe(2);
    expect(await response.json()).toEqual({ unsaved: 1 });
  });

  it("is saved once before the server stops although its actor takes long to say that all is saved", async () => {
    let saves = 0;
    const actor = {
      saveToStop: async () => ++saves > 0,
      isSaved: async () => await scheduler.wait(1500).then(() => true),
    };
    const Sandbox = { idFromString: (id: string) => id, get: () => actor };
    const namespaces = { Sandbox } as unknown as SandboxNamespaces;
    const response = await saveAll(namespaces, async () => ["busy"], 6000);
    expect(await response.json()).toEqual({ unsaved: 0 });
    expect(saves).toBe(1);
  });

  it("may lack the last changes of a run that continued while the server stopped, and the notice names this possible loss", async () => {
    const sandbox = "stopped-during-run";
    await sh(sandbox, "echo one > file");
    await owner.call("run_command", { sandbox, command: "sleep 1000", wait_seconds: 0 });
    expect(await save(sandbox)).toBe(true);
    await killContainer(sandbox);
    const next = await owner.call("run_command", { sandbox, command: "cat file" });
    expect(next.structured.notice).toMatch(
      /^The sandbox was stopped together with the server: .* Processes, variables and any later changes are gone\.$/,
    );
  });

  it("is rolled back to a checkpoint in two calls, and its previous state becomes a checkpoint too", async () => {
    const sandbox = "goes-back";
    await sh(sandbox, "mkdir src; echo good > src/main; echo x > other");
    const created = await owner.call("checkpoint_sandbox", { sandbox, label: "good" });
    expect(created.structured).toMatchObject({ sandbox, files: 2 });
    await sh(sandbox, "rm -r src; echo broken > main; sleep 1000 >/dev/null 2>&1 & echo");
    const restored = await owner.call("restore_sandbox", {
      sandbox,
      checkpoint: created.structured.checkpoint,
    });
    expect(restored.text).toContain(`Sandbox ${sandbox} is restored to its files`);
    const next = await owner.call("run_command", { sandbox, command: "cat src/main; ls; pgrep sleep" });
    expect(next.text).toContain("The sandbox was stopped to restore a checkpoint");
    expect(next.structured.stdout).toBe("good\nother\nsrc\n");
    await sh(sandbox, "rm -rf /workspace");
    const { before } = restored.structured;
    const repeated = await owner.call("restore_sandbox", { sandbox, checkpoint: before });
    expect(repeated.text).toContain(`Sandbox ${sandbox} is restored to its files`);
    expect(await sh(sandbox, "cat main; ls")).toBe("broken\nmain\nother\n");
    const listed = await owner.call("list_sandboxes");
    expect(listed.text).toMatch(/checkpoint cp-\S+ of goes-back \(good\): /);
    expect(listed.text).toMatch(/checkpoint cp-\S+ of goes-back \("before going back to good"\): /);
  });

  it("is separate in each of two simultaneous forks of one checkpoint", async () => {
    const sandbox = "forked";
    await sh(sandbox, "echo start > file; head -c 300000 /dev/urandom > data; sha256sum data > sum");
    const { structured } = await owner.call("checkpoint_sandbox", { sandbox });
    const { checkpoint } = structured;
    const names = ["fork-0", "fork-1"];
    await Promise.all(names.map((name) => owner.call("restore_sandbox", { sandbox: name, checkpoint })));
    const outputs = await Promise.all(
      names.map((name) => sh(name, `sha256sum -c sum; echo ${name} >> file; cat file`)),
    );
    for (const [n, text] of outputs.entries()) expect(text).toBe(`data: OK\nstart\nfork-${n}\n`);
    expect(await sh(sandbox, "cat file")).toBe("start\n");
    const repeated = await owner.call("restore_sandbox", { sandbox: "fork-1", checkpoint });
    expect(repeated.text).toContain("Sandbox fork-1 exists already");
    await Promise.all(names.map((name) => owner.call("destroy_sandbox", { sandbox: name })));
  });

  it("is restored under the name of its destroyed sandbox, with its settings, even if it has only directories and links", async () => {
    const sandbox = "destroyed-back";
    await owner.call("configure_sandbox", { sandbox, internet: "none", env: { WORD: "w" } });
    await sh(sandbox, "mkdir -p a/b; ln -s nowhere link");
    const label = "good\nfork-1: running, 5 bytes";
    const forged = await owner.call("checkpoint_sandbox", { sandbox, label });
    expect(forged.text).toContain("line breaks");
    const created = await owner.call("checkpoint_sandbox", { sandbox, label: "good – ✓" });
    expect(created.text).toContain("of sandbox destroyed-back: 0 files");
    const { checkpoint } = created.structured;
    await owner.call("destroy_sandbox", { sandbox });
    const restored = await owner.call("restore_sandbox", { sandbox, checkpoint });
    expect(restored.text).toContain("settings of the checkpoint");
    const { structured } = await owner.call("configure_sandbox", { sandbox });
    expect(structured).toMatchObject({ internet: "none", variables: ["WORD"] });
    const deleted = await owner.call("destroy_sandbox", { sandbox, checkpoint });
    expect(deleted.text).toMatch(/^Checkpoint cp-\S+ is deleted\. Sandbox destroyed-back is unchanged/);
    expect((await owner.call("list_sandboxes")).text).not.toContain(checkpoint);
    expect(await sh(sandbox, "find . | sort; echo $WORD")).toBe(".\n./a\n./a/b\n./link\nw\n");
  });

  it("is forked with the settings of its own checkpoint, although a sandbox with the same files has others", async () => {
    const [sandbox, twin, fork] = ["same-files", "same-files-twin", "same-files-fork"];
    await sh(sandbox, "echo kept > file");
    const checkpoint = async (of: string) =>
      (await owner.call("checkpoint_sandbox", { sandbox: of })).structured.checkpoint;
    await owner.call("restore_sandbox", { sandbox: twin, checkpoint: await checkpoint(sandbox) });
    const ofTwin = await checkpoint(twin);
    const latest = await checkpoint(sandbox);
    await owner.call("configure_sandbox", { sandbox: twin, env: { WORD: "w" } });
    const restored = await owner.call("restore_sandbox", { sandbox: twin, checkpoint: ofTwin });
    // The twin can go back only to a checkpoint of its own.
    expect(restored.structured.before).toBe(ofTwin);
    for (const origin of [latest, ofTwin]) {
      await owner.call("restore_sandbox", { sandbox: fork, checkpoint: origin });
      expect((await owner.call("configure_sandbox", { sandbox: fork })).structured.variables).toEqual([]);
      await owner.call("destroy_sandbox", { sandbox: fork });
    }
  });

  it("is not created for a fork whose actor cannot store the settings", async () => {
    const checkpoint = await checkpointWithSettings();
    const fork = "fork-cut";
    // The actor fails when it stores the settings.
    const sync = vi.fn<() => Promise<void>>().mockRejectedValue(new Error("cut off"));
    await runInActor(fork, (_actor, { storage }) => void Object.assign(storage, { sync }));
    const cut = await owner.call("restore_sandbox", { sandbox: fork, checkpoint });
    await runInActor(fork, (_actor, { storage }) => Reflect.deleteProperty(storage, "sync"));
    expect(cut.isError, cut.text).toBe(true);
    expect(sync).toHaveBeenCalled();
    expect(await accountOf(owner).workspace(fork)).toBeUndefined();
    await evict(fork);
    const [created, second] = await Promise.all(
      [1, 2].map(() => owner.call("restore_sandbox", { sandbox: fork, checkpoint })),
    );
    expect([created?.isError, second?.isError].filter(Boolean)).toHaveLength(1);
    expect((await owner.call("configure_sandbox", { sandbox: fork })).structured.internet).toBe("none");
  });

  it("is not restored without its settings while its sandbox is destroyed", async () => {
    const sandbox = "destroyed-and-restored";
    await owner.call("configure_sandbox", { sandbox, internet: "none" });
    await sh(sandbox, "echo kept > file");
    const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
    const restore = () => owner.call("restore_sandbox", { sandbox, checkpoint });
    const [destroyed, restored] = await Promise.all([
      owner.call("destroy_sandbox", { sandbox }),
      // The account still knows the sandbox at this time.
      restore(),
    ]);
    expect(destroyed.isError, destroyed.text).toBe(false);
    expect(restored.isError, restored.text).toBe(true);
    expect(restored.text).toContain("was destroyed during this call, so nothing was restored");
    expect(await accountOf(owner).workspace(sandbox)).toBeUndefined();
    expect((await restore()).isError).toBe(false);
    expect(await sh(sandbox, "cat file")).toBe("kept\n");
    expect((await owner.call("configure_sandbox", { sandbox })).structured.internet).toBe("none");
  });

  it("is forked with its settings while an earlier sandbox of the fork's name is destroyed", async () => {
    const fork = "destroyed-and-forked";
    const checkpoint = await checkpointWithSettings();
    await sh(fork, "true");
    const [removed, reply] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    await runInDurableObject(accountOf(owner), (account) => {
      const prototype: Account = Object.getPrototypeOf(account);
      const { sandboxDestroyed } = prototype;
      vi.spyOn(prototype, "sandboxDestroyed").mockImplementation(async function (this: Account, ...what) {
        const record = await sandboxDestroyed.apply(this, what);
        if (what[0] !== fork) return record;
        removed.resolve();
        await reply.promise;
        return record;
      });
    });
    const destroyed = owner.call("destroy_sandbox", { sandbox: fork });
    await removed.promise;
    const forked = owner.call("restore_sandbox", { sandbox: fork, checkpoint });
    await Promise.race([forked, scheduler.wait(3000)]);
    reply.resolve();
    for (const { isError, text } of [await destroyed, await forked]) expect(isError, text).toBe(false);
    const { structured } = await owner.call("configure_sandbox", { sandbox: fork });
    expect(structured).toMatchObject({ internet: "none", variables: ["WORD"] });
    await owner.call("destroy_sandbox", { sandbox: fork });
  });

  it("leaves its settings to no new sandbox if the server ends during a fork", async () => {
    const checkpoint = await checkpointWithSettings();
    const forks = ["half-fork-used", "half-fork-configured"];
    // The account does not learn that the actor has stored the settings.
    await runInActor(forks[0] ?? "", (actor) => {
      const prototype: Sandbox = Object.getPrototypeOf(actor);
      const { inherit } = prototype;
      vi.spyOn(prototype, "inherit").mockImplementation(async function (this: Sandbox, to, settings) {
        const inherited = await inherit.call(this, to, settings);
        if (forks.includes(to.sandbox)) throw new Error("cut off");
        return inherited;
      });
    });
    for (const [n, fork] of forks.entries()) {
      const cut = await owner.call("restore_sandbox", { sandbox: fork, checkpoint });
      expect(cut.text).toContain("Internal error");
      await evict(fork);
      if (n === 1) await owner.call("configure_sandbox", { sandbox: fork, env: { OTHER: "o" } });
      expect(await sh(fork, "ls; echo $WORD$OTHER")).toBe(n === 1 ? "o\n" : "\n");
      const { structured } = await owner.call("configure_sandbox", { sandbox: fork });
      expect(structured.internet).not.toBe("none");
      const listed = (await accountOf(owner).view()).sandboxes.find(({ name }) => name === fork);
      expect(listed?.variables ?? []).toEqual(structured.variables);
    }
    await Promise.all(forks.map((name) => owner.call("destroy_sandbox", { sandbox: name })));
  });

  it("is deleted with its sandbox, its checkpoints only on request, and then nothing is left in R2", async () => {
    const caller = await principal("destroyer");
    const sandbox = "ends";
    const prefix = workspacesPrefix(await principalHash(caller.principalID));
    const objects = async () => (await bucket.list(prefix)).keys;
    const run = (command: string) => caller.call("run_command", { sandbox, command });
    await run("echo kept > file");
    const { structured } = await caller.call("checkpoint_sandbox", { sandbox });
    expect(await objects()).not.toEqual([]);
    const destroyed = await caller.call("destroy_sandbox", { sandbox });
    expect(destroyed.structured).toMatchObject({ existed: true, checkpoints_left: 1 });
    expect(destroyed.text).toMatch(/kept: 1\b.*checkpoints=true/s);
    const fresh = await run("ls");
    expect(fresh.structured.stdout).toBe("");
    expect(fresh.structured.notice).toBeUndefined();
    await caller.call("destroy_sandbox", { sandbox });
    await caller.call("restore_sandbox", { sandbox: "other", checkpoint: structured.checkpoint });
    const other = await caller.call("run_command", { sandbox: "other", command: "cat file" });
    expect(other.structured.stdout).toBe("kept\n");
    await caller.call("destroy_sandbox", { sandbox: "other" });
    const all = await caller.call("destroy_sandbox", { sandbox, checkpoints: true });
    expect(all.structured.checkpoints_left).toBe(0);
    expect(all.text).toContain("deleted: 1");
    await runDurableObjectAlarm(accountOf(caller));
    expect(await objects()).toEqual([]);
  });
});

it("a checkpoint gives its settings to no sandbox that a call makes during a fork to the same name", async () => {
  const fork = "taken-by-a-call";
  const checkpoint = await checkpointWithSettings();
  const [begun, configured] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  vi.restoreAllMocks();
  await runInActor(fork, (actor) => {
    const prototype: Sandbox = Object.getPrototypeOf(actor);
    const { inherit } = prototype;
    vi.spyOn(prototype, "inherit").mockImplementation(async function (this: Sandbox, to, settings) {
      if (to.sandbox === fork) {
        begun.resolve();
        await configured.promise;
      }
      return await inherit.call(this, to, settings);
    });
  });
  const forked = owner.call("restore_sandbox", { sandbox: fork, checkpoint });
  await begun.promise;
  await owner.call("configure_sandbox", { sandbox: fork, env: { OTHER: "o" } });
  configured.resolve();
  expect((await forked).text).toContain("exists already");
  const { structured } = await owner.call("configure_sandbox", { sandbox: fork });
  expect(structured).toMatchObject({ internet: "full", variables: ["OTHER"] });
  await owner.call("destroy_sandbox", { sandbox: fork });
});

it("a destroyed sandbox leaves its previews, questions and interrupted restore to no new one, even if the server ends meanwhile", async () => {
  const sandbox = "half-destroyed";
  const caller = { principalID: owner.principalID, sandbox };
  await owner.call("configure_sandbox", { sandbox, internet: "none" });
  await sh(sandbox, "echo old > file");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
  const question = await runInActor(sandbox, async (actor, { storage }) => {
    await actor.openPreview(caller, 8000, "a-token", 3_600_000);
    storage.kv.put("workspace:restoring", { checkpoint });
    const asked = await actor.askForNetwork(caller, { internet: "full" }, 0);
    return asked.ok && "id" in asked.value ? asked.value.id : "";
  });
  expect(question).not.toBe("");
  await evict(sandbox);
  vi.restoreAllMocks();
  await runInDurableObject(accountOf(owner), (account) => {
    const prototype: Account = Object.getPrototypeOf(account);
    const { sandboxDestroyed } = prototype;
    vi.spyOn(prototype, "sandboxDestroyed").mockImplementationOnce(async function (this: Account, ...what) {
      await sandboxDestroyed.apply(this, what);
      throw new Error("cut off");
    });
  });
  const cut = await owner.call("destroy_sandbox", { sandbox });
  expect(cut.text).toContain("Internal error");
  await evict(sandbox);
  expect(await sh(sandbox, "ls")).toBe("");
  const left = await runInActor(sandbox, async (actor) => ({
    previews: actor.condition().previews,
    question: await actor.networkQuestion(question),
  }));
  expect(left).toEqual({ previews: [], question: undefined });
  await owner.call("destroy_sandbox", { sandbox, checkpoints: true });
});

it("an interrupted restore is completed although the platform does not end the container, not even to destroy it", async () => {
  const sandbox = "not-ended";
  await sh(sandbox, "echo old > file");
  const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
  await owner.call("configure_sandbox", { sandbox, setup: "touch made" });
  expect(await sh(sandbox, "echo new > file; ls")).toBe("file\nmade\n");
  await runInActor(sandbox, (_actor, { storage }) => storage.kv.put("workspace:restoring", { checkpoint }));
  await evict(sandbox);
  // The next actor continues the restore.
  const ends = await runInActor(sandbox, (actor) =>
    vi
      .spyOn(actor, "destroy")
      .mockRejectedValueOnce(new Error("not ended"))
      .mockRejectedValueOnce(new Error("not ended")),
  );
  await until(() => ends.mock.calls.length > 0);
  const failed = await owner.call("destroy_sandbox", { sandbox });
  expect(failed.isError).toBe(true);
  // The set-up runs again, because the checkpoint has no results of it.
  expect(await sh(sandbox, "cat file; ls")).toBe("old\nfile\nmade\n");
  await owner.call("destroy_sandbox", { sandbox, checkpoints: true });
});

it("a call for a checkpoint fails with the reason on a server that saves no workspaces", async () => {
  const caller = owner.withVariables({ WORKSPACE_SAVE: "off", ANTHROPIC_API_KEY: "test-model-key" });
  for (const [tool, args] of [
    ["checkpoint_sandbox", {}],
    ["restore_sandbox", { sandbox: "saves-off", checkpoint: "any" }],
    ["execute_task", { task: "x", checkpoint: "any" }],
  ] as const) {
    const { isError, text } = await caller.call(tool, args);
    expect({ isError, text }).toEqual({
      isError: true,
      text: expect.stringContaining("does not save workspaces"),
    });
  }
});
