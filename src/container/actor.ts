import type { Env, SandboxNamespaces } from "../shared/config.ts";
import type { Connection } from "../shared/connection-log.ts";
import type { GitCredential } from "../shared/git-credential.ts";
import { type ActorName, SANDBOX_CLASSES, type SandboxClass } from "../shared/names.ts";
import type { BudgetKeeper } from "./model-calls.ts";

interface SandboxActor extends BudgetKeeper, Rpc.DurableObjectBranded {
  connectionMade(connection: Connection): void;
  containerEnding(token: string): Promise<boolean>;
}

interface AccountActor extends Rpc.DurableObjectBranded {
  gitCredential(host: string): Promise<GitCredential | undefined>;
}

/** With several classes, this line does not compile: then `actorNamed` and `actorOf` must choose one. */
const [ONLY_CLASS]: readonly [SandboxClass] = SANDBOX_CLASSES;

/** The namespace of the sandboxes' actors, with the type that the caller needs. No other file reads the binding. */
function sandboxesOf<Actor extends Rpc.DurableObjectBranded>(
  env: SandboxNamespaces,
): DurableObjectNamespace<Actor> {
  return env[ONLY_CLASS] as DurableObjectNamespace<Actor>;
}

export function actorNamed<Actor extends Rpc.DurableObjectBranded>(
  env: SandboxNamespaces,
  name: ActorName,
  options?: DurableObjectNamespaceGetDurableObjectOptions,
): DurableObjectStub<Actor> {
  return sandboxesOf<Actor>(env).getByName(name, options);
}

export function actorOf<Actor extends Rpc.DurableObjectBranded = SandboxActor>(
  env: SandboxNamespaces,
  containerID: string,
): DurableObjectStub<Actor> {
  const sandboxes = sandboxesOf<Actor>(env);
  return sandboxes.get(sandboxes.idFromString(containerID));
}

export function accountOf(env: Env, principalID: string): DurableObjectStub<AccountActor> {
  return (env.Account as DurableObjectNamespace<AccountActor>).getByName(principalID);
}
