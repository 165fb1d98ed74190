/** `configure_sandbox` with `start`: a script that the server keeps running in every container. */
import { describe, expect, it, onTestFinished, vi } from "vitest";
import { Service } from "../../../src/actors/service.ts";
import type { Gate } from "../../../src/runs/runs.ts";
import { expose, visit } from "../previews/support.ts";
import {
  evict,
  killContainer,
  owner,
  runInActor,
  sandboxesOf,
  sh,
  sleep,
  until,
  isRunning,
  untilStopped,
} from "../support.ts";

interface Configured extends Record<string, unknown> {
  start: string;
  start_id?: string;
}

const configure = async (sandbox: string, start?: string) =>
  (await owner.call("configure_sandbox", { sandbox, start })).structured as Configured;

const resultText = async (id: string) => (await owner.call("get_result", { id, wait_seconds: 0 })).text;

/** Waits until a service runs with a new id. Returns the id. */
async function waitForStart(sandbox: string, before?: string): Promise<string> {
  let id: string | undefined;
  await until(async () => {
    const { start, start_id } = await configure(sandbox);
    id = start_id;
    return start === "running" && id !== undefined && id !== before;
  });
  return id ?? "";
}

const ids = async (sandbox: string) =>
  (
    (await owner.call("list_runs", { sandbox, limit: 100 })).structured.runs as {
      id: string;
      title: string;
    }[]
  )
    .filter(({ title }) => title.startsWith("echo"))
    .map(({ id }) => id);

describe("a service", () => {
  it("starts again with the same URL in the next container, however the previous one ended", async () => {
    const sandbox = "service-web";
    const script = "echo here > index.html; python3 -u -m http.server 8000";
    expect(await configure(sandbox, script)).toMatchObject({ start: "stopped" });
    expect(await isRunning(sandbox)).toBe(false);
    await sh(sandbox, "true");
    let id = await waitForStart(sandbox);
    const url = await expose({ sandbox, port: 8000 });
    const untilResponding = () => until(async () => (await visit(url)).status === 200);
    await untilResponding();
    await until(async () => (await resultText(id)).includes('"GET / HTTP/1.1" 200'));
    const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
    const ends = {
      crash: () => killContainer(sandbox),
      rollback: () => owner.call("restore_sandbox", { sandbox, checkpoint }),
    };
    for (const end of Object.values(ends)) {
      await end();
      await untilStopped(sandbox);
      const stopped = await visit(url);
      expect([stopped.status, await stopped.text()]).toEqual([503, expect.stringContaining("has stopped")]);
      expect(stopped.headers.get("retry-after")).not.toBeNull();
      expect(await resultText(id)).toContain("state: lost");
      await sh(sandbox, "true");
      id = await waitForStart(sandbox, id);
      await untilResponding();
    }
    // A new actor continues the service.
    await evict(sandbox);
    await untilResponding();
    expect((await configure(sandbox)).start_id).toBe(id);
    expect(await configure(sandbox, "")).toMatchObject({ start: "none" });
    await until(async () => (await resultText(id)).includes("state: cancelled"));
    await until(async () => (await visit(url)).status === 502);
    await killContainer(sandbox);
    await sh(sandbox, "true");
    expect(await configure(sandbox)).toMatchObject({ start: "none" });
    await owner.call("destroy_sandbox", { sandbox });
  });

  it("is restarted when it ends, with a note in its output, and keeps a limited number of records", async () => {
    const sandbox = "service-crashes";
    await sh(sandbox, "true");
    await configure(sandbox, "echo begun by $PPID; exit 3");
    let id = await waitForStart(sandbox);
    const restartNote = "The service ended with exit code 3. It is started again in 2 s.";
    await until(async () => (await resultText(id)).includes(restartNote));
    expect(await ids(sandbox)).toEqual([id]);
    // The process that restarts the script is also in the sandbox.
    const [, loop] = /begun by (\d+)/.exec(await resultText(id)) ?? [];
    await sh(sandbox, `kill -9 ${loop}`);
    id = await waitForStart(sandbox, id);
    await killContainer(sandbox);
    const { structured: first } = await owner.call("run_command", { sandbox, command: "true" });
    id = await waitForStart(sandbox, id);
    const { structured: next } = await owner.call("run_command", { sandbox, command: "true" });
    expect(`${first.notice} ${next.notice}`).toContain("The sandbox's service was started again");
    await until(async () => (await ids(sandbox)).length === 3);
    expect(await ids(sandbox)).toContain(id);
    await owner.call("destroy_sandbox", { sandbox });
  });

  it("is replaced by another script in the same container while it runs", async () => {
    const sandbox = "service-replaced";
    await sh(sandbox, "true");
    await configure(sandbox, "echo first; sleep 1000");
    const first = await waitForStart(sandbox);
    await configure(sandbox, "echo second; sleep 1000");
    const second = await waitForStart(sandbox, first);
    await until(async () => (await resultText(second)).includes("second"));
    await until(async () => (await resultText(first)).includes("state: cancelled"));
    expect(await configure(sandbox)).toMatchObject({ start: "running", start_id: second });
    // The server keeps the records of the last scripts only.
    await configure(sandbox, "echo third; sleep 1000");
    const third = await waitForStart(sandbox, second);
    await configure(sandbox, "");
    await until(async () => (await resultText(third)).includes("state: cancelled"));
    expect(await configure(sandbox)).not.toHaveProperty("start_id");
    await configure(sandbox, "echo fourth; sleep 1000");
    const fourth = await waitForStart(sandbox, third);
    await until(async () => (await ids(sandbox)).length === 3);
    expect((await ids(sandbox)).sort()).toEqual([second, third, fourth].sort());
    await owner.call("destroy_sandbox", { sandbox });
  });

  it("does not start in a sandbox that is destroyed while a new actor starts it", async () => {
    const sandbox = "service-destroyed";
    await sh(sandbox, "true");
    // As after `configure_sandbox`, if the actor ends before it starts the service.
    await runInActor(sandbox, (_actor, { storage }) =>
      storage.kv.put("service", { script: "sleep 1000", runs: [] }),
    );
    await evict(sandbox);
    expect((await owner.call("destroy_sandbox", { sandbox })).text).toContain("is destroyed");
    await sleep(2000);
    expect(await isRunning(sandbox)).toBe(false);
    expect((await sandboxesOf()).map(({ name }) => name)).not.toContain(sandbox);
  });

  it("does not exist for a blank script", async () => {
    expect(await configure("service-blank", " \n")).toMatchObject({ start: "none" });
  });

  it("that was cancelled starts again only in the next container and in forks", async () => {
    const sandbox = "service-cancelled";
    await configure(sandbox, "echo begun; sleep 1000");
    await sh(sandbox, "touch file");
    const id = await waitForStart(sandbox);
    await owner.call("cancel_run", { id });
    await evict(sandbox);
    expect(await configure(sandbox)).toEqual(expect.objectContaining({ start: "stopped", start_id: id }));
    const { checkpoint } = (await owner.call("checkpoint_sandbox", { sandbox })).structured;
    const fork = "service-fork";
    expect(await owner.call("restore_sandbox", { sandbox: fork, checkpoint })).toMatchObject({
      isError: false,
    });
    for (const name of [sandbox, fork]) {
      if (name === sandbox) await killContainer(name);
      await sh(name, "true");
      await waitForStart(name, id);
      await owner.call("destroy_sandbox", { sandbox: name });
    }
  });
});

