/** The Worker of `npm run dev:docker`. It is production's Worker, and also saves all workspaces before the server stops. */
import production, { Account, Attempts, ContainerProxy, Sandbox as ProductionSandbox } from "../src/index.ts";
import type * as Production from "../src/index.ts";
import { serveUntilStop } from "./platform/stop.ts";

type SandboxEnv = ConstructorParameters<typeof ProductionSandbox>[1];
type Env = SandboxEnv & { STOP_SECRET?: string };

export { Account, Attempts, ContainerProxy };

/** The ids of the Sandbox objects created since the server started. Their containers end with the server. */
const actors = new Set<string>();

/** Named like production's class, because the SDK finds outbound handlers by the class's name. */
export class Sandbox extends ProductionSandbox {
  constructor(ctx: DurableObjectState<{}>, env: SandboxEnv) {
    super(ctx, env);
    actors.add(ctx.id.toString());
  }
}

// The compiler reports a class of production that this module does not export.
void ({ Account, Attempts, ContainerProxy, Sandbox, default: production } satisfies typeof Production);

export default {
  ...production,
  async fetch(request: Request, env: Env, ctx: ExecutionContext): Promise<Response> {
    const serve = () => production.fetch(request, env, ctx);
    return await serveUntilStop(request, env.STOP_SECRET ?? "", env, async () => actors, serve);
  },
};
