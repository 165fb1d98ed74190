/** The Worker on the local platform. It is production's Worker, with `ctx.container` implemented by the engine. */
import production, {
  Account as ProductionAccount,
  ContainerProxy as ProductionContainerProxy,
  Sandbox as ProductionSandbox,
} from "../src/index.ts";
import type * as Production from "../src/index.ts";
import { reservePlatformPort } from "../src/shared/reserved-ports.ts";
import type { NetworkPlatform } from "../src/actors/platform/platform.ts";
import { localNetwork, withLocalContainer } from "./platform/container.ts";
import { EngineClient, type LocalEnv } from "./platform/engine-client.ts";
import { Attempts, withExpiry } from "./platform/expiry.ts";
import { type ObjectFolderEnv, withObjectFolder } from "./platform/object-folder.ts";
import { markSandboxRequest, useEngine } from "./platform/engine-internet.ts";
import { runningActors, serveUntilStop } from "./platform/stop.ts";

useEngine(localEnv);
// The port of the proxy: `LISTENERS` in local/runtime/tcp.ts.
reservePlatformPort(3128);

type Env = ConstructorParameters<typeof ProductionSandbox>[1] & LocalEnv & ObjectFolderEnv;

export { Attempts };

export class Account extends ProductionAccount {
  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, withObjectFolder(env));
  }
}

/** Named like production's class, because the SDK finds outbound handlers by the class's name. */
export class Sandbox extends ProductionSandbox {
  readonly #preparing = new Map<string, Promise<void>>();

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(withLocalContainer(ctx, env), withObjectFolder(env));
  }

  protected override get networkPlatform(): NetworkPlatform {
    return localNetwork(this.ctx);
  }

  /** Tasks share a request, because it continues when its task is cancelled, and an installation takes minutes. */
  protected override prepareAgent(agent: string): Promise<void> {
    const begun = this.#preparing.get(agent);
    if (begun) return begun;
    const prepared = new EngineClient(localEnv(this.env))
      .call("PUT", `/agents/${agent}`)
      .then(() => undefined)
      .finally(() => this.#preparing.delete(agent));
    this.#preparing.set(agent, prepared);
    return prepared;
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

export default {
  ...production,
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const serve = () => production.fetch(request, withObjectFolder(withExpiry(env)), ctx);
    return await serveUntilStop(request, env.LOCAL_ENGINE_SECRET, env, () => runningActors(env), serve);
  },
};
