/**
 * The Worker in workerd, through miniflare.
 *
 * `wrangler dev` is not used: it puts a proxy in a second workerd before the Worker, and serves every R2 bucket without a
 * token under /cdn-cgi/. Here clients connect to the Worker's own socket.
 */
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type * as MiniflareModule from "miniflare";
import { bundle, quietWrangler } from "./bundle.ts";

export interface WorkerOptions {
  /** The wrangler configuration file. */
  config: string;
  /** 0 for any that is free. */
  port: number;
  stateDir: string;
  /** Variables and secrets. They replace those of the configuration file unless they are empty. */
  variables: Record<string, string>;
  /** The folder of definitions for tasks: see `COMPONENTS_FOLDER`. */
  components?: string | undefined;
  /** Called with each line the Worker and workerd print. */
  onLog: (line: LogLine) => void;
  /** Called when workerd ends without having been closed. */
  onDeath: () => void;
  verbose: boolean;
  /** For measurements: whether V8's inspector listens on loopback. */
  inspector?: boolean;
}

export interface LogLine {
  level: string;
  message: string;
}

export interface RunningWorker {
  /** The port that it listens on. */
  port: number;
  /** That of V8's inspector; undefined where it was not asked for. */
  inspectorPort: number | undefined;
  /** Kills workerd and resolves when it is gone. */
  close(): Promise<void>;
}

/** Starts the Worker; resolves when workerd listens. @throws Error with what went wrong */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const buildDirectory = join(options.stateDir, "build");
  // wrangler says otherwise that it reads .dev.vars, on standard output.
  Object.assign(process.env, quietWrangler(buildDirectory));
  const { modules, settings } = await bundle(options.config, buildDirectory);

  const { Miniflare, convertV4MiniflareOptions, Log, LogLevel } = load();
  const { name, vars, worker } = settings;
  const given = Object.entries(options.variables).filter(([, value]) => value.trim() !== "");

  let closing = false;
  const others = listeners();
  const instance = new Miniflare(
    convertV4MiniflareOptions({
      host: "127.0.0.1",
      port: 0,
      inspectorPort: options.inspector ? 0 : undefined,
      // miniflare would fetch it from the internet.
      cf: false,
      telemetry: { enabled: false },
      log: new Log(options.verbose ? LogLevel.WARN : LogLevel.NONE),
      resourcePersistencePath: join(options.stateDir, "data"),
      handleStructuredLogs: ({ level, message }) => options.onLog({ level, message }),
      // miniflare has started another workerd by now, but this server ends: its user decides whether to restart it.
      unsafeHandleRuntimeRestart: () => {
        if (!closing) options.onDeath();
      },
      workers: [
        // The first gets miniflare's own port, where headers of miniflare's (MF-Original-URL) say which host was called.
        { name: "nobody", modules: true, script: EMPTY_WORKER },
        {
          ...worker,
          name,
          modules,
          modulesRoot: dirname(modules[0]?.path ?? buildDirectory),
          bindings: { ...vars, ...Object.fromEntries(given) },
          serviceBindings: {
            ...Object(worker.serviceBindings),
            ...engineService(options.variables.LOCAL_ENGINE_URL),
            ...folderService(options.components),
          },
          unsafeDirectSockets: [{ host: "127.0.0.1", port: options.port }],
        },
      ],
    }),
  );
  // miniflare would exit the process on a signal, before anything could end in order.
  for (const [signal, listener] of listeners()) {
    if (!others.some(([, other]) => other === listener)) process.off(signal, listener);
  }
  const close = async () => {
    closing = true;
    await instance.dispose();
  };
  try {
    // workerd binds any port and says which: one that was looked for before might be taken by now.
    const port = Number((await instance.unsafeGetDirectURL(name)).port);
    const inspectorPort = options.inspector ? Number((await instance.getInspectorURL()).port) : undefined;
    return { port, inspectorPort, close };
  } catch (error) {
    await close().catch(() => undefined);
    throw error;
  }
}

/** The binding by which the Worker reaches the engine: see `LocalEnv`. */
function engineService(url: string | undefined) {
  return url === undefined ? {} : { LOCAL_ENGINE: { external: { address: new URL(url).host, http: {} } } };
}

function folderService(path: string | undefined) {
  return path === undefined ? {} : { COMPONENTS_FOLDER: { disk: { path, writable: false } } };
}

/** A Worker that serves nothing. */
const EMPTY_WORKER = "export default { fetch: () => new Response(null, { status: 404 }) };";

function listeners(): [NodeJS.Signals, NodeJS.SignalsListener][] {
  const signals: NodeJS.Signals[] = ["SIGINT", "SIGTERM", "SIGHUP"];
  return signals.flatMap((signal) =>
    process.listeners(signal).map((listener): [NodeJS.Signals, NodeJS.SignalsListener] => [signal, listener]),
  );
}

/** miniflare and its workerd, which is started through workerd.sh. */
function load(): typeof MiniflareModule {
  const require = createRequire(import.meta.url);
  const workerd: { default: string } = createRequire(require.resolve("miniflare"))("workerd");
  process.env.SANDBOX_MCP_WORKERD = workerd.default;
  process.env.MINIFLARE_WORKERD_PATH = fileURLToPath(new URL("workerd.sh", import.meta.url));
  return require("miniflare");
}
