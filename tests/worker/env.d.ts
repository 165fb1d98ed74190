/** The bindings that tests get as `env`. */
import type { Account } from "../../src/actors/account.ts";
import type { Attempts } from "../../src/actors/attempts.ts";
import type { Sandbox } from "../../src/actors/sandbox.ts";
import type { Env as ServerEnv } from "../../src/shared/config.ts";

declare global {
  interface ImportMeta {
    /** A function of Vite: returns files by path, read when the test is built. */
    glob(pattern: string, options: { eager: true; import: "default" }): Record<string, object>;
    glob(pattern: string, options: { eager: true; import: "default"; query: "?raw" }): Record<string, string>;
  }
  namespace Cloudflare {
    interface Env extends Omit<ServerEnv, "RESULTS"> {
      Sandbox: DurableObjectNamespace<Sandbox>;
      Attempts: DurableObjectNamespace<Attempts>;
      Account: DurableObjectNamespace<Account>;
      RESULTS: R2Bucket;
      OBJECTS_FOLDER: Fetcher;
      OAUTH_KV: KVNamespace;
      LOCAL_ENGINE_URL: string;
      LOCAL_ENGINE_SECRET: string;
      /** The URL that lists the requests that the private API received. */
      PRIVATE_URL: string;
    }
  }
}
