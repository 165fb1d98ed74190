/** `npm start`: the whole server on this machine. */
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  readFileSync,
  statfsSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { delimiter, dirname, join, resolve } from "node:path";
import { attempt } from "../container/sandboxd/file-error.ts";
import { prepareAgent } from "../local/engine/agent-packages.ts";
import { printable } from "../local/engine/printable.ts";
import { findToolchain } from "../local/engine/toolchain.ts";
import { makeDirectories } from "./make-directories.ts";
import { announce, announcementData, panelURL } from "./announce.ts";
import { type RunningEngine, startEngineProcess } from "./engine-process.ts";
import { EXIT, type ExitName, onStopSignals, UserError } from "./exit.ts";
import { freePort, lockDirectory } from "./lock.ts";
import { type Mounts, readComponents, readMounts, removeMounts, writableMountOf } from "./mount-option.ts";
import { readOptions, USAGE } from "./options.ts";
import { watchNPM } from "./parents.ts";
import { PACKAGE_PROGRAM, defaultStateDir, isPackaged, root, variablesFile } from "./program-files.ts";
import { requireBubblewrap, requireLinux, requirePlaces } from "./requirements.ts";
import { failure, failureOf, json } from "./print.ts";
import { type PythonSetup, setUpPython } from "./sandbox-python.ts";
import { whyNotServing } from "./ready.ts";
import { forgetRunning, noteRunning } from "./running.ts";
import { forgetVariables, readVariables } from "./dev-vars.ts";
import { saveWorkspaces } from "./save-workspaces.ts";
import { DATA, ENGINE_SOCKET, OBJECTS, type LogLine, type RunningWorker, startWorker } from "./run-worker.ts";
import * as texts from "./texts.ts";

/** About how many bytes the server writes before its first call. workerd's configuration, with the Worker, has 2.8 MB. */
const NEEDED_BYTES = 6 * 1024 * 1024;

/** The version of the data in the state directory. */
const STATE_VERSION = "1";

const print = (line: string) => process.stderr.write(`${line}\n`);

/** Whether the document of --json must still be printed. */
let needsJSONResult = process.argv.slice(2).includes("--json");

let engine: RunningEngine | undefined;
let worker: RunningWorker | undefined;
let python: PythonSetup | undefined;
let ending: Promise<never> | undefined;

/** Saves all workspaces until the signal aborts; set when the Worker listens. */
let save: ((signal: AbortSignal) => Promise<void>) | undefined;
/** Removes the file with the server's address; set when the file is written. */
let forget: (() => void) | undefined;
const stopAtOnce = new AbortController();

/** Saves all workspaces, and ends the Worker, the engine with every sandbox, and this process. */
function end(kind: ExitName, message?: string): Promise<never> {
  ending ??= (async () => {
    if (needsJSONResult && message !== undefined) failure(kind, message, true);
    else if (message !== undefined) print(message);
    forget?.();
    python?.stop();
    await save?.(stopAtOnce.signal);
    await worker?.close().catch(() => undefined);
    await engine?.close();
    process.exit(EXIT[kind]);
  })();
  return ending;
}

