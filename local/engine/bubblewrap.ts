/**
 * The bubblewrap command line of a sandbox: its namespaces, files and capabilities.
 *
 * The whole root is one tmpfs of a fixed size. Everything the user writes (/workspace, /tmp, /root, /var, new directories) shares
 * this budget, as on a container's disk. When the budget is used up, programs get ENOSPC. The files are in memory, so they are
 * gone when the last process ends. Only mounted host directories are on the host's disk.
 */
import { hostname } from "./rootfs-files.ts";
import { existsSync, lstatSync, readdirSync, readlinkSync } from "node:fs";
import type { FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import type { Readable, Writable } from "node:stream";
import { agentDirectory, fetchedAgentsDirectory } from "./rootfs-files.ts";
import { CHANNEL_FD, initCapability } from "./init.ts";
import type { Sizes } from "./limits.ts";
import { environmentLinks, pythonPaths, sandboxPackagesDirectory } from "./python.ts";
import { attempt } from "../../container/sandboxd/file-error.ts";
import type { Toolchain } from "./toolchain.ts";
import { START_PROBLEMS } from "./texts.ts";

export const runtimeDirectory = "/opt/sandbox-runtime";
export const nodeProgram = `${runtimeDirectory}/bin/node`;
export const sandboxdProgram = `${runtimeDirectory}/sandboxd.cjs`;
export const controlProgram = `${runtimeDirectory}/control.cjs`;
export const kernelsDirectory = `${runtimeDirectory}/runtime/kernels`;
/** The file with the key for connections to the engine. */
export const keyPlace = "/run/sandbox/key";
export const tokenPlace = "/run/sandbox/token";
const systemDirectories = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/** The parts of the host's /etc that programs need. They must contain no secrets, so /etc/ssl/private is not in the list. */
const etc = `
  alternatives bash.bashrc ca-certificates ca-certificates.conf crypto-policies debian_version fonts
  ImageMagick-6 inputrc ld.so.cache ld.so.conf ld.so.conf.d localtime magic mailcap matplotlibrc
  mime.types os-release perl pki/ca-trust pki/tls/certs pki/tls/openssl.cnf protocols python3 services
  ssl/certs ssl/openssl.cnf terminfo
`
  .trim()
  .split(/\s+/);

/** The configuration that each of Debian's Java versions needs. Other files may contain management passwords. */
function javaConfiguration(): string[] {
  const versions = readdirSync("/etc").filter((name) => /^java-\d+-openjdk$/.test(name));
  const needed = /^(?:security|jvm-.*\.cfg|net\.properties|logging\.properties)$/;
  return versions.flatMap((version) =>
    readdirSync(`/etc/${version}`).flatMap((name) => (needed.test(name) ? `${version}/${name}` : [])),
  );
}

/** Files inside visible directories that may contain the host's credentials. Sandboxes see them empty. */
const masked = ["/usr/etc/npmrc", "/usr/local/etc/npmrc", "/usr/etc/gitconfig", "/usr/local/etc/gitconfig"];

/**
 * Files of /proc that reveal or affect other processes of the machine. Sandboxes see them empty. While /proc/locks is read,
 * nobody on the machine can set a file lock.
 */
const secretsOfKernel = [
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/locks",
  "/proc/sched_debug",
  "/proc/sysrq-trigger",
  "/proc/timer_list",
];

/**
 * Directories of /proc about the machine's devices and file systems. Sandboxes see them empty, because readers slow the machine:
 * - For /proc/fs/ext4/<disk>/es_shrinker_info, the kernel goes through all cached files under a lock. In a test, four readers
 *   blocked every program that opened a file, for seconds.
 * - While 400 processes read /proc/tty/drivers, others waited up to 2.3 s for a pseudo terminal.
 */
const devicesOfKernel = ["acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty"].map(
  (name) => `/proc/${name}`,
);

/** The other parts of /proc with writable files that affect the machine. They are read-only in a sandbox. */
function kernelSettings(): string[] {
  settings ??= readdirSync("/proc")
    .filter((name) => !/^\d+$/.test(name))
    .map((name) => `/proc/${name}`)
    .filter((path) => ![...secretsOfKernel, ...devicesOfKernel].includes(path) && hasWritableFile(path));
  return settings;
}

let settings: string[] | undefined;

function hasWritableFile(path: string): boolean {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isFile()) return (found.mode & 0o222) !== 0;
  if (!found?.isDirectory()) return false;
  // If the engine cannot read or enter a directory, a sandbox cannot write to it: a sandbox has no more rights than the engine.
  return attempt(() => readdirSync(path).some((name) => hasWritableFile(`${path}/${name}`)), false);
}

