/**
 * vitest's globalSetup for every project that needs sandboxes: one engine for the whole run.
 * Tests get at it with `inject("engineURL")` and `inject("engineSecret")`.
 */
import type { TestProject } from "vitest/node";
import { startTestEngine } from "./engine-client.ts";

declare module "vitest" {
  interface ProvidedContext {
    engineURL: string;
    engineSecret: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const engine = await startTestEngine({ verbose: process.env.VERBOSE === "1" });
  project.provide("engineURL", engine.url);
  project.provide("engineSecret", engine.secret);
  return () => engine.close();
}