it("a service that cannot be started is tried again after growing pauses, however long each attempt takes", async () => {
  const pauses: number[] = [];
  const timers = vi.spyOn(globalThis, "setTimeout");
  let now = Date.now();
  const clock = vi.spyOn(Date, "now").mockImplementation(() => now);
  onTestFinished(() => {
    timers.mockRestore();
    clock.mockRestore();
  });
  const six = Promise.withResolvers<void>();
  timers.mockImplementation(((work: () => void, ms = 0) => {
    pauses.push(ms);
    if (pauses.length < 6) queueMicrotask(work);
    else six.resolve();
    return 0;
  }) as unknown as typeof setTimeout);
  const stored = new Map<string, unknown>();
  const service = new Service({
    kv: {
      get: (key: string) => stored.get(key),
      put: (key: string, value: unknown) => void stored.set(key, value),
      delete: (key: string) => stored.delete(key),
    } as unknown as ConstructorParameters<typeof Service>[0]["kv"],
    lifecycle: { container: new AbortController().signal },
    runs: {
      start: () => {
        now += 120_000;
        return Promise.reject(new Error("the quota is used up"));
      },
      cancel: () => Promise.reject(new Error("no run")),
      remove: () => Promise.resolve(),
      isRunning: () => false,
    },
    commands: {} as ConstructorParameters<typeof Service>[0]["commands"],
    setUp: { begin: () => Promise.resolve(), gate: {} as Gate },
    background: () => undefined,
    report: () => undefined,
  });
  service.put("exit 1");
  await six.promise;
  expect(pauses).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000]);
});