async function start(): Promise<void> {
  // npm changes to the package's directory. INIT_CWD is the user's directory.
  const cwd = process.env.INIT_CWD ?? process.cwd();
  const options = readOptions(process.argv.slice(2), process.env, cwd);
  if (options === undefined) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  const { stateDir, isVerbose } = options;
  requireLinux(process.platform);
  makeStateDirectory(stateDir);
  const mounts = await readMounts(options.mounts, options.cwd, [stateDir, root]);
  if (mounts.forEngine.length > 0 && options.isolation === "none") throw texts.mountNeedsIsolation();
  requireUnwritable(mounts, "--python", options.python);
  requireUnwritable(mounts, "node", process.execPath);
  // Node has already read NODE_PATH, so changing it here would have no effect.
  for (const place of (process.env.NODE_PATH ?? "").split(delimiter).filter(Boolean))
    requireUnwritable(mounts, "NODE_PATH", resolve(place));
  avoidMounts(mounts, stateDir);
  const socket = join(stateDir, ENGINE_SOCKET);
  await lockDirectory(stateDir, socket);
  requireOwnVersion(stateDir);
  // Checked first, so that a port in use is reported before anything is set up.
  await freePort(options.port);
  const bubblewrap = options.isolation === "bubblewrap" ? await requireBubblewrap(print) : undefined;
  if (bubblewrap === undefined) await requirePlaces(join(root, "container"));

  onStopSignals(
    () => end("succeeded"),
    () => stopAtOnce.abort(),
  );
  watchNPM(process.env, () => void end("failed", texts.ENDING.parent));

  const file = variablesFile(process.env);
  const { values, token, tokenSource } = readVariables(process.env, file);
  forgetVariables(process.env);
  const { COMPONENTS } = values;
  const components = COMPONENTS?.trim() ? readComponents(COMPONENTS, cwd) : undefined;
  // Checks the path as given, because it may go through a link in a mounted directory.
  requireUnwritable(mounts, "COMPONENTS", components && resolve(cwd, COMPONENTS?.trim() ?? ""));
  delete values.COMPONENTS;
  if (options.isolation === "none" && values.SECRETS?.trim()) {
    print(texts.SECRETS_UNUSED);
    delete values.SECRETS;
  }
  // Without isolation there is no proxy to add the credentials of git hosts.
  if (options.isolation === "none") values.GIT_SIGN_IN = "off";
  const agents = agentsDirectory(stateDir);
  if (options.agents) await fetchAgents(agents);
  const settingUp = setUpPython(options.python, stateDir, print).then((found) => (python = found));
  const secret = randomBytes(32).toString("base64url");
  const starting = startEngineProcess(
    settingUp.then((found) => ({
      secret,
      socket,
      network: options.network,
      isolation: options.isolation,
      bubblewrap,
      runDir: join(stateDir, "run"),
      objects: join(stateDir, OBJECTS),
      directories: mounts.forEngine,
      agents,
      python: found.python,
      pythonPackages: found.packages,
      // Set even if no secret is configured, because somebody may sign in to a git host while the server runs.
      authority: options.isolation === "none" ? undefined : join(stateDir, "authority"),
      isVerbose,
    })),
    print,
    (reason) => {
      save = undefined;
      void end("failed", texts.ENDING.engine(reason));
    },
  );
  const variables = starting.then((started) => ({
    ...values,
    LOCAL_ENGINE_URL: started.url,
    LOCAL_ENGINE_SECRET: secret,
    LOCAL_TOKEN_COMMAND: isPackaged ? `${PACKAGE_PROGRAM} token show` : "npm run token",
    LOCAL_DIRECTORIES: mounts.forEngine.map(({ name }) => name).join(),
    MOUNTED_DIRECTORIES: JSON.stringify(mounts.forWorker),
    // Without isolation all sandboxes share the host's /workspace.
    ...(options.isolation === "none" ? { WORKSPACE_SAVE: "off" } : {}),
    ...(options.isolation !== "none" && options.network === "none" ? { MAX_INTERNET: "none" } : {}),
  }));
  // Promise.all below reports the error; this prevents an unhandled rejection.
  variables.catch(() => undefined);
  // The engine starts while the Worker is read and miniflare is loaded.
  const [startedEngine, startedWorker] = await Promise.all([
    starting.then((started) => (engine = started)),
    startWorker({
      config: join(root, "wrangler.local.jsonc"),
      port: options.port,
      stateDir,
      variables,
      components,
      onLog: (line) => showLog(line, isVerbose),
      onRestart: () => print(texts.WORKERD_RESTARTED),
      onDeath: () => {
        save = undefined;
        void end("failed", texts.ENDING.workerd);
      },
      isVerbose,
    }).then((started) => (worker = started)),
  ]);
  if (startedEngine.python === undefined) print(texts.NO_PYTHON);
  const url = `http://127.0.0.1:${startedWorker.port}/mcp`;

  save = (signal) => saveWorkspaces(url, secret, signal, print, socket);
  const problem = await whyNotServing(url, token);
  if (problem !== undefined) throw new UserError(problem);
  const writable = mounts.forEngine.flatMap(({ from, isWritable }) => (isWritable ? from : []));
  noteRunning(stateDir, url, writable);
  forget = () => forgetRunning(stateDir);
  const announcement = { url, token, tokenSource, file, mounts: mounts.forWorker };
  if (options.json) {
    needsJSONResult = false;
    json(true, announcementData(announcement));
  } else process.stdout.write(announce({ ...announcement, showsToken: process.stdout.isTTY, isVerbose }));
  if (options.open) showInBrowser(panelURL(url));
  if (options.isolation === "bubblewrap")
    void python?.complete((executable) => engine?.usePython(executable));
}

