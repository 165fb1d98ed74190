/** The parts of `npm start` with settings that it has no flag for. The Worker is started by this process. */
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { startEngineProcess } from "../../cli/engine-process.ts";
import { type LogLine, startWorker } from "../../cli/run-worker.ts";
import type { EngineSettings } from "../../local/engine/engine-settings.ts";
import { python, repository, TOKEN } from "./server.ts";
import { temporaryDirectory } from "./temporary.ts";

interface PartsOptions {
  engine?: Partial<EngineSettings>;
  variables?: Record<string, string>;
  /** Returns the URL by which the Worker reaches the engine, for example that of a proxy. By default it is the engine's URL. */
  engineURLFor?: (url: string) => Promise<string>;
  onLog?: (line: LogLine) => void;
  /** Called if a part ends unexpectedly, with its name. */
  onDeath?: (part: string) => void;
  /** Whether V8's inspector listens. */
  inspector?: boolean;
}

interface Parts {
  /** The address for MCP. */
  url: string;
  inspectorPort: number | undefined;
  close(): Promise<void>;
}

export async function startParts(options: PartsOptions = {}): Promise<Parts> {
  const { engineURLFor = async (url) => url, onLog = () => undefined, onDeath = () => undefined } = options;
  const stateDir = temporaryDirectory();
  const secret = randomBytes(32).toString("base64url");
  const engine = await startEngineProcess(
    {
      secret,
      network: "none",
      isolation: "bubblewrap",
      runDir: join(stateDir, "run"),
      isVerbose: false,
      // A prepared sandbox has a Python kernel, which most sandboxes of the tests do not need.
      prepareSandbox: false,
      ...(python === undefined ? {} : { python }),
      ...options.engine,
    },
    () => undefined,
    (reason) => onDeath(`engine: ${reason}`),
  );
  const worker = await startWorker({
    config: join(repository, "wrangler.local.jsonc"),
    port: 0,
    stateDir,
    variables: {
      SERVER_AUTH_TOKEN: TOKEN,
      LOCAL_ENGINE_URL: await engineURLFor(engine.url),
      LOCAL_ENGINE_SECRET: secret,
      MAX_RUNNING_SANDBOXES: "1000",
      ...options.variables,
    },
    onLog,
    onDeath: () => onDeath("workerd"),
    isVerbose: false,
    inspector: options.inspector ?? false,
  });
  return {
    inspectorPort: worker.inspectorPort,
    url: `http://127.0.0.1:${worker.port}/mcp`,
    async close() {
      await worker.close();
      await engine.close();
    },
  };
}
