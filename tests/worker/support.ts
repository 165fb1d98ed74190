/** The Worker's MCP endpoint in process, with real sandboxes: callers, and access to a sandbox's actor. */
import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { CodeContext } from "@cloudflare/sandbox";
import { vi } from "vitest";
import type { LocalEnv } from "../../local/platform/engine-client.ts";
import { SECRET_HEADER } from "../../local/platform/engine-protocol.ts";
import { withObjectFolder } from "../../local/platform/object-folder.ts";
import type { Region, Scope } from "../../src/shared/principal.ts";
import worker, { Account, type Sandbox } from "../../src/index.ts";
import { actorName, principalHash } from "../../src/shared/names.ts";
import { type Config, type Env, parseConfig } from "../../src/shared/config.ts";
import { objectStore } from "../../src/storage/object-store.ts";
import EVALUATE from "../setup/evaluate.cjs?raw";
import { MCPClient, type Result } from "../setup/mcp-client.ts";
import { until, untilText } from "../setup/until.ts";

export { idIn, type Result } from "../setup/mcp-client.ts";
export { sleep, until, untilText } from "../setup/until.ts";

export const ORIGIN = "https://sandbox.example";

/** Drops the log lines of calls, because thousands of them would hide errors. */
const bindings: Env = { ...withObjectFolder(env as Env & LocalEnv), LOG_LEVEL: "error" };

export class Caller extends MCPClient {
  readonly principalID: string;
  readonly #env: Env;
  readonly #query: string;

  constructor(principalID: string, token: string, variables: Env, query = "") {
    super(`${ORIGIN}/mcp${query}`, token, (url, init) =>
      worker.fetch(new Request(url, init), variables, createExecutionContext()),
    );
    this.principalID = principalID;
    this.#env = variables;
    this.#query = query;
  }

