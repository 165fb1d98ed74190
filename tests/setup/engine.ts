/**
 * vitest's globalSetup for each project in workerd: it starts an engine in its own process, as users do. In vitest's large process,
 * each start of a program would take 40 ms of processor time.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestProject } from "vitest/node";
import { startEngineProcess } from "../../cli/engine-process.ts";
import { repository } from "../../local/engine/own-files.ts";
import { fetchedAgentsDirectory } from "../../local/engine/rootfs-files.ts";
import { CLAUDE_CODE } from "./claude-code.ts";
import { wsPackage } from "./engine-client.ts";
import { playPrivateAPI } from "./private-api.ts";
import { python } from "./server.ts";

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
  const runDir = await mkdtemp(join(tmpdir(), "sandbox-mcp-test-"));
  const secret = randomBytes(24).toString("base64url");
  const engine = await startEngineProcess(
    {
      secret,
      network: "internet",
      isolation: "bubblewrap",
      runDir,
      ...(python === undefined ? {} : { python }),
      authority: join(runDir, "authority"),
      readOnly: [
        wsPackage,
        {
          from: join(repository, "tests/setup/scripted-claude.cjs"),
          to: join(fetchedAgentsDirectory, "claude"),
        },
        { from: CLAUDE_CODE, to: "/opt/sandbox-runtime/claude-code" },
      ],
      isVerbose: process.env.VERBOSE === "1",
      allowAddresses,
      trusted,
      // Most of these sandboxes run no Python, and a prepared sandbox has a Python kernel. tests/node/start-ahead.test.ts
      // and tests/e2e/start-ahead.test.ts test prepared sandboxes.
      prepareSandbox: false,
    },
    console.error,
    (reason) => console.error(`The engine of the tests ended: ${reason}`),
  );
  project.provide("privateURL", url);
  project.provide("engineURL", engine.url);
  project.provide("engineSecret", secret);
  return async () => {
    close();
    await engine.close();
    await rm(runDir, { recursive: true, force: true });
  };
}
