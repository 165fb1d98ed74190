import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import { PREVIEW_PORT, SANDBOXD_PORT, TOKEN_HEADER } from "../../../container/sandboxd/protocol.ts";
import { SECRET_HEADER } from "../../../local/platform/engine-protocol.ts";
import {
  actorOf,
  callsIn,
  evict,
  evictActor,
  idIn,
  runInActor,
  killContainer,
  owner,
  result,
  waitForText,
  sh,
  sleep,
  until,
  untilStopped,
  sandboxesOf,
  stopWhenIdle,
  isRunning,
} from "../support.ts";

const command = (sandbox: string, line: string, more?: Record<string, unknown>) =>
  callsIn(sandbox).command(line, more);
const code = (sandbox: string, source: string, more?: Record<string, unknown>) =>
  callsIn(sandbox).code(source, more);

/** The notice for a sandbox without a saved workspace. */
const RESTARTED = "The sandbox was restarted: its files, processes and variables are gone.";
/** The notice for a sandbox with a restored workspace. */
const BACK =
  /^The sandbox was restarted: its files are as saved at \S+ \(\d+ files?, \d+ bytes?\)\. Processes, variables and any later changes are gone\./;

const save = (sandbox: string) => owner.call("checkpoint_sandbox", { sandbox });

describe.concurrent("a container that is killed", () => {
  it("loses its runs but not their output, is not restarted by the server's own work, and only the next result has a notice", async () => {
    const sandbox = "killed";
    await sh(sandbox, "echo there >file; export GONE=1; cd /tmp");
    const runs = await Promise.all([
      command(sandbox, "echo begun; sleep 1000", { session: "a", wait_seconds: 0 }),
      code(sandbox, "kept = 1; print('begun', flush=True)\nimport time; time.sleep(1000)", {
        wait_seconds: 0,
      }),
    ]);
    const ids = runs.map(idIn);
    for (const id of ids) await waitForText(id, "begun");
    const waiting = Promise.all(ids.map((id) => result(id)));
    await save(sandbox);
    await sh(sandbox, "echo later >later", { session: "b" });
    await killContainer(sandbox);
    for (const run of await waiting) {
      expect(run.isError).toBe(false);
      expect(run.text).toContain("state: lost");
      expect(run.text).toContain("The sandbox stopped during this run");
      expect(run.text).toContain("stdout: begun");
    }
    // The server's own calls of the SDK must not start the next container.
    await runInActor(sandbox, (actor) => actor.client.utils.ping().catch(() => undefined));
    await runInActor(sandbox, (actor) => actor.deleteCodeContext("gone").catch(() => undefined));
    expect(await isRunning(sandbox)).toBe(false);
    expect((await sandboxesOf()).find(({ name }) => name === sandbox)?.state).toBe("stopped");
    const next = await command(sandbox, "cat file; echo [$GONE] $PWD; ls /tmp");
    expect(next.structured).toMatchObject({
      notice: expect.stringMatching(BACK),
      stdout: "there\n[] /workspace\n",
    });
    expect(next.text).toContain(`notice:\n${String(next.structured.notice)}`);
    expect((await command(sandbox, "true")).structured.notice).toBeUndefined();
    expect((await result(ids[0] ?? "")).text).toContain("state: lost");
    expect((await code(sandbox, "kept")).text).toContain("NameError");
  });

  it("does not stop the commands and the code that wait for its runs: they run in the next container", async () => {
    const sandbox = "killed-queue";
    const first = [
      await command(sandbox, "echo begun; sleep 1000", { session: "a", wait_seconds: 0 }),
      await code(sandbox, "print('begun', flush=True)\nimport time; time.sleep(1000)", { wait_seconds: 0 }),
    ];
    for (const run of first) await waitForText(idIn(run), "begun");
    const queued = [
      await command(sandbox, "echo queued", { session: "a", wait_seconds: 0 }),
      await code(sandbox, "print('queued')", { wait_seconds: 0 }),
      await code(sandbox, "print('queued')", { wait_seconds: 0 }),
    ];
    await killContainer(sandbox);
    for (const run of first) expect((await result(idIn(run))).text).toContain("state: lost");
    for (const run of queued) expect((await result(idIn(run))).text).toContain("queued");
  });

  it("is reported beside an image, and before an error", async () => {
    const sandbox = "notice-file";
    const content = "R0lGODlhAwACAIAAAExpcf8AACH5BAUAAAAALAAAAAADAAIAAAICjF8AOw==";
    await owner.call("write_file", { sandbox, path: "a.gif", content, encoding: "base64" });
    await save(sandbox);
    await killContainer(sandbox);
    const image = await owner.call("read_file", { sandbox, path: "a.gif" });
    expect(image.content.map(({ type }) => type)).toEqual(["text", "text", "image"]);
    expect(image.text).toContain("The sandbox was restarted: its files are as saved");
    await killContainer(sandbox);
    const missing = await owner.call("read_file", { sandbox, path: "b" });
    expect(missing).toMatchObject({ isError: true });
    expect(missing.text).toMatch(BACK);
    expect(missing.text).toContain(" There is no /workspace/b. Use list_files.");
  });
});