  /** The same caller, at a server with other variables. undefined removes a variable. */
  withVariables(variables: Partial<Env>): Caller {
    return new Caller(this.principalID, this.token, { ...this.#env, ...variables }, this.#query);
  }

  /** The same caller, with this query appended to the endpoint's address. */
  withQuery(query: string): Caller {
    const joined = this.#query ? `${this.#query}&${query.slice(1)}` : query;
    return new Caller(this.principalID, this.token, this.#env, joined);
  }
}

export const owner = new Caller("owner", bindings.SERVER_AUTH_TOKEN ?? "", bindings);

/** A new principal with a token for these scopes, or for every scope of sandboxes. `region` goes into its entry of AUTH_TOKENS. */
export async function principal(name: string, scopes?: readonly Scope[], region?: Region): Promise<Caller> {
  const token = `token-of-${name}`;
  const all = ["sandbox:exec", "sandbox:write", "sandbox:read"];
  const AUTH_TOKENS = JSON.stringify([{ name, sha256: await sha256(token), scopes: scopes ?? all, region }]);
  return new Caller(`token:${name}`, token, { ...bindings, AUTH_TOKENS });
}

export async function actorOf(name: string, caller = owner): Promise<DurableObjectStub<Sandbox>> {
  const sandboxes = bindings.Sandbox as DurableObjectNamespace<Sandbox>;
  return sandboxes.getByName(await actorName(name, caller.principalID));
}

export function accountOf(caller: Caller): DurableObjectStub<Account> {
  return (bindings.Account as DurableObjectNamespace<Account>).getByName(caller.principalID);
}

/** Sets limits for every principal of this workerd, which other test files share. Returns a function that restores them. */
export function setLimits(limits: Partial<Config["limits"]>): Promise<() => void> {
  return runInDurableObject(accountOf(owner), (account) => {
    const shared = parseConfig(Reflect.get(account, "env") as Env).limits;
    const before = { ...shared };
    Object.assign(shared, limits);
    return () => void Object.assign(shared, before);
  });
}

/** Runs `work` inside the actor of the sandbox. */
export async function runInActor<T>(
  name: string,
  work: (sandbox: Sandbox, state: DurableObjectState) => T | Promise<T>,
  caller = owner,
): Promise<T> {
  return runInDurableObject<Sandbox, T>(await actorOf(name, caller), work);
}

export function isRunning(name: string): Promise<boolean> {
  return runInActor(name, (_sandbox, { container }) => container?.running === true);
}

export async function untilStopped(name: string): Promise<void> {
  await until(async () => !(await isRunning(name)));
}

/** Makes the actor stop its sandbox after this time without use. */
export async function stopWhenIdle(name: string, after = "1s"): Promise<void> {
  await runInActor(name, async (actor) => {
    actor.sleepAfter = after;
    actor.renewActivityTimeout();
    await actor.scheduleNextAlarm();
  });
}

export interface ListedSandbox {
  name: string;
  state: string;
  size_bytes?: number;
  last_used_at: string;
}

export async function sandboxesOf(caller = owner): Promise<ListedSandbox[]> {
  return (await caller.call("list_sandboxes")).structured.sandboxes as ListedSandbox[];
}

export async function isListed(sandbox: string): Promise<boolean> {
  return (await sandboxesOf()).some(({ name }) => name === sandbox);
}

/** The text of a sandbox's resource of connections. */
export async function connectionsOf(sandbox: string, caller = owner): Promise<string> {
  const params = { uri: `sandbox://${sandbox}/.network` };
  const { contents } = await caller.result<{ contents: { text: string }[] }>({
    method: "resources/read",
    params,
  });
  return contents[0]?.text ?? "";
}

export async function sha256(data: string | Uint8Array): Promise<string> {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

const contexts = new Map<string, CodeContext>();

/** Runs Python in a kernel of the SDK, without sandboxd, in a running sandbox of the owner. Returns the output. */
export async function runInKernel(name: string, code: string): Promise<string> {
  return runInActor(name, async (sandbox) => {
    const context = contexts.get(name) ?? (await sandbox.createCodeContext({ language: "python" }));
    contexts.set(name, context);
    const { logs, error } = await sandbox.runCode(code, { context });
    if (error) throw new Error(error.traceback.join("\n"));
    return logs.stdout.join("");
  });
}

/** Evaluates code in the sandboxd of the owner's sandbox. */
export async function evaluateInSandboxd(sandbox: string, code: string): Promise<void> {
  const evaluate = `cat >/tmp/evaluate.cjs <<'END'\n${EVALUATE}END\nnode /tmp/evaluate.cjs "$(cat)"`;
  await sh(sandbox, evaluate, { stdin: code });
}

/** Kills the container of the owner's sandbox, as a crash of its machine would, and waits until its actor knows. */
export async function killContainer(name: string): Promise<void> {
  const running = () =>
    runInActor(name, (_sandbox, { container, storage }) =>
      container?.running === true ? storage.kv.get<{ sandbox: string }>(CONTAINER_KEY)?.sandbox : undefined,
    );
  const killed = await running();
  await runInActor(name, (_sandbox, { container }) => container?.signal(9));
  // A call that waits may already have started the next container.
  await until(async () => (await running()) !== killed);
}

/** Evicts the actor of the owner's sandbox. With `kill`, also ends its container before the next actor starts. */
export async function evict(name: string, { kill = false } = {}): Promise<void> {
  const { LOCAL_ENGINE_URL, LOCAL_ENGINE_SECRET } = bindings as Env & LocalEnv;
  const sandbox = await evictActor(await actorOf(name), kill);
  if (!kill) return;
  await fetch(`${LOCAL_ENGINE_URL}/sandboxes/${sandbox}`, {
    method: "DELETE",
    headers: { [SECRET_HEADER]: LOCAL_ENGINE_SECRET },
  });
}

/** Evicts an actor. Returns its container's name. @param isContainerGone whether the next actor finds no container */
export async function evictActor(
  actor: DurableObjectStub<Sandbox>,
  isContainerGone = false,
): Promise<string | undefined> {
  let sandbox: string | undefined;
  await runInDurableObject<Sandbox, void>(actor, async (_sandbox, state) => {
    sandbox = state.storage.kv.get<{ sandbox: string }>(CONTAINER_KEY)?.sandbox;
    if (isContainerGone) state.storage.kv.delete(CONTAINER_KEY);
    await state.storage.sync();
    state.abort("evicted by a test");
  }).catch(() => undefined);
  return sandbox;
}

/** Resets the account when `method` is called next, as after a deployment. */
export function resetAccountAt(method: "fork" | "gitSignedIn" | "removeCheckpoint" | "workspace"): void {
  vi.spyOn(Account.prototype, method).mockImplementationOnce(function (this: Account) {
    (Reflect.get(this, "ctx") as DurableObjectState).abort("reset by a test");
    throw new Error("not reached");
  });
}

/** The key under which the local platform stores an actor's container. */
const CONTAINER_KEY = "__local_container";

export const bucket = objectStore(withObjectFolder(env as Env & LocalEnv));

export async function objectsOf(id: string): Promise<string[]> {
  return (await bucket.list(`${await principalHash(owner.principalID)}/${id}/`)).keys;
}

export const encode = (text: string) => new TextEncoder().encode(text);

export async function sizeOf(key: string): Promise<number> {
  const object = await bucket.get(key);
  await object?.body.cancel();
  return object?.size ?? 0;
}

/** Runs a command and returns its output. @throws Error if the command does not succeed */
export async function sh(
  sandbox: string,
  command: string,
  more: Record<string, unknown> = {},
): Promise<string> {
  const { structured, text } = await callsIn(sandbox).command(command, more);
  if (structured.state !== "succeeded") throw new Error(`${command}: ${text}`);
  return String(structured.stdout);
}

/** Functions that run commands and code of the owner in this sandbox. */
export function callsIn(sandbox: string) {
  return {
    command: (command: string, more: Record<string, unknown> = {}) =>
      owner.call("run_command", { sandbox, command, ...more }),
    code: (code: string, more: Record<string, unknown> = {}) =>
      owner.call("run_code", { sandbox, code, ...more }),
  };
}

/** The result of get_result for the owner. */
export function result(id: string, more: Record<string, unknown> = {}): Promise<Result> {
  return owner.call("get_result", { id, ...more });
}

/** Waits until the result of a run has this text. */
export async function waitForText(id: string, words: string): Promise<void> {
  await untilText(async () => (await result(id, { wait_seconds: 0 })).text, words);
}

/** All pages of a run's log, joined by stream. */
export async function wholeLog(id: string): Promise<{ stdout: string; stderr: string; pages: number }> {
  const log = { stdout: "", stderr: "", pages: 0 };
  let cursor: number | undefined = 0;
  while (cursor !== undefined) {
    const { text, structured } = await owner.call("get_result", { id, cursor });
    log.pages++;
    const stretches = structured.log as { stream: "stdout" | "stderr"; text: string }[];
    for (const stretch of stretches) log[stretch.stream] += stretch.text;
    const next = /go on with cursor (\d+)/.exec(text)?.[1];
    cursor = next === undefined ? undefined : Number(next);
  }
  return log;
}
