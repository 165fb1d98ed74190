import { mkdtempSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { bundlePanel } from "./scripts/bundle-panel.ts";
import { installClients } from "./tests/clients/install.ts";
import { installClaudeCode } from "./tests/setup/installed.ts";
import { PRIVATE_SECRETS } from "./tests/setup/private-secrets.ts";
import { python } from "./tests/setup/server.ts";

/**
 * `worker` runs in workerd, with an engine of the local platform that its global set-up starts. The other suites run in Node. `e2e`,
 * `faults` and `hostile` start the whole server as a user does.
 */

/** The Worker's variables: the address of the engine that the global set-up started, and the owner's token. */
const platform = (inject: (key: "engineURL" | "engineSecret") => string) => ({
  LOCAL_ENGINE_URL: inject("engineURL"),
  LOCAL_ENGINE_SECRET: inject("engineSecret"),
  SERVER_AUTH_TOKEN: "test-owner-token",
});

// All servers of the tests share Node's compile cache. So each start takes a fifth less processor time.
const compiled = mkdtempSync(join(tmpdir(), "sandbox-mcp-compiled-"));
process.env.NODE_COMPILE_CACHE = compiled;
// As with `npm start`, objects are files in a folder.
const objects = mkdtempSync(join(tmpdir(), "sandbox-mcp-objects-"));
process.once("exit", () => {
  for (const directory of [compiled, objects]) rmSync(directory, { recursive: true, force: true });
});

await installClaudeCode();

// Tests run meanwhile. Those that use clients wait for the end: tests/setup/clients.ts.
installClients((line) => console.error(line)).catch((error: Error) => {
  console.error(error.message);
  process.exit(1);
});

// Searched once here: the search for Python takes 0.3 s of processor time, and many test files and each engine would repeat it.
if (python !== undefined) process.env.TESTS_PYTHON = python;

// The Worker imports the built panel.
await bundlePanel();

/** For the tests that use chance: tests/setup/chance.ts. */
const chance = { seed: Number(process.env.TESTS_SEED ?? 1), isLong: process.env.TESTS === "long" };

const worker = () =>
  cloudflareTest(({ inject }) => ({
    // To load a Worker takes a process seconds of processor time, so tests that need faults of R2 share this Worker with the others.
    main: "./tests/faults/actor/worker.ts",
    wrangler: { configPath: "./wrangler.local.jsonc" },
    miniflare: {
      bindings: {
        ...platform(inject),
        // A small limit, so that tests reach it.
        RUN_LOG_MAX_MB: "16",
        // Large, because the sandboxes of all files run at the same time.
        MAX_RUNNING_SANDBOXES: "1000",
        TASK_ARCHIVE_MAX_MB: "4",
        MAX_IDLE_MINUTES: "60",
        KEEP_BUSY: "2",
        ANTHROPIC_API_KEY: "test-model-key",
        SECRETS: PRIVATE_SECRETS,
        PRIVATE_URL: inject("privateURL"),
        ANTHROPIC_UPSTREAM_URL: inject("modelURL"),
      },
      serviceBindings: { OBJECTS_FOLDER: { disk: { path: objects, writable: true } } },
    },
  }));

/** The global set-up, which starts an engine and a server that acts as the model. */
const inWorkerd = ["tests/setup/engine.ts", "tests/setup/model.ts"];

/** Time limits of tests, hooks and polls in milliseconds, for a busy machine. */
const timeLimits = (testTimeout: number, hookTimeout = testTimeout) => ({
  testTimeout,
  hookTimeout,
  expect: { poll: { timeout: 30_000 } },
});

/**
 * Whether processes get memory slowly, as in some virtual machines: 64 MB then take 400 ms of processor time instead of tens. Starts of
 * processes take three times longer there, and files wait less.
 */
function isSlowMachine(): boolean {
  const before = process.cpuUsage();
  Buffer.alloc(64 * 1024 * 1024, 1);
  const { user, system } = process.cpuUsage(before);
  return user + system > 150_000;
}

/**
 * How many files run at once. Four left a quarter of two cores idle, because most files wait more than half of their time. With six,
 * tests that must run in time failed. Each file and its sandboxes take up to 1 GB.
 */
const AT_ONCE = Math.min(6, availableParallelism() + (isSlowMachine() ? 2 : 3));

/** Small files whose tests take ten seconds or more. */
const SLOW =
  /\/(long-command|parallel|hung|exhausted|killed|evicted|sandboxd-steps|start-ahead|destroy-start|foreign-sandboxd|storage|cut-short|everything|left-behind|many-sessions|disk-usage|clock|listening|running|service|idle|workspaces|deadline|egress)\.test\.ts$/;

/** Suites that need no clients. */
const FIRST_SUITES = new Set(["faults", "runtime", "soak"]);

/**
 * Vitest sorts suites by name, and starts large files of a suite first. This also starts slow files first, so that no slow file runs
 * alone at the end, and some suites before the others, so that they run while clients are installed.
 */
class SlowFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const projects = sorted.map(({ project }) => project);
    const isFirst = ({ project }: TestSpecification) => Number(FIRST_SUITES.has(project.name));
    const isSlow = ({ moduleId }: TestSpecification) => Number(SLOW.test(moduleId));
    return sorted.toSorted(
      (a, b) =>
        isFirst(b) - isFirst(a) ||
        projects.indexOf(a.project) - projects.indexOf(b.project) ||
        isSlow(b) - isSlow(a),
    );
  }
}

export default defineConfig({
  test: {
    sequence: { sequencer: SlowFirst },
    maxWorkers: AT_ONCE,
    provide: chance,
    // Vitest throws this error if a file ends while its module runner is still loading a module. It does not fail the run.
    onUnhandledError: (error) =>
      !(error.name === "EnvironmentTeardownError" && error.message.includes("Closing rpc while")),
    projects: [
      {
        plugins: [worker()],
        test: {
          name: "worker",
          globalSetup: inWorkerd,
          include: ["tests/worker/**/*.test.ts", "tests/faults/actor/*.test.ts"],
          setupFiles: ["tests/worker/each-file.ts"],
          // One workerd runs several files, because loading the Worker takes longer than most files. So each file uses its
          // own sandboxes and principals, and restores shared settings that it changes.
          isolate: false,
          // These files wait more than those of the other suites.
          maxWorkers: AT_ONCE + 1,
          sequence: { groupOrder: 1 },
          ...timeLimits(120_000),
        },
      },
      {
        test: {
          name: "runtime",
          include: ["tests/runtime/**/*.test.ts"],
          // Each file starts its own kernels.
          isolate: false,
          ...timeLimits(120_000),
        },
      },
      {
        test: {
          name: "node",
          include: ["tests/node/**/*.test.ts"],
          setupFiles: ["tests/setup/clients.ts"],
          ...timeLimits(120_000),
        },
      },
      {
        test: {
          name: "e2e",
          globalSetup: "tests/setup/shared-server.ts",
          include: ["tests/e2e/**/*.test.ts"],
          setupFiles: ["tests/setup/clients.ts"],
          ...timeLimits(180_000),
        },
      },
      {
        test: {
          name: "hostile",
          include: ["tests/hostile/**/*.test.ts"],
          ...timeLimits(240_000, 180_000),
        },
      },
      {
        test: {
          name: "faults",
          // These tests wait for time limits of the server.
          maxConcurrency: 10,
          include: ["tests/faults/*.test.ts"],
          ...timeLimits(180_000),
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
