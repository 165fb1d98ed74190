/**
 * The sandboxes' Python: one of the host's interpreters, and a virtual environment on top of it.
 *
 * The environment is inside the sandbox and writable, so pip installs into it. Python also finds the packages that `npm start`
 * installed for the interpreter, and the interpreter's own packages. Both are read-only.
 */
import { runFile } from "./host-programs.ts";
import { createHash } from "node:crypto";
import { constants, existsSync, realpathSync } from "node:fs";
import { access, realpath, stat } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";

/** The modules in the production image, with their packages on PyPI and in Debian. */
export const PACKAGES = [
  { module: "numpy", pip: "numpy", debian: "python3-numpy" },
  { module: "pandas", pip: "pandas", debian: "python3-pandas" },
  { module: "matplotlib", pip: "matplotlib", debian: "python3-matplotlib" },
  { module: "IPython", pip: "ipython", debian: "python3-ipython" },
] as const;

export interface Python {
  /** The path with which users start the interpreter. If that is a version manager's shim, the path to which the shim leads. */
  executable: string;
  /** The interpreter itself, after resolving symbolic links and virtual environments. */
  base: string;
  /** `sys.base_prefix`, with the standard library. */
  prefix: string;
  /** `sys.prefix`; differs from `prefix` in a virtual environment. */
  environment: string;
  version: string;
  sitePackages: string[];
  /** Whether the packages of `prefix` are visible; a virtual environment may hide them. */
  seesSystem: boolean;
  /** The names of the available modules: of `PACKAGES`, and pip. */
  modules: string[];
}

export const sandboxEnvironmentDirectory = "/opt/venv";
export const sandboxPackagesDirectory = "/opt/sandbox-runtime/python";

export function isComplete(python: Python): boolean {
  return PACKAGES.every(({ module }) => python.modules.includes(module));
}

export function packagesKey({ base, version }: Python): string {
  const names = PACKAGES.map(({ pip }) => pip).join();
  return `${version}-${createHash("sha256").update(`${base}\0${names}`).digest("hex").slice(0, 12)}`;
}

export async function findPythons(): Promise<Python[]> {
  const commands = [...(await findOnPath("python3")), "/usr/bin/python3"];
  const described = await Promise.all([...new Set(commands)].map(describePython));
  const found = described.filter((python) => python !== undefined);
  return found.filter(({ base, environment }, index) => {
    const isSame = (other: Python) => other.base === base && other.environment === environment;
    return found.findIndex(isSame) === index;
  });
}

export function choosePython(pythons: readonly Python[]): Python | undefined {
  return pythons.find(isComplete) ?? pythons.find(({ modules }) => modules.includes("pip")) ?? pythons[0];
}

/**
 * The start of a Python program that runs outside of sandboxes, with the option -S. The program must import nothing from a
 * project, because a sandbox may be able to write to the project's directory. Python imports `sitecustomize` when it starts, and
 * packages import optional modules. After an editable installation (`pip install -e`), Python would look for these modules in the
 * project, too. `removeduppaths` is called first, because a Python 3.10 that is started through a relative link has paths with
 * `..`.
 */
export const PACKAGES_ONLY = `
import sys, site
site.removeduppaths()
standard, customize = set(sys.path), site.execsitecustomize
site.execsitecustomize = site.execusercustomize = lambda: None
site.main()
sys.path[:] = [path for path in sys.path if path in standard or path.endswith("-packages")]
customize()
`;

const probeScript = `${PACKAGES_ONLY}
import json, importlib.util as u
base = getattr(sys, "_base_executable", None) or sys.executable
own = [path for path in sys.path if sys.prefix != sys.base_prefix and path.startswith(sys.prefix)]
modules = [name for name in sys.argv[1:] if (spec := u.find_spec(name)) is not None and spec.origin is not None]
rest = [path for path in sys.path if path not in own and path.endswith("-packages")]
print(json.dumps([sys.executable, base, sys.base_prefix, sys.prefix, "%d.%d" % sys.version_info[:2], own, len(rest) > 0, modules]))
`;

