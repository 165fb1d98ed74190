/** The Worker's MCP endpoint in process, over real sandboxes: callers, and a way into a sandbox's actor. */
import { createExecutionContext, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import type { LocalEnv } from "../../local/platform/client.ts";
import { SECRET_HEADER } from "../../local/platform/protocol.ts";
import type { Scope } from "../../src/shared/principal.ts";
import worker, { type Account, type Sandbox } from "../../src/index.ts";
import { actorName } from "../../src/shared/names.ts";
import type { Env } from "../../src/shared/config.ts";

export const ORIGIN = "https://sandbox.example";

/** A line for each of thousands of calls would bury what matters. */
const bindings: Env = { ...(env as Env), LOG_LEVEL: "error" };

/** A block of a result's content. */
export interface Block {
  type: string;
  text?: string;
  data?: string;
  mimeType?: string;
}

export interface Result {
  isError: boolean;
  content: Block[];
  /** All text blocks, one after the other. */
  text: string;
  /** The structured content; an empty object where there is none. */
  structured: Record<string, unknown>;
}

export interface Answer {
  status: number;
  /** Every JSON-RPC message, in order of arrival. */
  messages: Record<string, unknown>[];
}

export interface CallOptions {
  /** Asks for progress notifications. */
  progressToken?: string;
  signal?: AbortSignal;
}

/** Someone with a token. */
export class Caller {
  readonly principalID: string;
  readonly #token: string;
  readonly #env: Env;
  readonly #query: string;

  constructor(principalID: string, token: string, variables: Env, query = "") {
    this.principalID = principalID;
    this.#token = token;
    this.#env = variables;
    this.#query = query;
  }

  /** Calls a tool, as a program that asks for data beside the text. */
  async call(name: string, args: Record<string, unknown> = {}, options: CallOptions = {}): Promise<Result> {
    const { messages } = await this.at("?results=structured").send(name, args, options);
    const answer = messages.at(-1);
    const result = answer?.result as { content: Block[]; isError?: boolean; structuredContent?: object };
    if (!result) throw new Error(`no result: ${JSON.stringify(answer)}`);
    const { content, isError = false, structuredContent = {} } = result;
    const text = content
      .filter(({ type }) => type === "text")
      .map((block) => block.text)
      .join("\n");
    return { isError, content, text, structured: { ...structuredContent } };
  }

  /** Calls a tool and returns the whole answer. */
  async send(name: string, args: Record<string, unknown>, options: CallOptions = {}): Promise<Answer> {
    const { progressToken, signal } = options;
    const _meta = progressToken === undefined ? undefined : { progressToken };
    return this.post({ method: "tools/call", params: { name, arguments: args, _meta } }, signal);
  }

  /** Sends any request. */
  async post(message: { method: string; params?: object }, signal?: AbortSignal): Promise<Answer> {
    const response = await this.fetch(JSON.stringify({ jsonrpc: "2.0", id: 1, ...message }), signal);
    const body = await response.text();
    const messages = response.headers.get("content-type")?.startsWith("text/event-stream")
      ? body
          .split("\n")
          .filter((line) => line.startsWith("data: {"))
          .map((line) => JSON.parse(line.slice("data: ".length)))
      : [JSON.parse(body)].flat();
    return { status: response.status, messages };
  }

  /** Sends a plain HTTP request, to another path than MCP's. */
  http(path: string, init: RequestInit = {}): Promise<Response> {
    const headers = { authorization: `Bearer ${this.#token}`, ...(init.headers as Record<string, string>) };
    const request = new Request(new URL(path, ORIGIN), { ...init, headers });
    return worker.fetch(request, this.#env, createExecutionContext());
  }

  /** The same caller, of a server with other variables; undefined removes one. */
  with(variables: Partial<Env>): Caller {
    return new Caller(this.principalID, this.#token, { ...this.#env, ...variables }, this.#query);
  }

  /** The same caller, at the endpoint's address with this query after what it has already. */
  at(query: string): Caller {
    const whole = this.#query ? `${this.#query}&${query.slice(1)}` : query;
    return new Caller(this.principalID, this.#token, this.#env, whole);
  }

  /** Sends any request and returns its result. @throws Error with what came instead */
  async result<T>(message: { method: string; params?: object }): Promise<T> {
    const answer = (await this.post(message)).messages.at(-1);
    if (answer?.result === undefined) throw new Error(`no result: ${JSON.stringify(answer)}`);
    return answer.result as T;
  }

  /** Posts a body as it is. */
  fetch(body: string, signal?: AbortSignal): Promise<Response> {
    const request = new Request(new URL(`/mcp${this.#query}`, ORIGIN), {
      method: "POST",
      headers: {
        authorization: `Bearer ${this.#token}`,
        "content-type": "application/json",
        accept: "application/json, text/event-stream",
      },
      body,
      signal,
    });
    return worker.fetch(request, this.#env, createExecutionContext());
  }
}

export const owner = new Caller("owner", bindings.SERVER_AUTH_TOKEN ?? "", bindings);

/** A principal of its own, with a token of these scopes; every scope unless given. */
export async function principal(name: string, scopes?: readonly Scope[]): Promise<Caller> {
  const token = `token-of-${name}`;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(token)));
  const all = ["sandbox:exec", "sandbox:write", "sandbox:read"];
  const AUTH_TOKENS = JSON.stringify([{ name, sha256: digest.toHex(), scopes: scopes ?? all }]);
  return new Caller(`token:${name}`, token, { ...bindings, AUTH_TOKENS });
}

/** The actor of a caller's sandbox. */
export async function actorOf(name: string, caller = owner): Promise<DurableObjectStub<Sandbox>> {
  const sandboxes = bindings.Sandbox as DurableObjectNamespace<Sandbox>;
  return sandboxes.getByName(await actorName(name, caller.principalID));
}

export function accountOf(caller: Caller): DurableObjectStub<Account> {
  return (bindings.Account as DurableObjectNamespace<Account>).getByName(caller.principalID);
}

/** Runs `work` inside the actor of the owner's sandbox. */
export async function inActor<T>(
  name: string,
  work: (sandbox: Sandbox, state: DurableObjectState) => T | Promise<T>,
): Promise<T> {
  return runInDurableObject<Sandbox, T>(await actorOf(name), work);
}

/** Kills the container of the owner's sandbox, as a crash of its machine would. */
export async function killContainer(name: string): Promise<void> {
  await inActor(name, (_sandbox, { container }) => container?.signal(9));
}

/** Throws the actor of the owner's sandbox away, with all it had in memory; with `kill`, its container too. */
export async function evict(name: string, { kill = false } = {}): Promise<void> {
  const { LOCAL_ENGINE_URL, LOCAL_ENGINE_SECRET } = bindings as Env & LocalEnv;
  const sandbox = await evictActor(await actorOf(name));
  if (!kill) return;
  await fetch(`${LOCAL_ENGINE_URL}/sandboxes/${sandbox}/signal`, {
    method: "POST",
    headers: { [SECRET_HEADER]: LOCAL_ENGINE_SECRET },
    body: JSON.stringify({ signal: 9 }),
  });
}

/** Throws an actor away; answers its container's name. */
export async function evictActor(actor: DurableObjectStub<Sandbox>): Promise<string | undefined> {
  let sandbox: string | undefined;
  await runInDurableObject<Sandbox, void>(actor, async (_sandbox, state) => {
    sandbox = state.storage.kv.get<{ sandbox: string }>("__local_container")?.sandbox;
    await state.storage.sync();
    state.abort("evicted by a test");
  }).catch(() => undefined);
  return sandbox;
}

/** The bucket that logs of runs go to. */
export const bucket: R2Bucket = bindings.RESULTS;

/** Waits until `condition` holds; the test's own timeout is its limit. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 50));
}

/** Runs a command and returns what it printed. @throws Error when it does not succeed */
export async function sh(
  sandbox: string,
  command: string,
  more: Record<string, unknown> = {},
): Promise<string> {
  const result = await owner.call("run_command", { sandbox, command, ...more });
  if (result.structured.state !== "succeeded") throw new Error(`${command}: ${result.text}`);
  return String(result.structured.stdout);
}

/** The id in the answer of a run that goes on. */
export function idIn({ text }: Result): string {
  const id = /\b[a-z0-9-]+\.[0-9a-z]{26}t?\b/.exec(text)?.[0];
  if (id === undefined) throw new Error(`no id in: ${text}`);
  return id;
}

/** Waits until what a run has printed, or says of itself, holds these words. */
export async function says(id: string, words: string): Promise<void> {
  await until(async () => (await owner.call("get_result", { id, wait_seconds: 0 })).text.includes(words));
}
