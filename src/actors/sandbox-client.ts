/** How the Worker reaches a principal's sandboxes: the one place that turns a name into an actor. */
import {
  type Input,
  type OperationName,
  type Result,
  operations,
} from "../../container/sandboxd/operations.ts";
import { type Env, parseConfig } from "../shared/config.ts";
import { type Failure, ToolError } from "../shared/errors.ts";
import { actorName } from "../shared/names.ts";
import { visible } from "../shared/shown.ts";
import type { Scope } from "../shared/principal.ts";
import type { CallerContext } from "../shared/request-context.ts";
import type { Owner } from "./account-calls.ts";
import { explainedReset, retryOnce } from "./actor-errors.ts";
import type { ActorResult, Sandbox } from "./sandbox.ts";

/** The value of an actor's answer, with its notice. */
export interface WithNotice<T> {
  value: T;
  notice: string | undefined;
}

/**
 * Calls a method of the owner's sandbox. One that only `reads` is called again when the actor was reset under it.
 * @throws {ToolError} with the notice in front of its message
 */
export async function callSandbox<T>(
  env: Env,
  owner: Owner,
  call: (actor: DurableObjectStub<Sandbox>, owner: Owner) => Promise<ActorResult<T>>,
  { reads = false } = {},
): Promise<WithNotice<T>> {
  const name = await actorName(owner.sandbox, owner.principalID);
  // A stub that has failed once keeps failing, so each attempt has its own.
  // Counts for the call that makes the actor. The account, links and previews reach only such as are made already.
  const place = { locationHint: owner.region ?? parseConfig(env).defaultRegion };
  const attempt = async () => call(sandboxActor(env, name, place), { ...owner, region: place.locationHint });
  const result = await (reads ? retryOnce(attempt) : attempt()).catch((error: unknown) => {
    throw explainedReset(error, owner.sandbox);
  });
  if (result.ok) return { value: result.value, notice: result.notice && visible(result.notice) };
  throw ToolError.from(withNotice(result.failure, result.notice));
}

/**
 * Does an operation on files of the owner's sandbox; its row says whether it is repeated. A stub's types lose those of the row, so
 * that they are given back here, and nowhere else.
 * @throws {ToolError}
 */
export function operate<Name extends OperationName>(
  env: Env,
  owner: Owner,
  name: Name,
  input: Input<Name>,
): Promise<WithNotice<Result<Name>>> {
  const { retry } = operations[name];
  type Operate = (owner: Owner, name: Name, input: Input<Name>) => Promise<ActorResult<Result<Name>>>;
  return callSandbox(
    env,
    owner,
    (actor, known) => (actor.operate as unknown as Operate)(known, name, input),
    {
      reads: retry === "always",
    },
  );
}

/** How a caller's work reaches the caller's sandboxes. */
export interface SandboxCalls {
  /** Calls a method of the principal's sandbox of that name. @throws {ToolError} */
  sandbox<T>(
    name: string,
    call: (actor: DurableObjectStub<Sandbox>, owner: Owner) => Promise<ActorResult<T>>,
  ): Promise<WithNotice<T>>;
  /** The same for a method that only reads: when the actor is reset during the call, it is called again. */
  reading: SandboxCalls["sandbox"];
  /** Does an operation on files of the principal's sandbox of that name. @throws {ToolError} */
  operate<Name extends OperationName>(
    sandbox: string,
    name: Name,
    input: Input<Name>,
  ): Promise<WithNotice<Result<Name>>>;
}

/** Whether scopes allow more than reading, so that a call may start a container. */
export function mayStartWith(scopes: readonly Scope[]): boolean {
  return scopes.some((scope) => scope !== "sandbox:read");
}

export function sandboxCallsOf({
  env,
  config,
  principal,
  takesNotice,
  arrivedAt,
}: CallerContext): SandboxCalls {
  const { id: principalID, scopes, region } = principal;
  const mayStart = mayStartWith(scopes);
  const owner = (sandbox: string): Owner => {
    const callerWaitMs = Math.max(0, config.maxWaitSeconds * 1000 - (Date.now() - arrivedAt));
    return { principalID, sandbox, region, scopes, mayStart, takesNotice, callerWaitMs };
  };
  return {
    sandbox: (name, call) => callSandbox(env, owner(name), call),
    reading: (name, call) => callSandbox(env, owner(name), call, { reads: true }),
    operate: (sandbox, name, input) => operate(env, owner(sandbox), name, input),
  };
}

/** The actor of a sandbox, by the actor's own name. */
export function sandboxActor(
  env: Pick<Env, "Sandbox">,
  name: string,
  place?: DurableObjectNamespaceGetDurableObjectOptions,
): DurableObjectStub<Sandbox> {
  return (env.Sandbox as DurableObjectNamespace<Sandbox>).getByName(name, place);
}

function withNotice(failure: Failure, notice: string | undefined): Failure {
  return notice === undefined ? failure : { ...failure, message: `${notice} ${failure.message}` };
}
