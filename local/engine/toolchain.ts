/** Finds on the host what a sandbox is given to work with: node, npm and python3. */
import { access, realpath } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { repository } from "./own-files.ts";
import { choosePython, describePython, findPythons, onPath, type Python } from "./python.ts";

const require = createRequire(import.meta.url);

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

/** @param python An interpreter to use instead of the ones found, or null for none. */
export async function findToolchain(python?: string | null): Promise<Toolchain> {
  const bundled = join(repository, "node_modules/node/bin/node");
  return {
    node: await realpath((await exists(bundled)) ? bundled : process.execPath),
    npm: await findNPM(),
    python: await findPython(python),
    claude: await findClaude(),
    packages: ["capnweb", "ws"].map((name) => ({ name, path: packageDirectory(name) })),
  };
}

async function findPython(chosen: string | null | undefined): Promise<Python | undefined> {
  if (chosen === null) return undefined;
  return chosen === undefined ? choosePython(await findPythons()) : await describePython(chosen);
}

/** npm installs the program for this machine as a package of its own: one for glibc, one for musl. */
async function findClaude(): Promise<string | undefined> {
  const places = require.resolve.paths("claude") ?? [];
  for (const variant of ["", "-musl"]) {
    for (const place of places) {
      const file = join(place, `@anthropic-ai/claude-code-linux-${process.arch}${variant}/claude`);
      if (await exists(file)) return await realpath(file);
    }
  }
  return undefined;
}

/** The directory of an installed package, from what it exports: not every package exports its package.json. */
function packageDirectory(name: string): string {
  const entry = require.resolve(name);
  const inside = `node_modules/${name}/`;
  return entry.slice(0, entry.lastIndexOf(inside) + inside.length - 1);
}

async function findNPM(): Promise<string | undefined> {
  for (const file of await onPath("npm")) {
    // npm's bin is <package>/bin/npm-cli.js behind a symbolic link; a wrapper script elsewhere is not usable.
    const directory = dirname(dirname(await realpath(file)));
    if (await exists(join(directory, "bin/npm-cli.js"))) return directory;
  }
  return undefined;
}

async function exists(file: string): Promise<boolean> {
  return await access(file).then(
    () => true,
    () => false,
  );
}
