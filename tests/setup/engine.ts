/**
 * vitest's globalSetup for every project that needs sandboxes: one engine for the whole run.
 * Tests get at it with `inject("engineURL")` and `inject("engineSecret")`.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startEngine } from "../../local/engine/engine.ts";

declare module "vitest" {
  interface ProvidedContext {
    engineURL: string;
    engineSecret: string;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const runDir = await mkdtemp(join(tmpdir(), "sandbox-mcp-test-"));
  const secret = randomBytes(24).toString("base64url");
  const engine = await startEngine({
    secret,
    network: "internet",
    isolation: "bubblewrap",
    runDir,
    verbose: process.env.VERBOSE === "1",
  });
  project.provide("engineURL", engine.url);
  project.provide("engineSecret", secret);
  return async () => {
    await engine.close();
    await rm(runDir, { recursive: true, force: true });
  };
}
