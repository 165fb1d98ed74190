/**
 * The whole Worker on loopback with OAuth on, like `npm start`, but without the engine, because these tests need no
 * sandbox.
 */
import { fileURLToPath } from "node:url";
import { startWorker } from "../../cli/run-worker.ts";
import { doLater } from "./end-later.ts";
import { temporaryDirectory } from "./temporary.ts";

export const OWNER_TOKEN = "owner-token-of-the-test";

const config = fileURLToPath(new URL("../../wrangler.local.jsonc", import.meta.url));

export interface OAuthServer {
  origin: string;
  /** The log so far, one parsed entry for each line. */
  logs(): Record<string, unknown>[];
}

/**
 * Starts the server with the owner's token and these variables, until the time that `doLater` chooses. An empty variable counts as
 * unset.
 */
export async function startOAuthServer(variables: Record<string, string> = {}): Promise<OAuthServer> {
  const lines: string[] = [];
  const worker = await startWorker({
    config,
    port: 0,
    stateDir: temporaryDirectory(),
    variables: {
      SERVER_AUTH_TOKEN: OWNER_TOKEN,
      LOCAL_ENGINE_URL: "http://127.0.0.1:9",
      LOCAL_ENGINE_SECRET: "none",
      LOCAL_TOKEN_COMMAND: "npm run token",
      ...variables,
    },
    onLog: ({ message }) => void lines.push(message),
    onDeath: () => void lines.push('{"event":"death"}'),
    isVerbose: false,
  });
  doLater(() => worker.close());
  return {
    origin: `http://127.0.0.1:${worker.port}`,
    logs: () => lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line)),
  };
}
