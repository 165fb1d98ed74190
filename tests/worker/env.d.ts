/** The bindings that tests see as `env`. */
import type { Account } from "../../src/actors/account.ts";
import type { Attempts } from "../../src/actors/attempts.ts";
import type { Sandbox } from "../../src/actors/sandbox.ts";

declare global {
  interface ImportMeta {
    /** Vite's: files by their path, read when the test is built. */
    glob(pattern: string, options: { eager: true; import: "default" }): Record<string, object>;
    glob(pattern: string, options: { eager: true; import: "default"; query: "?raw" }): Record<string, string>;
  }
  namespace Cloudflare {
    interface Env {
      Sandbox: DurableObjectNamespace<Sandbox>;
      Attempts: DurableObjectNamespace<Attempts>;
      Account: DurableObjectNamespace<Account>;
      RESULTS: R2Bucket;
      OBJECTS_FOLDER: Fetcher;
      OAUTH_KV: KVNamespace;
      LOCAL_ENGINE_URL: string;
      LOCAL_ENGINE_SECRET: string;
      /** Where what arrived at the private API can be asked for. */
      PRIVATE_URL: string;
    }
  }
}
