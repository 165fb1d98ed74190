/** The bindings that tests see as `env`. */
import type { Account } from "../../src/actors/account.ts";
import type { Sandbox } from "../../src/actors/sandbox.ts";

declare global {
  namespace Cloudflare {
    interface Env {
      Sandbox: DurableObjectNamespace<Sandbox>;
      Account: DurableObjectNamespace<Account>;
      RESULTS: R2Bucket;
      OAUTH_KV: KVNamespace;
      LOCAL_ENGINE_URL: string;
      LOCAL_ENGINE_SECRET: string;
      /** Where what arrived at the private API can be asked for. */
      PRIVATE_URL: string;
    }
  }
}