describe.concurrent("the next actor after an eviction", () => {
  it("reports the end of a command that ended meanwhile, stops a command at its timeout, and can cancel one", async () => {
    const sandbox = "evicted-commands";
    // A command's timeout includes the start of its sandbox, so this command starts the sandbox first.
    await sh(sandbox, "true");
    const start = async (line: string, more: Record<string, unknown>) =>
      idIn(await command(sandbox, line, { wait_seconds: 0, ...more }));
    const ended = await start("echo alpha; sleep 2; echo beta; exit 5", { session: "a" });
    const long = await start("echo gamma; sleep 1000", { session: "b", timeout_seconds: 15 });
    const cancelled = await start("echo first | tee order; sleep 1000", {});
    await waitForText(ended, "alpha");
    await waitForText(long, "gamma");
    await waitForText(cancelled, "first");
    await evict(sandbox);
    await sleep(2000);
    expect((await result(ended)).text).toBe("exit_code: 5\nstdout:\n```\nalpha\nbeta\n```");
    const next = command(sandbox, "echo second >>order; cat order");
    expect((await owner.call("cancel_run", { id: cancelled })).structured.state).toBe("cancelled");
    expect((await next).structured).toMatchObject({ stdout: "first\nsecond\n" });
    const stopped = await result(long);
    expect(stopped.text).toContain("state: timed_out");
    expect(stopped.text).toContain("stdout: gamma");
  });

  it("stops endless code, and reports it and waiting runs as lost, with the reason", async () => {
    const sandbox = "evicted-code";
    const kernels = [
      {
        language: "python",
        endless: "import time\nprint('begun', flush=True)\nwhile True: time.sleep(0.1)",
        becomes: "The python kernel was interrupted. Variables and imports are kept.",
        next: "result: 42",
      },
      {
        language: "javascript",
        endless: "console.log('begun'); await new Promise(() => setInterval(() => {}, 100))",
        becomes: "The javascript kernel was stopped. Variables and imports are lost;",
        next: "kept is not defined",
      },
    ];
    const ids: string[] = [];
    for (const { language, endless } of kernels) {
      await code(sandbox, "kept = 41", { language });
      ids.push(idIn(await code(sandbox, endless, { language, wait_seconds: 0 })));
    }
    await command(sandbox, "sleep 20", { wait_seconds: 0 });
    const queued = [
      idIn(await command(sandbox, "echo never", { wait_seconds: 0 })),
      idIn(await code(sandbox, "kept = 0", { wait_seconds: 0 })),
    ];
    for (const id of ids) await waitForText(id, "begun");
    await evict(sandbox);
    // Nothing has read the lost runs yet, and the next calls do not wait for them.
    for (const { language, next } of kernels)
      expect((await code(sandbox, "kept + 1", { language })).text).toContain(next);
    for (const [index, { becomes }] of kernels.entries()) {
      const { text } = await result(ids[index] ?? "");
      expect(text).toContain("state: lost");
      expect(text).toContain("The server was restarted while the code ran, so its result is lost.");
      expect(text).toContain(becomes);
      expect(text).toContain("stdout: begun");
    }
    for (const id of queued)
      expect((await result(id)).text).toContain(
        "The run never started, because the server was restarted first.",
      );
  });

  it("does not interrupt a kernel if its code ends by itself", async () => {
    const sandbox = "evicted-ended";
    const more = { language: "javascript", wait_seconds: 0 };
    await code(sandbox, "kept = 41", { language: "javascript" });
    const lines = [
      "const { once } = require('node:events');",
      "const server = require('node:http').createServer((_, response) => response.end()).listen(9000);",
      "await once(server, 'listening'); console.log('begun');",
      "await once(server, 'request'); server.close();",
    ];
    const id = idIn(await code(sandbox, lines.join("\n"), more));
    await waitForText(id, "begun");
    const token = await runInActor(sandbox, async (_sandbox, { storage }) => {
      // Without an alarm, the next actor begins with the next call. It interrupts code that continues for a second.
      await storage.deleteAlarm();
      return storage.kv.get<string>("sandboxd:token") ?? "";
    });
    const container = await evictActor(await actorOf(sandbox));
    const secret = env.LOCAL_ENGINE_SECRET;
    const headers = { [SECRET_HEADER]: secret, [TOKEN_HEADER]: token, [PREVIEW_PORT]: "9000" };
    const sandboxd = `${env.LOCAL_ENGINE_URL}/sandboxes/${container}/ports/${SANDBOXD_PORT}/`;
    const visit = async () => {
      const response = await fetch(sandboxd, { headers });
      await response.body?.cancel();
      return response.status;
    };
    expect(await visit()).toBe(200);
    await until(async () => (await visit()) === 502);
    expect((await code(sandbox, "kept + 1", { language: "javascript" })).text).toContain("result: 42");
    const { text } = await result(id);
    expect(text).toContain("state: lost");
    expect(text).toContain("The code has finished since. Variables and imports are kept.");
  });

  it("reports that the container is another one, and does not report that the earlier container's kernel died", async () => {
    const sandbox = "kernels-anew";
    expect((await code(sandbox, "6 * 7")).text).toContain("result: 42");
    await evict(sandbox, { kill: true });
    await untilStopped(sandbox);
    // The state that remains if an actor and its container are killed together.
    await runInActor(sandbox, (_sandbox, { storage }) => {
      storage.sql.exec(
        "INSERT OR REPLACE INTO kernels VALUES ('python/default', 'before', 'python', 99999, 1)",
      );
    });
    await evict(sandbox);
    const { text } = await code(sandbox, "6 * 8");
    expect(text).toContain(RESTARTED);
    expect(text).toContain("result: 48");
    expect((await code(sandbox, "6 * 9")).text).toBe("result: 54");
  });
});

