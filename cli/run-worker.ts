/**
 * Runs the Worker in workerd, through miniflare: clients connect to the Worker's own socket. `wrangler dev` would run a proxy in a
 * second workerd, and serve every R2 bucket without a token under /cdn-cgi/.
 */
import { execFileSync } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type * as MiniflareModule from "miniflare";
import { bundle, quietWrangler } from "./bundle.ts";
import { STOP_SIGNALS } from "./exit.ts";
import { shrinkDatabases } from "./shrink-databases.ts";
import { refuseStrangers } from "./refuse-strangers.ts";

interface WorkerOptions {
  config: string;
  /** 0 for any free port. */
  port: number;
  stateDir: string;
  /**
   * Values that are not empty replace the values of the configuration file. May be a promise; everything else is prepared while
   * it resolves.
   */
  variables: Record<string, string> | Promise<Record<string, string>>;
  /** The folder of definitions for tasks: see `COMPONENTS_FOLDER`. */
  components?: string | undefined;
  onLog: (line: LogLine) => void;
  /** Called when workerd has ended unexpectedly and was started again. By default, `onDeath` is called. */
  onRestart?: () => void;
  /** Called if workerd ends unexpectedly and cannot be started again, or ends too often. */
  onDeath: () => void;
  isVerbose: boolean;
  /** For measurements: whether V8's inspector listens on loopback. */
  inspector?: boolean;
}

export interface LogLine {
  level: string;
  message: string;
}

export interface RunningWorker {
  port: number;
  inspectorPort: number | undefined;
  /** Resolves when workerd is gone. */
  close(): Promise<void>;
}

/** The engine's socket in the state directory. Tests and measurements use a port instead. */
export const ENGINE_SOCKET = "engine.sock";

/** What the Worker stores, in the state directory. */
export const DATA = "data";
/** The directory of the objects, in the state directory. */
export const OBJECTS = `${DATA}/objects`;

/** If workerd ends more than MAX_RESTARTS times within RESTARTS_MS, the server ends, because the next workerd would end too. */
const MAX_RESTARTS = 5;
const RESTARTS_MS = 600_000;

/** The limit of open files for workerd, if the server may set it. */
const OPEN_FILES = 524_288;

/** Starts the Worker; resolves when workerd listens. @throws Error with the problem */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const buildDirectory = join(options.stateDir, "build");
  // Without this, wrangler reports on standard output that it reads .dev.vars.
  Object.assign(process.env, quietWrangler(buildDirectory));
  const { modules, settings } = await bundle(options.config, buildDirectory);

  const { Miniflare, convertV4MiniflareOptions, Log, LogLevel } = load();
  const restoreServers = refuseStrangers();
  const { name, vars, worker } = settings;
  const variables = await options.variables;
  const data = join(options.stateDir, DATA);
  const objects = join(options.stateDir, OBJECTS);
  await mkdir(objects, { recursive: true });
  shrinkDatabases(data);
  const openFiles = maxOpenFiles();
  const setVariables = Object.entries(variables).filter(([, value]) => value.trim() !== "");

  let isClosing = false;
  const endings: number[] = [];
  const onDeath = () => {
    if (!isClosing) options.onDeath();
  };
  /** miniflare reports a failed restart only here. */
  class RestartLog extends Log {
    override error(error: Error): void {
      super.error(error);
      if ("code" in error && error.code === "ERR_RUNTIME_FAILURE") onDeath();
    }
  }
  const earlierListeners = listeners();
  const instance = new Miniflare(
    convertV4MiniflareOptions({
      host: "127.0.0.1",
      port: 0,
      inspectorPort: options.inspector ? 0 : undefined,
      // Otherwise miniflare would download values for `request.cf`.
      cf: false,
      telemetry: { enabled: false },
      log: new RestartLog(options.isVerbose ? LogLevel.WARN : LogLevel.NONE),
      resourcePersistencePath: data,
      unsafeRuntimeEnv: { SANDBOX_MCP_STATE: options.stateDir, SANDBOX_MCP_OPEN_FILES: openFiles },
      handleStructuredLogs: ({ level, message }) => options.onLog({ level, message }),
      // miniflare has started workerd again, at the same address.
      unsafeHandleRuntimeRestart: () => {
        if (isClosing) return;
        endings.push(Date.now());
        if (endings.length > MAX_RESTARTS && Date.now() - Number(endings.shift()) < RESTARTS_MS) onDeath();
        else (options.onRestart ?? options.onDeath)();
      },
      workers: [
        {
          ...worker,
          name,
          modules,
          modulesRoot: dirname(modules[0]?.path ?? buildDirectory),
          bindings: { ...vars, ...Object.fromEntries(setVariables), LOCAL_OPEN_FILES: openFiles },
          serviceBindings: {
            ...Object(worker.serviceBindings),
            ...engineService(variables.LOCAL_ENGINE_URL),
            ...folderService("COMPONENTS_FOLDER", options.components),
            ...folderService("OBJECTS_FOLDER", objects, { writable: true }),
          },
          unsafeDirectSockets: [{ host: "127.0.0.1", port: options.port }],
        },
      ],
    }),
  );
  // miniflare's own listeners are removed: they would exit before everything is saved.
  for (const [signal, listener] of listeners()) {
    if (!earlierListeners.some(([, other]) => other === listener)) process.off(signal, listener);
  }
  const close = async () => {
    isClosing = true;
    await instance.dispose();
  };
  try {
    // workerd binds a free port and reports it. A port that was found free earlier may be in use now.
    const port = Number((await instance.unsafeGetDirectURL(name)).port);
    restoreServers();
    const inspectorPort = options.inspector ? Number((await instance.getInspectorURL()).port) : undefined;
    return { port, inspectorPort, close };
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
}

/** The binding to the engine: see `LocalEnv`. `workerd.sh` starts workerd in the state directory, which has the socket. */
function engineService(url: string | undefined) {
  if (url === undefined) return {};
  const { host, port } = new URL(url);
  const address = port === "" ? `unix:${ENGINE_SOCKET}` : host;
  return { LOCAL_ENGINE: { external: { address, http: {} } } };
}

function folderService(binding: string, path: string | undefined, { writable = false } = {}) {
  return path === undefined ? {} : { [binding]: { disk: { path, writable } } };
}

function listeners(): [NodeJS.Signals, NodeJS.SignalsListener][] {
  return STOP_SIGNALS.flatMap((signal) =>
    process.listeners(signal).map((listener): [NodeJS.Signals, NodeJS.SignalsListener] => [signal, listener]),
  );
}

/** The limit of open files that `workerd.sh` can set. */
function maxOpenFiles(): string {
  return execFileSync("sh", ["-c", `ulimit -n ${OPEN_FILES} 2>/dev/null; ulimit -n`], {
    encoding: "utf8",
  }).trim();
}

/** miniflare with its workerd, started through workerd.sh. */
function load(): typeof MiniflareModule {
  const require = createRequire(import.meta.url);
  const workerd: { default: string } = createRequire(require.resolve("miniflare"))("workerd");
  process.env.SANDBOX_MCP_WORKERD = workerd.default;
  process.env.MINIFLARE_WORKERD_PATH = fileURLToPath(new URL("workerd.sh", import.meta.url));
  return require("miniflare");
}
