import type { Env } from "../shared/config.ts";
import type { Connection } from "../shared/connection-log.ts";
import type { BudgetKeeper } from "./model-calls.ts";

/** The actor's methods that the outbound handlers call. */
interface SandboxActor extends BudgetKeeper, Rpc.DurableObjectBranded {
  connectionMade(connection: Connection): void;
  containerEnding(token: string): Promise<boolean>;
}

/** A sandbox's actor. @param containerID the id of its Durable Object, which the SDK passes to handlers */
export function actorOf(env: Env, containerID: string): DurableObjectStub<SandboxActor> {
  const sandboxes = env.Sandbox as DurableObjectNamespace<SandboxActor>;
  return sandboxes.get(sandboxes.idFromString(containerID));
}
