/** The Worker's calls to a principal's sandboxes, and what it does if the platform resets their actors. */
import {
  type Input,
  type OperationName,
  type Result,
  operations,
} from "../../container/sandboxd/operations.ts";
import { actorNamed } from "../container/actor.ts";
import { type Env, type SandboxNamespaces, parseConfig } from "../shared/config.ts";
import { PLATFORM_FAILURE, ToolError, isReset } from "../shared/errors.ts";
import { type ActorName, actorName } from "../shared/names.ts";
import { makeVisible } from "../shared/shown.ts";
import type { Region, Scope } from "../shared/principal.ts";
import type { CallerContext } from "../shared/request-context.ts";
import type { RequestMemory } from "../shared/request-memory.ts";
import type { Owner } from "./account-calls.ts";
import type { ActorResult } from "./calls.ts";
import type { Sandbox } from "./sandbox.ts";
import { actorReset, overloaded, platformFailed, serverDiskFull } from "./texts.ts";

export type SandboxCall<T> = (actor: DurableObjectStub<Sandbox>, owner: Owner) => Promise<ActorResult<T>>;

interface CallOptions {
  isRepeatable?: boolean;
  notices?: Set<string> | undefined;
  memory?: RequestMemory | undefined;
}

/**
 * Calls the actor of the owner's sandbox. If `isRepeatable` is true and the actor was reset, calls it once more.
 * @param notices gets the notices of the result, also of a failure. Without it, they wait for the sandbox's next call
 * @param memory knows whether the client reads the result. If it does not, a notice of a restart waits too
 * @throws {ToolError}
 */
export async function callSandbox<T>(
  env: Env,
  owner: Owner,
  call: SandboxCall<T>,
  { isRepeatable = false, notices, memory }: CallOptions = {},
): Promise<T> {
  const name = await actorName(owner.sandbox, owner.principalID);
  // A failed stub keeps failing, so each attempt gets a new stub. The location matters only for the call that creates the actor.
  // Links and previews call only existing actors, without a location.
  const options = { locationHint: owner.region ?? parseConfig(env).defaultRegion };
  const attempt = async () =>
    call(sandboxActor(env, name, options), {
      ...owner,
      region: options.locationHint,
      takesNotice: notices !== undefined,
    });
  const result = await (isRepeatable ? retryOnce(attempt) : attempt()).catch((error: unknown) => {
    throw explainReset(error, owner.sandbox);
  });
  const { toConfirm } = result;
  // A call that follows a task reads it hundreds of times, and confirms the notice once.
  const isNew = toConfirm !== undefined && !notices?.has(makeVisible(toConfirm));
  for (const notice of result.notices ?? []) notices?.add(makeVisible(notice));
  if (isNew) {
    const confirm = () =>
      sandboxActor(env, name)
        .confirmNotice(toConfirm)
        .catch(() => undefined);
    await (memory ? memory.whenRead(confirm) : confirm());
  }
  if (result.ok) return result.value;
  throw ToolError.from(result.failure);
}

/**
 * Does a file operation in the owner's sandbox. The operation's row in `operations` says whether it is retried. A stub loses the
 * operation's types; this function restores them.
 * @throws {ToolError}
 */
export function operate<Name extends OperationName>(
  env: Env,
  owner: Owner,
  name: Name,
  input: Input<Name>,
  shown: Pick<CallOptions, "notices" | "memory"> = {},
): Promise<Result<Name>> {
  const { retry } = operations[name];
  type Operate = (owner: Owner, name: Name, input: Input<Name>) => Promise<ActorResult<Result<Name>>>;
  return callSandbox(
    env,
    owner,
    (actor, ownerInRegion) => (actor.operate as Operate)(ownerInRegion, name, input),
    { isRepeatable: retry === "always", ...shown },
  );
}

/** Whether the scopes allow more than reading, so that a call may start a container. */
export function canStartWith(scopes: readonly Scope[]): boolean {
  return scopes.some((scope) => scope !== "sandbox:read");
}

/** The calls to one caller's sandboxes. All of them throw a `ToolError` if they fail. */
export type SandboxCalls = ReturnType<typeof sandboxCallsOf>;

export function sandboxCallsOf({ env, config, principal, takesNotice, arrivedAt, memory }: CallerContext) {
  const { id: principalID, scopes } = principal;
  const mayStart = canStartWith(scopes);
  const notices = new Set<string>();
  const shown = takesNotice === false ? {} : { notices, memory };
  const owner = (sandbox: string, region = principal.region): Owner => {
    const callerWaitMs = Math.max(0, config.maxWaitSeconds * 1000 - (Date.now() - arrivedAt));
    return { principalID, sandbox, region, scopes, mayStart, callerWaitMs };
  };
  return {
    /** The notices of these calls. A sandbox repeats at most that of a restart, so the answer must show each of them. */
    notices,
    /** @param region where the call's actor is created, if it does not exist yet; the principal's region by default */
    sandbox: <T>(name: string, call: SandboxCall<T>, region?: Region) =>
      callSandbox(env, owner(name, region), call, shown),
    /** Calls a method that only reads. Retries if the actor was reset. */
    reading: <T>(name: string, call: SandboxCall<T>) =>
      callSandbox(env, owner(name), call, { isRepeatable: true, ...shown }),
    operate: <Name extends OperationName>(sandbox: string, name: Name, input: Input<Name>) =>
      operate(env, owner(sandbox), name, input, shown),
  };
}

export function sandboxActor(
  env: SandboxNamespaces,
  name: ActorName,
  place?: DurableObjectNamespaceGetDurableObjectOptions,
): DurableObjectStub<Sandbox> {
  return actorNamed<Sandbox>(env, name, place);
}

/** Whether the actor was overloaded, so that it refused the call before the call began. */
function isOverloaded(error: unknown): boolean {
  return error instanceof Error && Reflect.get(error, "overloaded") === true;
}

/** Makes an idempotent call to an actor. Retries once if the actor was reset. */
export async function retryOnce<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (!isReset(error) || isOverloaded(error)) throw error;
    return call();
  }
}

/** Calls the account about a sandbox. @throws {ToolError} also if the account is reset during the call */
export async function unlessReset<T>(sandbox: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw isReset(error) ? explainReset(error, sandbox) : error;
  }
}

/** Converts a reset, overload or internal failure of an actor or account to a `ToolError`. Returns other errors unchanged. */
function explainReset(error: unknown, sandbox: string): unknown {
  if (isOverloaded(error)) return overloaded(sandbox);
  if (error instanceof Error && PLATFORM_FAILURE.test(error.message))
    return platformFailed(sandbox, error.message);
  if (!isReset(error)) return error;
  return String(error).includes("SQLITE_FULL") ? serverDiskFull(sandbox) : actorReset(sandbox);
}
