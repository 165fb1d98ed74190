/**
 * The set-up of measurements: an engine of the local platform, our Worker, and the bare Worker, which is the baseline. Each
 * Worker has a separate workerd.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type RunningEngine, startEngineProcess } from "../cli/engine-process.ts";
import type { EngineSettings } from "../local/engine/engine-settings.ts";
import { root } from "../cli/program-files.ts";
import { type RunningWorker, startWorker } from "../cli/run-worker.ts";
import { type Bare, type WorkerClient, bareClient, closeClients, workerClient } from "./worker-client.ts";
import { type Process, tree } from "../tests/setup/processes.ts";

/** The Worker of `npm start`, the baseline's Worker, and our Worker with counted operations. */
export const CONFIGS = {
  ours: join(root, "wrangler.local.jsonc"),
  bare: join(root, "bench/worker/wrangler.jsonc"),
  counted: join(root, "bench/worker/counted.jsonc"),
} as const;

export const TOKEN = "bench-owner-token";

/** The longest that the engine takes to prepare the next sandbox after a start, in milliseconds. */
export const PREPARE_MS = 1500;

interface ServedWorker extends RunningWorker {
  url: string;
  pid: number;
  client: WorkerClient;
}

export interface TestBed {
  ours: WorkerClient & { pid: number };
  bare: Bare & { pid: number };
  engine: BedEngine;
  /** A directory for files that figures write; removed at the end. */
  directory: string;
  close(): Promise<void>;
}

export interface BedEngine extends RunningEngine {
  pid: number;
  secret: string;
}

export async function startBed(): Promise<TestBed> {
  const directory = mkdtempSync(join(tmpdir(), "sandbox-mcp-bench-"));
  const engine = await startEngine(directory);
  // With a key, the list of tools includes execute_task. No figure calls it, so the key is never used.
  const variables = { ANTHROPIC_API_KEY: "bench-unused-key" };
  const ours = await serve(CONFIGS.ours, engine, join(directory, "ours"), { variables });
  const bare = await serve(CONFIGS.bare, engine, join(directory, "bare"));
  return {
    ours: { ...ours.client, pid: ours.pid },
    bare: { ...bareClient(`${bare.url}/`), pid: bare.pid },
    engine,
    directory,
    async close() {
      closeClients();
      await Promise.all([ours.close(), bare.close()]);
      await engine.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export async function startEngine(directory: string, more: Partial<EngineSettings> = {}): Promise<BedEngine> {
  const secret = randomBytes(24).toString("base64url");
  const before = children().map(({ pid }) => pid);
  const engine = await startEngineProcess(
    {
      secret,
      network: "none",
      isolation: "bubblewrap",
      runDir: join(directory, "run"),
      isVerbose: false,
      ...more,
    },
    (line) => console.error(line),
    (reason) => console.error(`The engine ended: ${reason}`),
  );
  return { ...engine, secret, pid: newChild(before, /node/) };
}

/** Serves the Worker of a wrangler configuration, as `npm start` does. */
export async function serve(
  config: string,
  engine: BedEngine,
  stateDir: string,
  { inspector = false, variables = {} }: { inspector?: boolean; variables?: Record<string, string> } = {},
): Promise<ServedWorker> {
  mkdirSync(stateDir, { recursive: true });
  const before = children().map(({ pid }) => pid);
  const worker = await startWorker({
    config,
    port: 0,
    stateDir,
    variables: {
      SERVER_AUTH_TOKEN: TOKEN,
      // The figures measure the server's own speed, so quotas must not limit the calls.
      MAX_SANDBOXES: "10000",
      MAX_RUNNING_SANDBOXES: "10000",
      MAX_CONCURRENT_RUNS: "10000",
      MAX_RUN_SECONDS_PER_DAY: "100000000",
      LOCAL_ENGINE_URL: engine.url,
      LOCAL_ENGINE_SECRET: engine.secret,
      ...variables,
    },
    onLog: ({ level, message }) => {
      if (level === "error" || message.includes('"level":"error"')) console.error(message);
    },
    onDeath: () => console.error(`workerd of ${config} ended`),
    isVerbose: false,
    inspector,
  });
  const url = `http://127.0.0.1:${worker.port}`;
  const pid = newChild(before, /workerd serve /);
  return { ...worker, url, pid, client: workerClient(`${url}/mcp`, TOKEN) };
}

/** Finds a new child process by its program, because bundling also leaves a process of esbuild. */
function newChild(before: readonly number[], program: RegExp): number {
  const found = children().find(({ pid, command }) => !before.includes(pid) && program.test(command));
  if (!found) throw new Error("a process that was just started has ended");
  return found.pid;
}

function children(): Process[] {
  return tree(process.pid).filter(({ parent }) => parent === process.pid);
}
