import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, it } from "vitest";
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

/** Starts the container, which the SDK's own calls may not, and does something in its actor. */
async function inSandbox<T>(name: string, work: (sandbox: Sandbox) => Promise<T>): Promise<T> {
  return await runInDurableObject<Sandbox, T>(sandboxes.getByName(name), async (sandbox) => {
    await sandbox.statFile({ principalID: "runtime", sandbox: name }, "/");
    return await work(sandbox);
  });
}

it("the runtime's refusals are typed errors in the SDK", async () => {
  const refused = await inSandbox("runtime-errors", async (sandbox) =>
    refusal(sandbox.deleteCodeContext("none")),
  );
  expect(refused).toMatchObject({
    name: "ContextNotFoundError",
    code: "CONTEXT_NOT_FOUND",
    context: { contextId: "none" },
  });
});
