/** Finds on the host what a sandbox is given to work with: node, npm and python3. */
import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, realpath, stat } from "node:fs/promises";
import { delimiter, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);

export const repository = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

export interface Toolchain {
  /** The node binary that runs the runtime and the JavaScript kernels. */
  node: string;
  /** npm's package directory, when the host has npm. */
  npm: string | undefined;
  python: Python | undefined;
  /** Claude Code's own program, when this package's development dependencies are installed. */
  claude: string | undefined;
  /** The packages the runtime imports, as directories. */
  packages: { name: string; path: string }[];
}

export interface Python {
  /** The interpreter itself, symbolic links and version-manager shims resolved. */
  executable: string;
  /** `sys.base_prefix`, which holds the standard library. */
  prefix: string;
  /** `sys.prefix`; another than `prefix` in a virtual environment. */
  environment: string;
}

/** @param python An interpreter to use instead of the ones found, or null for none. */
export async function findToolchain(python?: string | null): Promise<Toolchain> {
  const modules = join(repository, "node_modules");
  const bundled = join(modules, "node/bin/node");
  return {
    node: await realpath((await exists(bundled)) ? bundled : process.execPath),
    npm: await findNPM(),
    python: python === null ? undefined : await findPython(python),
    claude: await findClaude(modules),
    packages: ["capnweb", "ws"].map((name) => ({ name, path: join(modules, name) })),
  };
}

/** npm installs the program for this machine as a package of its own: one for glibc, one for musl. */
async function findClaude(modules: string): Promise<string | undefined> {
  for (const variant of ["", "-musl"]) {
    const file = join(modules, `@anthropic-ai/claude-code-linux-${process.arch}${variant}/claude`);
    if (await exists(file)) return await realpath(file);
  }
  return undefined;
}

async function findNPM(): Promise<string | undefined> {
  for (const file of await onPath("npm")) {
    // npm's bin is <package>/bin/npm-cli.js behind a symbolic link; a wrapper script elsewhere is not usable.
    const directory = dirname(dirname(await realpath(file)));
    if (await exists(join(directory, "bin/npm-cli.js"))) return directory;
  }
  return undefined;
}

/**
 * The system's python3 goes first, since it brings no directory of its own; one without pip yields to one
 * that has it, because an agent installs packages.
 */
async function findPython(chosen?: string): Promise<Python | undefined> {
  const candidates = chosen === undefined ? ["/usr/bin/python3", ...(await onPath("python3"))] : [chosen];
  let withoutPip: Python | undefined;
  for (const candidate of new Set(candidates)) {
    const found = await describePython(candidate);
    if (found?.pip) return found.python;
    withoutPip ??= found?.python;
  }
  return withoutPip;
}

async function describePython(command: string): Promise<{ python: Python; pip: boolean } | undefined> {
  const question =
    "import sys, json, importlib.util as u\n" +
    "print(json.dumps([sys.executable, sys.base_prefix, sys.prefix, u.find_spec('pip') is not None]))";
  try {
    const { stdout } = await run(command, ["-I", "-c", question], { timeout: 10_000 });
    const answer: unknown = JSON.parse(stdout);
    if (!Array.isArray(answer)) return undefined;
    const [file, prefix, environment, pip]: unknown[] = answer;
    if (typeof file !== "string" || typeof prefix !== "string" || typeof environment !== "string") {
      return undefined;
    }
    return { python: { executable: file, prefix, environment }, pip: pip === true };
  } catch {
    return undefined;
  }
}

async function onPath(name: string): Promise<string[]> {
  const found: string[] = [];
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const file = join(directory, name);
    if (directory.startsWith("/") && (await executable(file))) found.push(file);
  }
  return found;
}

async function executable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}

async function exists(file: string): Promise<boolean> {
  return await access(file).then(
    () => true,
    () => false,
  );
}
