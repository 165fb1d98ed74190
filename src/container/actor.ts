import type { Env } from "../shared/config.ts";
import type { Connection } from "../shared/connection-log.ts";
import type { BudgetKeeper } from "./model-calls.ts";

/** The methods of a sandbox's actor that the handlers of what its container sends call. */
interface SandboxActor extends BudgetKeeper, Rpc.DurableObjectBranded {
  connectionMade(connection: Connection): void;
  containerEnding(token: string): Promise<boolean>;
}

/** The actor of a sandbox. @param containerID the id of its Durable Object, by which the SDK's handlers are told the sandbox */
export function actorOf(env: Env, containerID: string): DurableObjectStub<SandboxActor> {
  const sandboxes = env.Sandbox as DurableObjectNamespace<SandboxActor>;
  return sandboxes.get(sandboxes.idFromString(containerID));
}