/**
 * Root in the sandbox owns its files and may listen below port 1024. It cannot mount file systems or load kernel
 * modules, can trace only processes that any user could trace, and has no capability outside its user namespace.
 */
const capabilities = [
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_NET_BIND_SERVICE",
  "CAP_SETGID",
  "CAP_SETUID",
];

export interface Mount {
  from: string;
  to: string;
  isWritable?: boolean;
  /** A host directory, opened before the mount. `requireMounted` checks that the sandbox sees this directory. */
  opened?: FileHandle | undefined;
}

export interface View {
  toolchain: Toolchain;
  fetchedAgents: string | undefined;
  runtime: string;
  control: string;
  container: string;
  sandboxd: string;
  files: Mount[];
  pythonPackages: string | undefined;
  empty: string;
  readOnly: Mount[];
}

export function readOnlyMounts(view: View): Mount[] {
  const { toolchain } = view;
  const mounts: Mount[] = [{ from: "/usr", to: "/usr" }];
  for (const name of systemDirectories) {
    if (existsSync(name) && !lstatSync(name).isSymbolicLink()) mounts.push({ from: name, to: name });
  }
  for (const name of [...etc, ...javaConfiguration()]) {
    if (existsSync(`/etc/${name}`)) mounts.push({ from: `/etc/${name}`, to: `/etc/${name}` });
  }
  mounts.push({ from: toolchain.node, to: nodeProgram });
  mounts.push({ from: view.runtime, to: `${runtimeDirectory}/runtime` });
  mounts.push({ from: view.control, to: controlProgram });
  mounts.push({ from: view.sandboxd, to: sandboxdProgram });
  for (const { name, path } of toolchain.agents) mounts.push({ from: path, to: `${agentDirectory}/${name}` });
  if (view.fetchedAgents !== undefined) mounts.push({ from: view.fetchedAgents, to: fetchedAgentsDirectory });
  if (toolchain.npm !== undefined) mounts.push({ from: toolchain.npm, to: `${runtimeDirectory}/npm` });
  if (existsSync(view.container)) mounts.push({ from: view.container, to: "/opt/sandbox-mcp" });
  if (toolchain.python !== undefined) {
    for (const path of pythonPaths(toolchain.python)) mounts.push({ from: path, to: path });
    if (view.pythonPackages !== undefined)
      mounts.push({ from: view.pythonPackages, to: sandboxPackagesDirectory });
  }
  for (const file of [...masked, ...secretsOfKernel])
    if (existsSync(file)) mounts.push({ from: view.empty, to: file });
  mounts.push(...kernelSettings().map((path) => ({ from: path, to: path })));
  mounts.push(...view.files, ...view.readOnly);
  return mounts;
}

