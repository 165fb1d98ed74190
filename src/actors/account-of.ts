/** Not in account.ts: Node cannot import that file, and `npm run docs` imports the tools, which need this function. */
import type { Env } from "../shared/config.ts";
import type { Account } from "./account.ts";

export function accountOf(env: Env, principalID: string): DurableObjectStub<Account> {
  return (env.Account as DurableObjectNamespace<Account>).getByName(principalID);
}
