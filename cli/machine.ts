/** The requirements of `npm start` and `npm run deploy`. */
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { runFile } from "../local/engine/host-programs.ts";
import { checkBubblewrap } from "../local/engine/check.ts";
import { findGroupParents, unlimited } from "../local/engine/limits.ts";
import { PACKAGES } from "../local/engine/python.ts";
import { notLimited } from "../local/engine/texts.ts";
import { quietWrangler, wranglerProgram } from "./bundle.ts";
import { type Check, failed, ok } from "./checks.ts";
import { freePort } from "./lock.ts";
import { isNewEnough, NEEDED_NODE } from "./node-version.ts";
import { isRunning, readRunning } from "./running.ts";
import { tmpdir } from "node:os";
import { isPackaged, root, startLine } from "./program-files.ts";
import { findPython } from "./sandbox-python.ts";
import { DEFAULT_PORT } from "./options.ts";

const TIMEOUT_MS = 20_000;

async function output(program: string, args: string[], env = process.env): Promise<string | undefined> {
  // wrangler must not run in the user's directory: a file `.env` there could set the address to which it sends its token.
  return runFile(program, args, { timeout: TIMEOUT_MS, env, cwd: root }).then(
    ({ stdout }) => stdout.trim(),
    () => undefined,
  );
}

/** Checks for a local server. @param port its port; by default that of the running server, or 8787 */
export function localChecks(stateDir: string, port?: number): Promise<Check[]> {
  return Promise.all([node(), bubblewrap(), limits(), python(stateDir), checkPort(stateDir, port)]);
}

export function deployChecks(): Promise<Check[]> {
  return Promise.all([docker(), wrangler()]);
}

function node(): Check {
  const { node: version } = process.versions;
  return isNewEnough()
    ? ok("Node", version)
    : failed("Node", version, `Install ${NEEDED_NODE}: https://nodejs.org`);
}

async function bubblewrap(): Promise<Check> {
  const name = "bubblewrap and user namespaces";
  const check = await checkBubblewrap();
  if (!check.works) return failed(name, check.reason, check.remedy);
  const version = (await output("bwrap", ["--version"])) ?? "works";
  return ok(name, version.replace(/^bubblewrap /, ""));
}

async function limits(): Promise<Check> {
  const name = "limits of memory and processor";
  const missing = unlimited(await findGroupParents());
  if (missing.length === 0) return ok(name, "enforced by control groups");
  return {
    name,
    verdict: "warning",
    found: notLimited(missing),
    fix: `With systemd: systemd-run --user --scope -p Delegate=yes ${startLine()}`,
  };
}

async function python(stateDir: string): Promise<Check> {
  const name = "Python and its libraries";
  const pythons = await findPython(stateDir);
  if (pythons === undefined)
    return { name, verdict: "warning", found: "no python3", fix: "Install python3 for code in Python." };
  const { first, other, isReady } = pythons;
  const used = isReady(first) ? first : (other ?? first);
  const found = `${used.version} at ${used.executable}`;
  if (isReady(used)) return ok(name, found);
  const missing = PACKAGES.filter(({ module }) => !first.modules.includes(module)).map(({ pip }) => pip);
  // Missing libraries are not a warning, because only code that imports them needs them. `start` reports its attempt to install
  // them.
  const hint = `${startLine()} installs the missing libraries for sandboxes: ${missing.join(", ")}`;
  return ok(name, `${found}; ${hint}`);
}

async function checkPort(stateDir: string, given?: number): Promise<Check> {
  const running = readRunning(stateDir);
  const serverPort = running && Number(new URL(running.url).port || 80);
  const port = given ?? serverPort ?? DEFAULT_PORT;
  const name = `port ${port}`;
  if (running && serverPort === port && isRunning(running))
    return ok(name, `in use by this server, process ${running.pid}`);
  return freePort(port).then(
    () => ok(name, serverPort === port ? "free: the server that listened here was killed" : "free"),
    () =>
      failed(
        name,
        "in use",
        `Stop the program that listens there, or use a free port: ${startLine("--port 0")}`,
      ),
  );
}

export async function docker(): Promise<Check> {
  const name = "Docker and its daemon";
  const client = await output("docker", ["--version"]);
  if (client === undefined) return failed(name, "not installed", "https://docs.docker.com/get-docker/");
  const daemon = await output("docker", ["info", "--format", "{{.ServerVersion}}"]);
  return daemon
    ? ok(name, daemon)
    : failed(name, `${client}, no daemon`, "Start it: sudo systemctl start docker");
}

async function wrangler(): Promise<Check> {
  const name = "wrangler and its login";
  if (isPackaged)
    return failed(name, "not part of the npm package", "Deploy from a clone, where npm ci installs it");
  const directory = await mkdtemp(join(tmpdir(), "sandbox-mcp-wrangler-"));
  const env = { ...process.env, ...quietWrangler(directory), WRANGLER_LOG: "log" };
  const account = await output(process.execPath, [wranglerProgram(), "whoami"], env);
  await rm(directory, { recursive: true, force: true });
  const { version } = createRequire(import.meta.url)("wrangler/package.json") as { version: string };
  if (account === undefined || /not (authenticated|logged in)/i.test(account))
    return failed(name, `${version}, not logged in`, "npx wrangler login");
  // An API token has permissions instead of scopes, and wrangler cannot list them.
  if (/OAuth Token/i.test(account) && !account.includes("containers"))
    return failed(name, `${version}, without containers:write`, "npx wrangler login");
  return ok(name, `${version}, logged in`);
}
