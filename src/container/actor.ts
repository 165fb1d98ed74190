import type { Env } from "../shared/config.ts";
import type { Connection } from "../shared/connection-log.ts";
import type { GitCredential } from "../shared/git-credential.ts";
import type { ActorName } from "../shared/names.ts";
import type { BudgetKeeper } from "./model-calls.ts";

interface SandboxActor extends BudgetKeeper, Rpc.DurableObjectBranded {
  connectionMade(connection: Connection): void;
  containerEnding(token: string): Promise<boolean>;
}

interface AccountActor extends Rpc.DurableObjectBranded {
  gitCredential(host: string): Promise<GitCredential | undefined>;
}

/** The namespace of the sandboxes' actors, with the type that the caller needs. No other file reads the binding. */
function sandboxesOf<Actor extends Rpc.DurableObjectBranded>({
  Sandbox,
}: Pick<Env, "Sandbox">): DurableObjectNamespace<Actor> {
  return Sandbox as DurableObjectNamespace<Actor>;
}

/** The actor with this name. If sandboxes have several sizes, this function chooses the namespace, for every caller. */
export function actorNamed<Actor extends Rpc.DurableObjectBranded>(
  env: Pick<Env, "Sandbox">,
  name: ActorName,
  options?: DurableObjectNamespaceGetDurableObjectOptions,
): DurableObjectStub<Actor> {
  return sandboxesOf<Actor>(env).getByName(name, options);
}

export function actorOf<Actor extends Rpc.DurableObjectBranded = SandboxActor>(
  env: Pick<Env, "Sandbox">,
  containerID: string,
): DurableObjectStub<Actor> {
  const sandboxes = sandboxesOf<Actor>(env);
  return sandboxes.get(sandboxes.idFromString(containerID));
}

export function accountOf(env: Env, principalID: string): DurableObjectStub<AccountActor> {
  return (env.Account as DurableObjectNamespace<AccountActor>).getByName(principalID);
}
