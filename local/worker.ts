/** The Worker on the local platform. It is production's Worker, with `ctx.container` implemented by the engine. */
import production, {
  Account as ProductionAccount,
  Attempts as ProductionAttempts,
  ContainerProxy as ProductionContainerProxy,
  Sandbox as ProductionSandbox,
} from "../src/index.ts";
import type * as Production from "../src/index.ts";
import { interceptStore } from "../src/auth/oauth-store.ts";
import type { NetworkPlatform } from "../src/actors/platform/platform.ts";
import { localNetwork, withLocalContainer } from "./platform/container.ts";
import { EngineClient, type LocalEnv } from "./platform/engine-client.ts";
import { changeOnce, type ObjectFolderEnv, withObjectFolder } from "./platform/object-folder.ts";
import { markSandboxRequest, useEngine } from "./platform/engine-internet.ts";
import { isStop, refuseToServe, runningActors, saveAll } from "./platform/stop.ts";

useEngine(localEnv);

type Env = ConstructorParameters<typeof ProductionSandbox>[1] & LocalEnv & ObjectFolderEnv;

/**
 * The pause between deletions of expired values, in milliseconds. miniflare deletes all of them at once, when it lists keys, and
 * the server serves no other request meanwhile. A sign-in that deleted the values of 20,000 pages blocked the server for 25 s.
 */
const EXPIRY_MS = 2000;

export class Attempts extends ProductionAttempts {
  /** Called after each write of OAuth. */
  async deleteExpiredSoon(): Promise<void> {
    const at = Date.now() + EXPIRY_MS;
    const planned = await this.ctx.storage.getAlarm();
    if (planned === null || planned > at) await this.ctx.storage.setAlarm(at);
  }

  /** Deletes expired values of OAuth, and plans the next deletion. */
  override async alarm(): Promise<void> {
    const { keys, list_complete: isComplete } = await this.env.OAUTH_KV.list();
    const next = isComplete ? Math.min(...keys.map(({ expiration = Infinity }) => expiration * 1000)) : 0;
    if (next < Infinity) await this.ctx.storage.setAlarm(Math.max(next, Date.now() + EXPIRY_MS));
  }
}

export class Account extends ProductionAccount {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, withObjectFolder(env));
  }
}

/** Named like production's class, because the SDK finds outbound handlers by the class's name. */
export class Sandbox extends ProductionSandbox {
  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(withLocalContainer(ctx, env), withObjectFolder(env));
  }

  protected override get networkPlatform(): NetworkPlatform {
    return localNetwork(this.ctx);
  }

  protected override async prepareAgent(agent: string): Promise<void> {
    await new EngineClient(localEnv(this.env)).call("PUT", `/agents/${agent}`);
  }
}

/** Runs for each intercepted request, outside the actor. */
export class ContainerProxy extends ProductionContainerProxy {
  override async fetch(request: Request): Promise<Response> {
    return await super.fetch(markSandboxRequest(request, localEnv(this.env), this.ctx.props.containerId));
  }
}

// The compiler reports a class of production that this module does not export.
void ({ Account, Attempts, ContainerProxy, Sandbox, default: production } satisfies typeof Production);

/** The SDK does not type its entrypoint's environment. */
function localEnv(env: unknown): LocalEnv {
  if (typeof env === "object" && env !== null && "LOCAL_ENGINE_URL" in env && "LOCAL_ENGINE_SECRET" in env)
    return env as LocalEnv;
  throw new Error("LOCAL_ENGINE_URL and LOCAL_ENGINE_SECRET are not set: start the server with `npm start`.");
}

/** Makes the OAuth store delete expired values. */
const withExpiry = changeOnce((env: Env) => {
  const { OAUTH_KV: store, Attempts: namespace } = env;
  if (!store || !namespace) return env;
  const attempts = namespace as DurableObjectNamespace<Attempts>;
  const deleting = interceptStore(store, async (name, _key, call) => {
    const result = await call();
    if (name === "put") await attempts.getByName("expiry").deleteExpiredSoon();
    return result;
  });
  return { ...env, OAUTH_KV: deleting };
});

let isStopping = false;

export default {
  ...production,
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    if (isStop(request, env.LOCAL_ENGINE_SECRET)) {
      isStopping = true;
      return await saveAll(env, await runningActors(env));
    }
    return isStopping
      ? refuseToServe()
      : await production.fetch(request, withObjectFolder(withExpiry(env)), ctx);
  },
};
