import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { bundlePanel } from "./scripts/bundle-panel.ts";
import { installForTests } from "./tests/setup/installed.ts";
import { PRIVATE_SECRETS } from "./tests/setup/private-secrets.ts";

/**
 * `worker`, `worker-alone` and `faults-actor` run in workerd, the other suites in Node. They and `node` share one engine of the local platform,
 * which the global set-up starts; `e2e`, `faults` and `hostile` start the whole server as a user does.
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

/**
 * Tests of sandboxes. Each file has sandboxes of its own, so that one workerd can run them after each other and load the
 * Worker once. What looks at all of an account, or of a store, has a workerd to itself.
 */
const TOGETHER = ["files", "previews", "resources", "runs", "tools", "workspaces"].map(
  (area) => `tests/worker/${area}/**/*.test.ts`,
);

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
    // They wait more than they work, so there are more at once than processors; and no more anywhere than tried.
    maxWorkers: 3,
    projects: [
      {
        extends: true,
        plugins: [worker()],
        test: {
          name: "worker",
          include: TOGETHER,
          isolate: false,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        extends: true,
        plugins: [worker()],
        test: {
          name: "worker-alone",
          include: ["tests/worker/**/*.test.ts"],
          exclude: TOGETHER,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "runtime",
          include: ["tests/runtime/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        extends: true,
        test: {
          name: "node",
          include: ["tests/node/**/*.test.ts"],
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "e2e",
          include: ["tests/e2e/**/*.test.ts"],
          testTimeout: 180_000,
          hookTimeout: 180_000,
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
          testTimeout: 180_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          name: "hostile",
          include: ["tests/hostile/**/*.test.ts"],
          testTimeout: 240_000,
          hookTimeout: 180_000,
        },
      },
      {
        test: {
          name: "faults",
          include: ["tests/faults/*.test.ts"],
          testTimeout: 180_000,
          hookTimeout: 180_000,
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
