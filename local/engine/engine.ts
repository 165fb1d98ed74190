/** The local container platform: starts sandboxes, forwards requests to them, and controls their network access. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { statSync } from "node:fs";
import { chmod, mkdir, writeFile, rm, statfs } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { dirname, join } from "node:path";
import type { AddressInfo } from "node:net";
import { withShortPath } from "./host-files.ts";
import { printable } from "./printable.ts";
import { claimIDsFor } from "./host-directories.ts";
import { bundleControlServer, bundleSandboxd } from "../../scripts/bundle-sandboxd.ts";
import { Router } from "./router.ts";
import { CertificateAuthority } from "./authority.ts";
import { hostCertificates, trustedFiles } from "./certificates.ts";
import { type Check, checkBubblewrap } from "./check.ts";
import { warmCompileCache, type Warming } from "./compile-cache.ts";
import { sandboxEnvironment, sandboxFiles } from "./rootfs-files.ts";
import { endLeftovers, markEngine } from "./leftovers.ts";
import {
  createEngineGroups,
  defaultLimits,
  findGroupParents,
  processesWithin,
  removeGroups,
  unlimited,
} from "./limits.ts";
import { checkMemory } from "./memory-check.ts";
import { syncFile } from "./durable.ts";
import { drainAfter } from "./request-ends.ts";
import { readOnlyMounts, type Mount, type View } from "./bubblewrap.ts";
import type { SharedSettings } from "./engine-sandbox.ts";
import { describePython, environmentFiles } from "./python.ts";
import { hostRegistries, registryAddresses } from "./registries.ts";
import { MountNamespace } from "./mount-namespace.ts";
import { SandboxRegistry } from "./running-sandboxes.ts";
import type { EngineSettings } from "./engine-settings.ts";
import { repository } from "./own-files.ts";
import { prepareAgent, programsOf } from "./agent-packages.ts";
import { findToolchain, type Toolchain } from "./toolchain.ts";
import { MACHINE, NOT_ISOLATED, notLimitedWarning } from "./texts.ts";

export interface EngineOptions extends EngineSettings {
  /** Tests only: where to look for bubblewrap. */
  path?: string;
  log?: (line: string) => void;
}

export interface Engine {
  url: string;
  /** A random id of this engine. */
  boot: string;
  /** `dropsRoot`: whether an engine running as root runs its sandboxes as an unprivileged user. */
  report: { dropsRoot: boolean; python: string | undefined };
  usePython(path: string): Promise<void>;
  close(): Promise<void>;
}