/** How long an interpreter may take to describe itself, in milliseconds. Measured under the load of all tests: more than 10 s. */
const PROBE_MS = 30_000;

export async function describePython(command: string): Promise<Python | undefined> {
  try {
    const modules = [...PACKAGES.map(({ module }) => module), "pip"];
    const { stdout } = await runFile(command, ["-I", "-S", "-c", probeScript, ...modules], {
      timeout: PROBE_MS,
    });
    const report: [string, string, string, string, string, string[], boolean, string[]] = JSON.parse(stdout);
    const [executable, base, prefix, environment, version, sitePackages, seesSystem, found] = report;
    if (!version.startsWith("3.")) return undefined;
    const shown = { prefix, environment, version, sitePackages, seesSystem };
    return { executable, base: await realpath(base), ...shown, modules: found };
  } catch {
    return undefined;
  }
}

export function environmentFiles(python: Python): Record<string, string> {
  const { base, version, sitePackages, seesSystem } = python;
  const site = `${sandboxEnvironmentDirectory}/lib/python${version}/site-packages`;
  const lines = [
    `${sandboxPackagesDirectory}/${packagesKey(python)}`,
    // Unlike a plain path, this also reads the directory's .pth files.
    ...sitePackages.map((path) => `import site; site.addsitedir(${JSON.stringify(path)})`),
  ];
  const pip = '#!/bin/sh\nexec python3 -m pip "$@"\n';
  return {
    [`${sandboxEnvironmentDirectory}/pyvenv.cfg`]: `home = ${dirname(base)}\ninclude-system-site-packages = ${seesSystem}\nversion = ${version}\n`,
    [`${site}/sandbox.pth`]: `${lines.join("\n")}\n`,
    ...(python.modules.includes("pip")
      ? { "/opt/sandbox-runtime/bin/pip": pip, "/opt/sandbox-runtime/bin/pip3": pip }
      : {}),
  };
}

export function environmentLinks({ base, version }: Python): Record<string, string> {
  const names = ["python3", "python", `python${version}`];
  return {
    ...Object.fromEntries(names.map((name) => [`${sandboxEnvironmentDirectory}/bin/${name}`, base])),
    [`${sandboxEnvironmentDirectory}/lib64`]: "lib",
  };
}

/**
 * The parts of an installation that an interpreter reads. In conda, OpenSSL finds its certificates in `ssl`, and Python and ncurses
 * have no other time zones and terminals than those in `share`. Not the whole directories: with a Python in a home directory these
 * are the user's.
 */
const PARTS = [
  "lib",
  "lib64",
  "include",
  "ssl/cert.pem",
  "ssl/certs",
  "ssl/openssl.cnf",
  "share/zoneinfo",
  "share/terminfo",
];

/**
 * The files and directories of the host that an interpreter needs besides /usr. Not a whole prefix or environment: somebody may have
 * installed Python into a home directory, or made an environment in a project, and these contain secrets.
 */
export function pythonPaths({ prefix, base, sitePackages }: Python): string[] {
  // `base` is a resolved path, from which the interpreter finds its library. Paths in the installation have links, for example uv's.
  const prefixes = existsSync(prefix) ? [prefix, realpathSync(prefix)] : [];
  const parts = prefixes
    .flatMap((path) => PARTS.map((name) => join(path, name)))
    .filter((path) => existsSync(path));
  const paths = new Set([base, ...parts, ...sitePackages.filter((path) => existsSync(path))]);
  return [...paths].filter((path) => !/^\/(usr|bin|lib)(\/|$)/.test(path));
}

export async function findOnPath(name: string): Promise<string[]> {
  const found: string[] = [];
  for (const directory of (process.env.PATH ?? "").split(delimiter)) {
    const file = join(directory, name);
    if (directory.startsWith("/") && (await isExecutable(file))) found.push(file);
  }
  return found;
}

async function isExecutable(file: string): Promise<boolean> {
  try {
    await access(file, constants.X_OK);
    return (await stat(file)).isFile();
  } catch {
    return false;
  }
}