/**
 * The directory of the coding agents for local sandboxes. All servers of a clone or user share it, because agents are large. If it
 * is not writable, the server's own directory is used.
 */
function agentsDirectory(stateDir: string): string {
  const shared = join(defaultStateDir(process.env), "agents");
  return attempt(() => (makeDirectories(shared, 0o755), shared), join(stateDir, "agents"));
}

/** @throws {UserError} that says what to do */
async function fetchAgents(agents: string): Promise<void> {
  try {
    print(texts.agentReady(await prepareAgent("claude-code", await findToolchain(null), agents, print)));
  } catch (error) {
    throw texts.agentNotReady(error);
  }
}

/** Makes this process use no programs, modules or settings in directories to which a sandbox can write. */
function avoidMounts(mounts: Mounts, stateDir: string): void {
  const cwd = process.cwd();
  const removed = removeMounts(process.env, mounts, cwd);
  for (const place of removed.filter((one) => existsSync(one))) print(texts.placeIgnored(place));
  if (writableMountOf(mounts, cwd) !== undefined) process.chdir(stateDir);
}

/** @throws {UserError} if a sandbox could change a file that the server uses outside the sandbox */
function requireUnwritable(mounts: Mounts, setting: string, path: string | undefined): void {
  const mounted = path === undefined ? undefined : writableMountOf(mounts, path);
  if (path !== undefined && mounted !== undefined) throw texts.usedInMount(setting, path, mounted);
}

/** @throws {UserError} if the directory cannot be written, its disk is full, or a chosen directory's parent does not exist */
function makeStateDirectory(stateDir: string): void {
  const isChosen = stateDir !== defaultStateDir(process.env);
  if (isChosen && !existsSync(dirname(stateDir))) throw texts.noParentDirectory(dirname(stateDir), stateDir);
  try {
    makeDirectories(stateDir, 0o700);
    makePrivate(stateDir);
    accessSync(stateDir, constants.W_OK | constants.X_OK);
  } catch (error) {
    throw texts.stateDirectoryUnwritable(stateDir, error);
  }
  const { bavail, bsize } = statfsSync(stateDir);
  if (bavail * bsize < NEEDED_BYTES) throw texts.stateDirectoryFull(stateDir);
}

/** @throws {UserError} if the state directory has data of another version */
function requireOwnVersion(stateDir: string): void {
  const file = join(stateDir, "version");
  const data = join(stateDir, DATA);
  if (!existsSync(data)) return writeFileSync(file, STATE_VERSION);
  const version = attempt(() => readFileSync(file, "utf8"), "");
  if (version !== STATE_VERSION) throw texts.otherStateVersion(stateDir, data);
}

/**
 * Makes the state directory private, because an earlier program may have made it with other rights. If the
 * directory belongs to another user, as a container's volume often does, or is shared (sticky bit), such as /tmp, only prints a
 * warning.
 */
function makePrivate(stateDir: string): void {
  const { mode, uid } = statSync(stateDir);
  const isOwn = uid === process.getuid?.();
  if (isOwn && (mode & 0o077) === 0) return;
  const isShared = (mode & 0o1000) !== 0;
  if (!isOwn || isShared) return void print(texts.openToOthers(stateDir, uid));
  chmodSync(stateDir, 0o700);
  print(texts.closedToOthers(stateDir));
}

/** Opens the address on this desktop. The address is also printed, for machines without a desktop. */
function showInBrowser(url: string): void {
  const opener = spawn("xdg-open", [url], { stdio: "ignore", detached: true });
  opener.once("error", () => print(texts.noBrowser(url)));
  opener.unref();
}

/** Prints every line with --verbose; otherwise only the Worker's unexpected errors, to which callers get a reference. */
function showLog({ level, message }: LogLine, isVerbose: boolean): void {
  if (isVerbose) print(printable(level === "error" ? `workerd: ${message}` : message));
  else if (/^\{.*"event":"error"/.test(message)) print(printable(message));
}

try {
  await start();
} catch (error) {
  const showsStack = process.argv.includes("--verbose") || undefined;
  await end(...failureOf(error, "failed", showsStack));
}
