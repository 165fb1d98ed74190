/**
 * Our Worker with counts of the operations that Cloudflare bills. `GET /counts` returns the counts since the last such request.
 * `POST /known?sandboxes=n` adds stopped sandboxes until the owner has n.
 */
import local, {
  Account as LocalAccount,
  ContainerProxy,
  Sandbox as LocalSandbox,
} from "../../local/worker.ts";
import { OWNER_ID } from "../../src/shared/principal.ts";
import type { Counts } from "../counts.ts";
import { countBucket, countCalls, countStorage, noCounts } from "./counting.ts";

export { ContainerProxy };

let counts: Counts = noCounts();
const add = (key: keyof Counts, by: number) => (counts[key] += by);

type LocalEnv = ConstructorParameters<typeof LocalSandbox>[1];

const countedEnvs = new WeakMap<object, LocalEnv>();

/** Returns the same object for the same environment, because the server parses the configuration of each new object. */
function withCounts(env: LocalEnv): LocalEnv {
  const made = countedEnvs.get(env) ?? {
    ...env,
    Sandbox: countCalls(env.Sandbox, add),
    Account: countCalls(env.Account, add),
    RESULTS: countBucket(env.RESULTS, add),
    OBJECTS_FOLDER: undefined,
  };
  countedEnvs.set(env, made);
  return made;
}

export class Sandbox extends LocalSandbox {
  constructor(ctx: DurableObjectState<{}>, env: LocalEnv) {
    countStorage(ctx.storage, add);
    super(ctx, withCounts(env));
  }

  /** An alarm is billed as a request. */
  override async alarm(...given: Parameters<LocalSandbox["alarm"]>): Promise<void> {
    add("durable_object_requests", 1);
    return super.alarm(...given);
  }
}

export class Account extends LocalAccount {
  constructor(ctx: DurableObjectState, env: LocalEnv) {
    countStorage(ctx.storage, add);
    super(ctx, withCounts(env));
  }

  async registerSandboxes(sandboxes: number): Promise<void> {
    for (let index = 0; index < sandboxes; index++) {
      const sandbox = `bench-known-${index}`;
      const result = await this.registerSandbox({ principalID: OWNER_ID, sandbox });
      if (!result.ok) throw new Error(result.failure.message);
      this.sandboxStopped(sandbox);
    }
  }
}

export default {
  async fetch(request: Request, env: LocalEnv, ctx: ExecutionContext): Promise<Response> {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/known") {
      const accounts = env.Account as DurableObjectNamespace<Account>;
      await accounts.getByName(OWNER_ID).registerSandboxes(Number(searchParams.get("sandboxes")));
      return new Response();
    }
    if (pathname === "/counts") {
      const response = Response.json(counts);
      counts = noCounts();
      return response;
    }
    counts.worker_requests++;
    return local.fetch(request, withCounts(env), ctx);
  },
};
