import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { bundlePanel } from "./scripts/bundle-panel.ts";
import { installForTests } from "./tests/setup/installed.ts";
import { PRIVATE_SECRETS } from "./tests/setup/private-secrets.ts";

/**
 * `worker` and `faults-actor` run in workerd, the other suites in Node. They and `node` share one engine of the local
 * platform, which the global set-up starts; `e2e`, `faults` and `hostile` start the whole server as a user does.
 */

/** The engine that the global set-up started, and the owner's token. */
const platform = (inject: (key: "engineURL" | "engineSecret") => string) => ({
  LOCAL_ENGINE_URL: inject("engineURL"),
  LOCAL_ENGINE_SECRET: inject("engineSecret"),
  SERVER_AUTH_TOKEN: "test-owner-token",
});

// What Node compiles for one test file or server, others read: a start of a server takes a fifth less processor time.
const compiled = mkdtempSync(join(tmpdir(), "sandbox-mcp-compiled-"));
process.env.NODE_COMPILE_CACHE = compiled;
process.once("exit", () => rmSync(compiled, { recursive: true, force: true }));

await installForTests();

// The Worker imports it.
await bundlePanel();

/** The Worker on the local platform, as tests have it. */
const worker = () =>
  cloudflareTest(({ inject }) => ({
    main: "./local/worker.ts",
    wrangler: { configPath: "./wrangler.local.jsonc" },
    miniflare: {
      bindings: {
        ...platform(inject),
        // Small, so that tests reach them.
        RUN_LOG_MAX_MB: "16",
        // Large: what tests start runs on beside what others do.
        MAX_RUNNING_SANDBOXES: "1000",
        TASK_ARCHIVE_MAX_MB: "4",
        MAX_IDLE_MINUTES: "60",
        KEEP_BUSY: "2",
        ANTHROPIC_API_KEY: "test-model-key",
        SECRETS: PRIVATE_SECRETS,
        PRIVATE_URL: inject("privateURL"),
        ANTHROPIC_UPSTREAM_URL: inject("modelURL"),
      },
    },
  }));

/** What tests and hooks may take, milliseconds, and how long a poll waits on a busy machine. */
const patience = (testTimeout: number, hookTimeout = testTimeout) => ({
  testTimeout,
  hookTimeout,
  expect: { poll: { timeout: 30_000 } },
});

/** Short files whose tests take half a minute or more. */
const SLOW =
  /\/(long-command|quota|hung|exhausted|killed|evicted|sandboxd-steps|start-ahead|destroy-start|foreign-sandboxd|storage|cut-short)\.test\.ts$/;

/** Vitest starts long files first, by their size; so are these, that nothing is waited for alone at the end of a run. */
class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const projects = sorted.map(({ project }) => project);
    const isSlow = ({ moduleId }: TestSpecification) => Number(SLOW.test(moduleId));
    return sorted.toSorted(
      (a, b) => projects.indexOf(a.project) - projects.indexOf(b.project) || isSlow(b) - isSlow(a),
    );
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: SlowFirst },
    globalSetup: ["tests/setup/engine.ts", "tests/setup/model.ts"],
    // They wait about half of the time, so two processors have three; and there are no more anywhere than were tried.
    maxWorkers: Math.min(4, Math.max(3, availableParallelism())),
    // Vitest itself throws this where a file ends while its module runner still looks for a module; the file's tests are over.
    onUnhandledError: ({ name, message }) =>
      !(name === "EnvironmentTeardownError" && message.includes("Closing rpc while")),
    projects: [
      {
        extends: true,
        plugins: [worker()],
        test: {
          name: "worker",
          include: ["tests/worker/**/*.test.ts"],
          // A workerd runs one file after the other, since loading the Worker takes longer than most files. So each file
          // has sandboxes and principals of its own, and restores what it changes for all.
          isolate: false,
          ...patience(60_000),
        },
      },
      {
        test: {
          name: "runtime",
          include: ["tests/runtime/**/*.test.ts"],
          // Each starts kernels of its own.
          isolate: false,
          ...patience(60_000),
        },
      },
      {
        extends: true,
        test: {
          name: "node",
          include: ["tests/node/**/*.test.ts"],
          ...patience(60_000),
        },
      },
      {
        test: {
          name: "e2e",
          include: ["tests/e2e/**/*.test.ts"],
          ...patience(180_000),
        },
      },
      {
        extends: true,
        plugins: [
          cloudflareTest(({ inject }) => ({
            main: "./tests/faults/actor/worker.ts",
            wrangler: { configPath: "./wrangler.local.jsonc" },
            miniflare: {
              bindings: {
                ...platform(inject),
                FAULTS: process.env.FAULTS ?? "short",
              },
            },
          })),
        ],
        test: {
          name: "faults-actor",
          include: ["tests/faults/actor/*.test.ts"],
          isolate: false,
          ...patience(180_000, 60_000),
        },
      },
      {
        test: {
          name: "hostile",
          include: ["tests/hostile/**/*.test.ts"],
          ...patience(240_000, 180_000),
        },
      },
      {
        test: {
          name: "faults",
          // They wait for the server's time limits.
          maxConcurrency: 10,
          include: ["tests/faults/*.test.ts"],
          ...patience(180_000),
        },
      },
      {
        test: {
          name: "soak",
          include: ["tests/soak/*.test.ts"],
          testTimeout: 600_000 + Number(process.env.SOAK_MINUTES ?? 0) * 60_000,
        },
      },
    ],
  },
});
