/** Finds the host's programs for sandboxes: node, npm and python3. */
import { access, open, realpath } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { repository } from "./own-files.ts";
import { choosePython, describePython, findPythons, onPath, type Python } from "./python.ts";

const require = createRequire(import.meta.url);

export interface Toolchain {
  /** The node binary for the runtime and JavaScript kernels. */
  node: string;
  /** npm's package directory, if the host has npm. */
  npm: string | undefined;
  python: Python | undefined;
  /** Programs of coding agents next to this package or on the PATH, by name. */
  agents: { name: string; path: string }[];
  /** The runtime's imported packages, as directories. */
  packages: { name: string; path: string }[];
}

/** @param python an interpreter instead of the detected ones; null for none */
export async function findToolchain(python?: string | null): Promise<Toolchain> {
  const bundled = join(repository, "node_modules/node/bin/node");
  return {
    node: await realpath((await exists(bundled)) ? bundled : process.execPath),
    npm: await findNPM(),
    python: await findPython(python),
    agents: await findAgents(),
    packages: ["capnweb", "ws"].map((name) => ({ name, path: packageDirectory(name) })),
  };
}

async function findPython(chosen: string | null | undefined): Promise<Python | undefined> {
  if (chosen === null) return undefined;
  return chosen === undefined ? choosePython(await findPythons()) : await describePython(chosen);
}

/** npm's platform packages with an agent's program: one for glibc, one for musl. */
const AGENT_PROGRAMS: Record<string, readonly string[]> = {
  claude: ["", "-musl"].map((variant) => `@anthropic-ai/claude-code-linux-${process.arch}${variant}/claude`),
  // The baseline variants also run on processors without AVX2.
  opencode: ["-baseline", "", "-baseline-musl", "-musl"].map(
    (variant) => `opencode-linux-${process.arch}${variant}/bin/opencode`,
  ),
};

async function findAgents(): Promise<Toolchain["agents"]> {
  const places = require.resolve.paths("claude") ?? [];
  const found: Toolchain["agents"] = [];
  for (const [name, programs] of Object.entries(AGENT_PROGRAMS)) {
    const npmBeside = programs.flatMap((program) => places.map((place) => join(place, program)));
    for (const file of [...npmBeside, ...(await onPath(name))]) {
      if (!(await exists(file)) || !(await isBinary(file))) continue;
      found.push({ name, path: await realpath(file) });
      break;
    }
  }
  return found;
}

/** Whether it is a standalone program: a sandbox does not see files around it, which a script may need. */
async function isBinary(file: string): Promise<boolean> {
  const handle = await open(file);
  try {
    const { buffer } = await handle.read(Buffer.alloc(4), 0, 4, 0);
    return buffer.toString("latin1") === "\x7fELF";
  } finally {
    await handle.close();
  }
}

/** The directory of an installed package, found by its exports, because not every package exports its package.json. */
function packageDirectory(name: string): string {
  const entry = require.resolve(name);
  const inside = `node_modules/${name}/`;
  return entry.slice(0, entry.lastIndexOf(inside) + inside.length - 1);
}

async function findNPM(): Promise<string | undefined> {
  for (const file of await onPath("npm")) {
    // npm's bin is a symbolic link to <package>/bin/npm-cli.js; other wrapper scripts are unusable.
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
