/**
 * vitest's globalSetup for each project that needs sandboxes: one engine for all. Tests find it with
 * `inject("engineURL")` and `inject("engineSecret")`.
 */
import type { TestProject } from "vitest/node";
import { AGENTS } from "./claude-code.ts";
import { startTestEngine } from "./engine-client.ts";
import { playPrivateAPI } from "./private-api.ts";

declare module "vitest" {
  interface ProvidedContext {
    engineURL: string;
    engineSecret: string;
    /** The URL that lists the requests that the private API received. */
    privateURL: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { url, allowAddresses, trusted, close } = await playPrivateAPI();
  const verbose = process.env.VERBOSE === "1";
  const engine = await startTestEngine({
    verbose,
    allowAddresses,
    trusted,
    agents: AGENTS,
    hasAuthority: true,
  });
  project.provide("privateURL", url);
  project.provide("engineURL", engine.url);
  project.provide("engineSecret", engine.secret);
  return async () => {
    close();
    await engine.close();
  };
}
