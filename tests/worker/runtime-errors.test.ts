import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { describe, expect, it } from "vitest";
import type { Sandbox } from "../../src/index.ts";

const sandboxes = Reflect.get(env, "Sandbox") as DurableObjectNamespace<Sandbox>;

/** What the SDK makes of a refusal by the sandbox's runtime: its class's name, its code and its context. */
async function refusal(call: Promise<unknown>): Promise<{ name: string; code: unknown; context: unknown }> {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    return {
      name: error.constructor.name,
      code: Reflect.get(error, "code"),
      context: Reflect.get(error, "context"),
    };
  }
  throw new Error("the call succeeded");
}

async function refusalOrNone(call: Promise<unknown>) {
  return call.then(
    () => undefined,
    (error: unknown) => refusal(Promise.reject(error)),
  );
}

/** Starts the container, which the SDK's own calls may not, and does something in its actor. */
async function inSandbox<T>(name: string, work: (sandbox: Sandbox) => Promise<T>): Promise<T> {
  return await runInDurableObject<Sandbox, T>(sandboxes.getByName(name), async (sandbox) => {
    await sandbox.statFile({ principalID: "runtime", sandbox: name }, "/");
    return await work(sandbox);
  });
}

describe("the runtime's refusals, in the SDK", () => {
  it("are its typed errors", async () => {
    const refusals = await inSandbox("runtime-errors", async (sandbox) => {
      return [await refusal(sandbox.readFile("/workspace/none")), await refusal(sandbox.exec("exit 3"))];
    });
    expect(refusals).toMatchObject([
      { name: "FileNotFoundError", code: "FILE_NOT_FOUND", context: { path: "/workspace/none" } },
      { name: "SessionTerminatedError", code: "SESSION_TERMINATED", context: { exitCode: 3 } },
    ]);
  });

  it("come too when the sandbox has no process left to give, and ending one frees them", async () => {
    await inSandbox("runtime-no-pids", async (sandbox) => {
      const bomb = "for i in $(seq 5000); do sleep 1000 & done 2>/dev/null; wait";
      await sandbox.exec(`setsid bash -c '${bomb}' </dev/null &>/dev/null & echo $! > /tmp/holder`);
      const attempt = async () =>
        (await refusalOrNone(sandbox.createSession({ id: crypto.randomUUID() })))?.code;
      await expect.poll(attempt, { timeout: 30_000 }).toBe("INTERNAL_ERROR");
      expect((await sandbox.exec("echo still here")).stdout).toBe("still here");
      await sandbox.writeFile("/workspace/file", "written");
      expect((await sandbox.readFile("/workspace/file")).content).toBe("written");
      await sandbox.exec("kill -9 -- -$(</tmp/holder)");
      await expect.poll(attempt, { timeout: 30_000 }).toBeUndefined();
      await sandbox.destroy();
    });
  });
});
