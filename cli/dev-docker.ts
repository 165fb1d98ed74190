/** `npm run dev:docker`: the production configuration on this machine, with its sandboxes in Docker. */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, mkdirSync } from "node:fs";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { bundleSandboxd, imageBundle } from "../scripts/bundle-sandboxd.ts";
import { announce } from "./announce.ts";
import { quietWrangler } from "./bundle.ts";
import { onStopSignals } from "./exit.ts";
import { root, variablesFile } from "./program-files.ts";
import { whyNotServing } from "./ready.ts";
import { saveWorkspaces } from "./save-workspaces.ts";
import { readVariables } from "./dev-vars.ts";
import { NO_DOCKER, tokenOnlyInFile } from "./texts.ts";

const port = process.env.PORT?.trim() || "8787";

if (spawnSync("docker", ["info"], { stdio: "ignore" }).status !== 0) {
  console.error(NO_DOCKER);
  process.exit(1);
}

// The image's build copies this bundle.
await bundleSandboxd(imageBundle);

// wrangler does not pass this process's environment to the Worker: variables are in .dev.vars.
const file = variablesFile(process.env);
const { values, token, tokenSource } = readVariables({}, file);
const givenToken = process.env.SERVER_AUTH_TOKEN?.trim();
if (givenToken && givenToken !== token) {
  console.error(tokenOnlyInFile(file));
  process.exit(1);
}

// When the Worker gets a request with this secret, it saves all workspaces.
const secret = randomUUID();
const variables = {
  STOP_SECRET: secret,
  // As in wrangler.local.jsonc, because the server would fetch client metadata documents from inside the user's network.
  ...(values.OAUTH_CLIENT_METADATA?.trim() ? {} : { OAUTH_CLIENT_METADATA: "off" }),
};
// wrangler stores all data here, also the tokens of git hosts, in files that every user could read.
const stateDir = join(root, ".wrangler");
mkdirSync(stateDir, { recursive: true });
chmodSync(stateDir, 0o700);
const worker = join(import.meta.dirname, "run-docker-worker.ts");
const env = {
  ...process.env,
  ...quietWrangler(stateDir),
  WRANGLER_LOG: "log",
  // wrangler's page about the stored data requires no token. It shows, for example, the tokens of git hosts. With Docker Desktop,
  // code in a sandbox reaches it by host.docker.internal.
  X_LOCAL_EXPLORER: "false",
  X_LOCAL_OBSERVABILITY: "false",
  WORKER_VARIABLES: JSON.stringify(variables),
};
// Ctrl-C reaches the terminal's whole process group. wrangler gets a separate group, so that it runs until everything is saved.
const child = spawn(process.execPath, [worker, port], {
  cwd: root,
  stdio: ["ignore", "inherit", "inherit"],
  detached: true,
  env,
});
const exited = once(child, "exit");
const url = `http://127.0.0.1:${port}/mcp`;
const print = (line: string) => void process.stderr.write(`${line}\n`);
const secondSignal = new AbortController();
let stopping: Promise<unknown> | undefined;
onStopSignals(
  () =>
    (stopping ??= saveWorkspaces(url, secret, secondSignal.signal, print).then(() => child.kill("SIGTERM"))),
  () => secondSignal.abort(),
);
// Ends wrangler too, because wrangler does not notice the end of this process.
process.on("exit", () => child.kill("SIGTERM"));

// The first start builds the image, which takes minutes.
while (child.exitCode === null && child.signalCode === null) {
  const problem = await whyNotServing(url, token).catch(() => "nothing responds");
  if (problem === undefined) {
    process.stdout.write(
      announce({
        url,
        token,
        tokenSource,
        file,
        showsToken: process.stdout.isTTY,
        isVerbose: false,
        mounts: [],
      }),
    );
    break;
  }
  await pause(1000);
}

const [code] = await exited;
removeInterceptors();
process.exit(typeof code === "number" ? code : 1);

/**
 * Removes the interceptors of sandboxes that have ended. workerd starts one beside each container, under its name with `-proxy`, and
 * wrangler removes only the containers of the image (https://github.com/cloudflare/workers-sdk/issues/14242).
 */
function removeInterceptors(): void {
  const list = ["ps", "--all", "--filter", "name=workerd-sandbox-mcp-", "--format", "{{.Names}}"];
  const { stdout } = spawnSync("docker", list, { encoding: "utf8" });
  const names = (stdout ?? "").split("\n");
  const left = names.filter(
    (name) => name.endsWith("-proxy") && !names.includes(name.slice(0, -"-proxy".length)),
  );
  if (left.length > 0) spawnSync("docker", ["rm", "--force", ...left], { stdio: "ignore" });
}
