/** The local Worker, in which a test can make a sandbox's bucket fail or respond late. */
import { withObjectFolder } from "../../../local/platform/object-folder.ts";
import production, {
  Account,
  Attempts,
  ContainerProxy,
  Sandbox as LocalSandbox,
} from "../../../local/worker.ts";
import { beforeCalls } from "../../setup/before-calls.ts";

type Operation = "put" | "get" | "delete";

type Env = ConstructorParameters<typeof LocalSandbox>[1];

/** Called before each operation of a sandbox's bucket. It may throw, or take some time. */
interface Bucket {
  fault?: (operation: Operation) => Promise<void>;
}

const buckets = new Map<string, Bucket>();

export function bucketOf(sandbox: string): Bucket {
  const bucket = buckets.get(sandbox) ?? {};
  buckets.set(sandbox, bucket);
  return bucket;
}

/** Ends all faults, because the next test file may have sandboxes of the same names. */
export function endFaults(): void {
  buckets.clear();
}

export class Sandbox extends LocalSandbox {
  constructor(ctx: DurableObjectState<{}>, env: Env) {
    // An actor's name is its sandbox's name and its principal's hash.
    const sandbox = (ctx.id.name ?? "").replace(/-\w+$/, "");
    const { RESULTS } = withObjectFolder(env);
    const faulty = beforeCalls(RESULTS, (operation) => bucketOf(sandbox).fault?.(operation as Operation));
    super(ctx, { ...env, OBJECTS_FOLDER: undefined, RESULTS: faulty });
  }
}

export { Account, Attempts, ContainerProxy };

export default production;
