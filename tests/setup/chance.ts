/**
 * fast-check with the seed of this run of the tests, so that each run tries the same. `npm run nightly` makes more tries with
 * another seed.
 */
import * as fc from "fast-check";
import { inject } from "vitest";

declare module "vitest" {
  interface ProvidedContext {
    seed: number;
    /** Whether tests that use chance make many more tries. */
    isLong: boolean;
  }
}

fc.configureGlobal({ seed: inject("seed") });

export * from "fast-check";