/** @param supported the options that `bwrap --help` lists @param isFiltered whether the system call filter applies */
export function bubblewrapArguments(
  mounts: Mount[],
  toolchain: Toolchain,
  sizes: Sizes,
  env: Record<string, string>,
  supported: ReadonlySet<string>,
  isFiltered: boolean,
): string[] {
  const args = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"];
  args.push("--unshare-cgroup-try", "--die-with-parent", "--new-session", "--hostname", hostname);
  args.push("--uid", "0", "--gid", "0", "--as-pid-1");
  // With this option, root in the sandbox could not listen below port 1024. The filter already refuses new user namespaces.
  if (!isFiltered && supported.has("--disable-userns")) args.push("--disable-userns");
  args.push("--size", String(sizes.root), "--tmpfs", "/");
  for (const name of systemDirectories) {
    if (existsSync(name) && lstatSync(name).isSymbolicLink())
      args.push("--symlink", readlinkSync(name), name);
  }
  args.push("--proc", "/proc", "--dev", "/dev");
  for (const path of devicesOfKernel)
    if (existsSync(path)) args.push("--size", "4096", "--tmpfs", path, "--remount-ro", path);
  args.push("--perms", "1777", "--size", String(sizes.sharedMemory), "--tmpfs", "/dev/shm");
  // bubblewrap's /dev is a tmpfs without a size limit. It becomes read-only, so that programs cannot use it to exceed the disk
  // size.
  args.push("--remount-ro", "/dev");
  const directory = (mode: string, path: string) => args.push("--perms", mode, "--dir", path);
  for (const path of ["/etc", "/home", "/opt", "/var", "/var/lib", "/run", "/workspace"]) {
    directory("0755", path);
  }
  for (const path of ["/tmp", "/var/tmp"]) directory("1777", path);
  for (const path of ["/root", "/run/sandbox"]) directory("0700", path);
  args.push("--size", String(sizes.runs), "--tmpfs", "/var/lib/sandbox-mcp");
  args.push("--symlink", "../run", "/var/run");
  // The runtime's directory is a separate file system, so that it can be made read-only as a whole.
  args.push("--size", "1048576", "--tmpfs", runtimeDirectory);
  args.push("--dir", `${runtimeDirectory}/cache`);
  const made = new Set<string>();
  for (const { from, to, isWritable } of mounts) {
    // Users other than root need the parent directories too. bubblewrap would make them accessible only to root.
    for (const parent of parentsOf(to).filter((path) => !made.has(path))) {
      directory("0755", parent);
      made.add(parent);
    }
    args.push(isWritable ? "--bind" : "--ro-bind", from, to);
  }
  args.push(...links(toolchain), "--remount-ro", runtimeDirectory);
  args.push(
    "--cap-drop",
    "ALL",
    ...[...capabilities, initCapability].flatMap((capability) => ["--cap-add", capability]),
  );
  args.push("--chdir", "/workspace", "--clearenv");
  for (const [name, value] of Object.entries(env)) args.push("--setenv", name, value);
  // Node reads NODE_CHANNEL_FD, and does not pass it to its children.
  args.push("--setenv", "NODE_CHANNEL_FD", String(CHANNEL_FD));
  args.push("--setenv", "SANDBOXD_TOKEN_FILE", tokenPlace);
  return args;
}

function parentsOf(path: string): string[] {
  const names = dirname(path).split("/");
  return names.map((_, index) => names.slice(0, index + 1).join("/")).slice(2);
}

function links({ npm, python }: Toolchain): string[] {
  const args: string[] = [];
  const link = (target: string, name: string) =>
    args.push("--symlink", target, `${runtimeDirectory}/bin/${name}`);
  if (npm !== undefined) {
    link("../npm/bin/npm-cli.js", "npm");
    link("../npm/bin/npx-cli.js", "npx");
  }
  for (const [path, target] of Object.entries(python === undefined ? {} : environmentLinks(python))) {
    args.push("--symlink", target, path);
  }
  return args;
}

/** Reads the process id of the sandbox's first process from bubblewrap's --info-fd. */
export async function readChildPID(
  stream: Readable | Writable | null | undefined,
  ended: Promise<unknown>,
): Promise<number> {
  return await new Promise((resolve, reject) => {
    void ended.then(() => reject(new Error(START_PROBLEMS.bubblewrapEnded)));
    if (stream === null || stream === undefined || !("read" in stream)) return;
    let text = "";
    stream.on("error", reject);
    stream.on("data", (chunk: Buffer) => {
      text += chunk.toString();
      const match = /"child-pid":\s*(\d+)/.exec(text);
      if (match !== null) resolve(Number(match[1]));
    });
  });
}
