/** The local Worker, with a bucket that refuses or is slow when a test says so. */
import production, { Account, ContainerProxy, Sandbox as LocalSandbox } from "../../../local/worker.ts";

type Operation = "put" | "get" | "delete";

type Env = ConstructorParameters<typeof LocalSandbox>[1];

/** What happens to operations of R2 before they are carried out: it may throw, or take its time. */
export const faults: { bucket?: (operation: Operation) => Promise<void> } = {};

function faulty(bucket: object): object {
  return new Proxy(bucket, {
    get(target, name) {
      const method = Reflect.get(target, name);
      if (typeof method !== "function") return method;
      return async (...args: unknown[]) => {
        await faults.bucket?.(name as Operation);
        return Reflect.apply(method, target, args);
      };
    },
  });
}

export class Sandbox extends LocalSandbox {
  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, { ...env, RESULTS: faulty(env.RESULTS) });
  }
}

export { Account, ContainerProxy };

export default production;