describe.concurrent("sleepAfter", () => {
  it("stops a sandbox without a run, and the next result says why", async () => {
    const sandbox = "idle";
    await sh(sandbox, "echo a >a; sleep 1000 >/dev/null &");
    const id = idIn(await command(sandbox, "sleep 3; echo done", { wait_seconds: 0 }));
    await stopWhenIdle(sandbox);
    // The SDK also calls this between two calls to the container, when nothing else shows that the container is in use.
    await runInActor(sandbox, (actor) => actor.onActivityExpired());
    await sleep(2500);
    const ended = await result(id);
    expect(ended.text).toContain("stdout: done");
    expect(ended.text).not.toContain("lost");
    const state = async () => (await sandboxesOf()).find(({ name }) => name === sandbox)?.state;
    await until(async () => (await state()) === "stopped");
    const next = await command(sandbox, "ls; pgrep -c sleep");
    expect(next.structured).toMatchObject({
      stdout: "a\n0\n",
      notice: expect.stringMatching(
        /^The sandbox was stopped because it was idle: its files are as saved at \S+ \(1 file, 2 bytes\)\. Processes and variables are gone\.$/,
      ),
    });
  });

  it("loses no acknowledged change while the container ends slowly", async () => {
    const sandbox = "idle-slow";
    await sh(sandbox, "echo a >a");
    const ending = Promise.withResolvers<void>();
    await runInActor(sandbox, (_sandbox, { container }) => {
      if (!container) return;
      const { signal, destroy } = container;
      const waitBeforeEnd = async () => {
        ending.resolve();
        await sleep(400);
      };
      Object.assign(container, {
        signal: (number: number) => void waitBeforeEnd().then(() => signal.call(container, number)),
        destroy: () => waitBeforeEnd().then(() => destroy.call(container)),
      });
    });
    await stopWhenIdle(sandbox);
    await ending.promise;
    const written = await owner.call("write_file", { sandbox, path: "b", content: "b" });
    expect(written.isError, written.text).toBe(false);
    await sleep(1000);
    expect(await sh(sandbox, "ls")).toBe("a\nb\n");
  });
});