/** Starts an engine. @throws Error with reason and remedy if the requested isolation is impossible */
export async function startEngine(options: EngineOptions): Promise<Engine> {
  const sink = options.log ?? ((line: string) => process.stderr.write(`${line}\n`));
  const log = (line: string) => void sink(printable(line));
  if (options.secret.length < 16) throw new Error(MACHINE.shortSecret);
  const check =
    options.isolation === "bubblewrap"
      ? (givenCheck(options) ?? (await checkBubblewrap(options.path)))
      : undefined;
  if (check?.works === false) throw new Error(`${check.reason}. ${check.remedy}`);
  if (check === undefined) for (const line of NOT_ISOLATED) log(line);
  const boot = randomBytes(8).toString("hex");
  const groupParents = await findGroupParents();
  const freely = unlimited(groupParents);
  if (check !== undefined && freely.length > 0) log(notLimitedWarning(freely));
  await endLeftovers(options.runDir, groupParents);
  const directory = join(options.runDir, boot);
  await mkdir(directory, { mode: 0o711 });
  await chmod(directory, 0o711);
  await markEngine(directory);

  const hostPEM = hostCertificates();
  const authority =
    options.authority === undefined ? undefined : await CertificateAuthority.open(options.authority);
  const registries = hostRegistries();
  const toolchain = await findToolchain(options.python);
  const files = join(directory, "files");
  const generated = await writeFiles(files, sandboxFiles(trustedFiles(hostPEM, authority?.pem), registries));
  let pythons = 0;
  const pythonFiles = async ({ python }: Toolchain) =>
    python === undefined
      ? []
      : await writeFiles(join(files, `python-${pythons++}`), environmentFiles(python));
  const [sandboxd, control] = await Promise.all([
    bundleTo(bundleSandboxd, join(directory, "sandboxd.cjs")),
    options.control ?? bundleTo(bundleControlServer, join(directory, "control.cjs")),
  ]);
  const view: View = {
    sandboxd,
    toolchain,
    fetchedAgents: options.agents && programsOf(options.agents),
    runtime: join(repository, "local/runtime"),
    control,
    container: join(repository, "container"),
    files: [...generated, ...(await pythonFiles(toolchain))],
    pythonPackages: options.pythonPackages,
    empty: join(directory, "empty"),
    readOnly: options.readOnly ?? [],
  };
  await writeFile(view.empty, "");
  await chmod(view.empty, 0o644);
  const dropsRoot = check?.works === true && check.dropsRoot;
  const privatePath = dropsRoot ? firstPrivatePath(view) : undefined;
  if (privatePath !== undefined) throw new Error(MACHINE.closed(privatePath));
  const mountNamespace = dropsRoot ? new MountNamespace(directory, options.directories) : undefined;
  const limits = defaultLimits(options.limits);
  const common: SharedSettings = {
    view,
    mounts: () => [...readOnlyMounts(common.view), ...(common.cache === undefined ? [] : [common.cache])],
    directories: options.directories ?? [],
    limits: { ...limits, allProcesses: await processesWithin(groupParents, limits.allProcesses) },
    groupParents,
    network: options.network,
    upstream: {
      allowAddresses: parseAllowed(options.allowAddresses ?? []),
      registries: registryAddresses(registries),
      env: process.env,
      authorities: [hostPEM, options.trusted].filter((pem) => pem !== undefined),
    },
    authority,
    bubblewrap: check === undefined ? undefined : { supported: check.supported, mountNamespace },
    log,
    onOutput: (id, text) => {
      if (options.isVerbose) for (const line of text.trimEnd().split("\n")) log(`[${id}] ${line}`);
    },
  };
  const engineGroups = await createEngineGroups(groupParents, boot, common.limits);
  const registry = new SandboxRegistry(common, directory, boot);
  const stopChecks = checkMemory(engineGroups, limits.allMemoryBytes, () => registry.list());
  // Without isolation, sandboxes share directories of the host. A prepared sandbox would change them before anybody uses it.
  const preparesSandbox = options.prepareSandbox !== false && common.bubblewrap !== undefined;
  const prepareSandbox = () => (preparesSandbox ? registry.prepareSandbox() : undefined);
  const warming = await warm(common, directory);
  void warming?.done.then(prepareSandbox);
  const server = createServer({
    requestTimeout: 0,
    keepAliveTimeout: 60_000,
    maxHeaderSize: 65_536,
    noDelay: true,
  });
  const hosts = await listen(server, options, boot);
  const router = new Router(registry, {
    secret: options.secret,
    hosts,
    boot,
    log,
    prepareAgent: async (agent) => {
      if (options.agents !== undefined) await prepareAgent(agent, toolchain, options.agents, log);
    },
    diskSpace: async () => {
      const { bavail, blocks, bsize } = await statfs(directory);
      return { freeBytes: bavail * bsize, bytes: blocks * bsize };
    },
    syncObject: async ({ folder, file }) => {
      if (options.objects !== undefined) await syncFile(join(options.objects, folder, file));
    },
  });
  server.on("request", (request, response) => {
    drainAfter(request, response);
    void router.request(request, response);
  });
  server.on("upgrade", (request, socket, head) => void router.upgrade(request, socket, head));
  return {
    url: `http://${hosts[0]}`,
    boot,
    report: { dropsRoot, python: toolchain.python?.executable },
    usePython: async (path) => {
      const python = await describePython(path);
      if (python === undefined) throw new Error(MACHINE.notPython(path));
      const other = { ...toolchain, python };
      common.view = { ...view, toolchain: other, files: [...generated, ...(await pythonFiles(other))] };
      prepareSandbox();
    },
    close: async () => {
      stopChecks();
      await registry.close();
      await warming?.stop();
      await removeGroups(engineGroups);
      mountNamespace?.stop();
      server.close();
      server.closeAllConnections();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Starts to listen. Returns the valid values of requests' `Host`. */
async function listen(
  server: Server,
  { socket }: EngineOptions,
  boot: string,
): Promise<[string, ...string[]]> {
  const listening = once(server, "listening");
  if (socket === undefined) {
    server.listen(0, "127.0.0.1");
    await listening;
    const { port } = server.address() as AddressInfo;
    return [`127.0.0.1:${port}`, `localhost:${port}`];
  }
  // A killed engine has left its socket.
  await rm(socket, { force: true });
  await withShortPath(socket, async (path) => (server.listen(path), await listening));
  await chmod(socket, 0o600);
  // With this URL, a sandbox's actor recognizes the engine that started the sandbox.
  return [`engine-${boot}`, "localhost"];
}

function givenCheck({ bubblewrap }: EngineOptions): Check | undefined {
  return bubblewrap && { ...bubblewrap, works: true, supported: new Set(bubblewrap.supported) };
}

/** Fills the compile cache in the background. Sandboxes that start before the cache is complete do not use it. */
async function warm(common: SharedSettings, directory: string): Promise<Warming | undefined> {
  const { bubblewrap, mounts, limits } = common;
  if (bubblewrap === undefined) return undefined;
  const { supported, mountNamespace } = bubblewrap;
  const ids = mountNamespace && (await claimIDsFor(undefined));
  const warming = await warmCompileCache(directory, {
    mounts: mounts(),
    limits,
    supported,
    toolchain: common.view.toolchain,
    unprivileged: mountNamespace && ids && { mountNamespace, ids },
    env: sandboxEnvironment({}),
    groups: [],
    onOutput: () => undefined,
  });
  void warming.done.then((mount) => {
    ids?.release();
    if (mount !== undefined) common.cache = mount;
    return mount;
  });
  return warming;
}

async function bundleTo(bundle: (outfile: string) => Promise<void>, outfile: string): Promise<string> {
  await bundle(outfile);
  await chmod(outfile, 0o644);
  return outfile;
}

async function writeFiles(directory: string, files: Record<string, string | Buffer>): Promise<Mount[]> {
  const mounts: Mount[] = [];
  for (const [to, given] of Object.entries(files)) {
    const content = Buffer.from(given);
    const from = join(directory, to);
    await mkdir(dirname(from), { recursive: true });
    await writeFile(from, content);
    await chmod(from, content.subarray(0, 2).toString() === "#!" ? 0o755 : 0o644);
    mounts.push({ from, to });
  }
  return mounts;
}

/** The first path that every sandbox needs, but that not every user can read. */
function firstPrivatePath(view: View): string | undefined {
  const { toolchain } = view;
  const own = [view.runtime, join(view.runtime, "fetch-reason.cjs"), view.container, toolchain.node];
  return [...own, ...view.readOnly.map(({ from }) => from)].find((path) => {
    const mode = statSync(path, { throwIfNoEntry: false })?.mode;
    return mode !== undefined && (mode & 0o004) === 0;
  });
}

function parseAllowed(entries: string[]): Map<string, number> {
  return new Map(
    entries.map((entry) => {
      const [from = "", to = ""] = entry.split("=");
      return [from, Number(to)];
    }),
  );
}
