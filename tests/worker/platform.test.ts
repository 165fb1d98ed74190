/** `ctx.container` on the local platform, as the SDK uses it: the same actor, a real sandbox. Also our use of the SDK's client. */
import { expect, it, vi } from "vitest";
import { SDKInterpreter } from "../../src/actors/platform/sdk-platform.ts";
import type { Sandbox } from "@cloudflare/sandbox";
import { EngineClient } from "../../local/platform/engine-client.ts";
import { ERROR_HEADER } from "../../local/platform/engine-protocol.ts";
import { evict, runInActor, isRunning, owner, sh, until } from "./support.ts";

type Client = Sandbox["client"];

it("a local sandbox counts as ended for its actor if the engine does not know it", async () => {
  const sandbox = "platform";
  await sh(sandbox, "true");
  await runInActor(sandbox, async (actor, { storage }) => {
    const stored = storage.kv.get<object>("__local_container");
    await actor.destroy();
    storage.kv.put("__local_container", stored);
  });
  await evict(sandbox);
  await until(async () => !(await isRunning(sandbox)));
  // The end of the previous container may interrupt the first call.
  expect(await until(() => sh(sandbox, "echo new").catch(() => undefined))).toBe("new\n");
  await owner.call("destroy_sandbox", { sandbox });
});

it("a response in place of the engine's is not left open", async () => {
  const cancelled = vi.fn<() => void>();
  const headers = { [ERROR_HEADER]: "gone" };
  const response = new Response(new ReadableStream({ cancel: cancelled }), { headers });
  const engine = { fetch: async () => response };
  const client = new EngineClient({
    LOCAL_ENGINE_URL: "http://engine",
    LOCAL_ENGINE_SECRET: "",
    LOCAL_ENGINE: engine,
  });
  await expect(client.forward("any", 80, new Request("http://any/"))).rejects.toThrow("not listening");
  expect(cancelled).toHaveBeenCalledOnce();
});

it.each([
  ["too much text", (count: number) => ({ text: String(count).repeat(1_000_000), timestamp: 0 })],
  ["something that is not text", () => ({ text: [] as never, timestamp: 0 })],
])("a cell that prints %s prints nothing, and the rest is not kept", async (_what, print) => {
  const runCodeStream: Client["interpreter"]["runCodeStream"] = async (_id, _code, _language, callbacks) => {
    for (let count = 0; count < 9; count++) await callbacks.onStdout?.(print(count));
    await callbacks.onStderr?.({ text: "more", timestamp: 0 });
  };
  const interpreter = new SDKInterpreter({ client: { interpreter: { runCodeStream } } } as never);
  expect(await interpreter.run("", "id")).toEqual({ logs: { stdout: [], stderr: [] } });
});

/** An interpreter whose control server never ends a cell, after it got the longest code. @param ping the response to a ping */
function busyInterpreter(ping: Promise<string>) {
  const runCodeStream = vi.fn<Client["interpreter"]["runCodeStream"]>(() => new Promise(() => undefined));
  const disconnect = vi.fn<() => void>();
  const client = { interpreter: { runCodeStream }, utils: { ping: () => ping }, disconnect };
  const interpreter = new SDKInterpreter({ client } as never);
  void interpreter.run("x".repeat(1_100_000), "id");
  return { interpreter, runCodeStream, disconnect };
}

it("code waits until the control server has read the code before", async () => {
  const { promise: ping, resolve } = Promise.withResolvers<string>();
  const { interpreter, runCodeStream } = busyInterpreter(ping);
  void interpreter.run("next", "id");
  void interpreter.run("last", "id");
  await Promise.resolve();
  expect(runCodeStream).toHaveBeenCalledTimes(1);
  resolve("healthy");
  await until(() => runCodeStream.mock.calls.length === 3);
  expect(runCodeStream.mock.calls.map(([, code]) => code).slice(1)).toEqual(["next", "last"]);
});

it("the connection ends if the control server does not read the code", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  const { interpreter, runCodeStream, disconnect } = busyInterpreter(new Promise(() => undefined));
  const error = interpreter.run("next", "id").catch(String);
  await vi.advanceTimersByTimeAsync(10_000);
  expect(await error).toContain("has not responded for 10 s");
  expect(disconnect).toHaveBeenCalledOnce();
  expect(runCodeStream).toHaveBeenCalledTimes(1);
});
