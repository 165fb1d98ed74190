/** The Worker on the local platform. It is production's Worker, with `ctx.container` implemented by the engine. */
import production, {
  Account as ProductionAccount,
  Attempts as ProductionAttempts,
  ContainerProxy as ProductionContainerProxy,
  Sandbox as ProductionSandbox,
} from "../src/index.ts";
import type * as Production from "../src/index.ts";
import { interceptStore } from "../src/auth/oauth-store.ts";
import { pause } from "../src/shared/timers.ts";
import type { NetworkPlatform } from "../src/actors/platform/platform.ts";
import { localNetwork, withLocalContainer } from "./platform/container.ts";
import { EngineClient, type LocalEnv } from "./platform/engine-client.ts";
import { changeOnce, type ObjectFolderEnv, withObjectFolder } from "./platform/object-folder.ts";
import { markSandboxRequest, useEngine } from "./platform/engine-internet.ts";
import { isStop, refuseToServe, runningActors, saveAll } from "./platform/stop.ts";

useEngine(localEnv);

type Env = ConstructorParameters<typeof ProductionSandbox>[1] & LocalEnv & ObjectFolderEnv;

/** The shortest time between two alarms that delete expired values, in milliseconds. */
const EXPIRY_MS = 2000;

/** The storage prefix of the keys of OAUTH_KV that expire. They sort by their expiry: the seconds have ten digits until 2286. */
const EXPIRIES = "expires:";

export class Attempts extends ProductionAttempts {
  /**
   * Called when OAuth has stored a value. Plans its deletion. miniflare deletes expired values only when it lists keys, and then all
   * at once: 20,000 pages that strangers had opened blocked the server for 25 s.
   * @param expiresAt in seconds since the epoch
   */
  async deleteAt(key: string, expiresAt: number): Promise<void> {
    this.ctx.storage.kv.put(`${EXPIRIES}${expiresAt} ${key}`, true);
    await this.#planDeletion();
  }

  /** Deletes expired values of OAuth, and plans the next deletion. */
  override async alarm(): Promise<void> {
    for (let next = this.#nextExpiry(); next && next.expiresAt <= Date.now(); next = this.#nextExpiry()) {
      // miniflare deletes an expired value that is read. A value that was stored again with a later expiry stays.
      await this.env.OAUTH_KV.get(next.key);
      this.ctx.storage.kv.delete(next.entry);
      // Reads of OAUTH_KV are always ready, and workerd looks for new requests only when nothing is: 1,500 reads blocked it for 9.7 s.
      await pause(0);
    }
    await this.#planDeletion();
  }

  async #planDeletion(): Promise<void> {
    const next = this.#nextExpiry();
    if (!next) return;
    const at = Math.max(next.expiresAt, Date.now() + EXPIRY_MS);
    const planned = await this.ctx.storage.getAlarm();
    if (planned === null || planned > at) await this.ctx.storage.setAlarm(at);
  }

  /** The value that expires first, and when, in milliseconds since the epoch. */
  #nextExpiry() {
    const [first] = this.ctx.storage.kv.list({ prefix: EXPIRIES, limit: 1 });
    if (!first) return undefined;
    const [entry] = first;
    const separator = entry.indexOf(" ");
    const expiresAt = Number(entry.slice(EXPIRIES.length, separator)) * 1000;
    return { entry, key: entry.slice(separator + 1), expiresAt };
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
  const deleting = interceptStore(store, async (name, key, call, options) => {
    const result = await call();
    if (name === "put") {
      const { expiration, expirationTtl } = (options ?? {}) as KVNamespacePutOptions;
      const expiresAt = expiration ?? (expirationTtl && Math.ceil(Date.now() / 1000) + expirationTtl);
      if (expiresAt) await attempts.getByName("expiry").deleteAt(String(key), expiresAt);
    }
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
