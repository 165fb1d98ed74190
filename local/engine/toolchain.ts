/** Finds the host's programs for sandboxes: node, npm, python3 and coding agents. */
import { access, open, realpath } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { runFile } from "./host-programs.ts";
import { succeeds } from "../../container/sandboxd/file-error.ts";
import { repository } from "./own-files.ts";
import { choosePython, describePython, findPythons, findOnPath, type Python } from "./python.ts";

const require = createRequire(import.meta.url);

export interface Toolchain {
  node: string;
  npm: string | undefined;
  python: Python | undefined;
  agents: { name: string; path: string }[];
  nodeOptions: string[];
}

/** @param python an interpreter instead of the detected ones; null for none */
export async function findToolchain(python?: string | null): Promise<Toolchain> {
  const bundled = join(repository, "node_modules/node/bin/node");
  const node = await realpath((await exists(bundled)) ? bundled : process.execPath);
  return {
    node,
    nodeOptions: await optionsFor(node),
    npm: await findNPM(),
    python: await findPython(python),
    agents: await findAgents(),
  };
}

/**
 * Node's options for our own programs. The programs inherit the variable NODE_USE_ENV_PROXY, which user programs need. With it, Node
 * loads its HTTP client at the start, which more than doubles the time of the start. `--no-use-env-proxy` prevents that. A Node
 * without this option ignores the variable, or starts more slowly.
 */
async function optionsFor(node: string): Promise<string[]> {
  const option = "--no-use-env-proxy";
  // If this process runs the same Node, its own list of options is read, because starting another takes 30 ms of processor time.
  const isKnown =
    node === (await realpath(process.execPath))
      ? process.allowedNodeEnvironmentFlags.has(option)
      : await succeeds(runFile(node, [option, "--version"]));
  return ["--disable-warning=ExperimentalWarning", ...(isKnown ? [option] : [])];
}

async function findPython(chosen: string | null | undefined): Promise<Python | undefined> {
  if (chosen === null) return undefined;
  return chosen === undefined ? choosePython(await findPythons()) : await describePython(chosen);
}

/** The programs of agents in their npm packages, by name. */
export const AGENT_PROGRAMS = {
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
    const installed = programs.flatMap((program) => places.map((place) => join(place, program)));
    for (const file of [...installed, ...(await findOnPath(name))]) {
      if (!(await exists(file)) || !(await isBinary(file))) continue;
      found.push({ name, path: await realpath(file) });
      break;
    }
  }
  return found;
}

/** Whether the file is a standalone program. A script may need files beside it, which a sandbox does not have. */
async function isBinary(file: string): Promise<boolean> {
  const handle = await open(file);
  try {
    const { buffer } = await handle.read(Buffer.alloc(4), 0, 4, 0);
    return buffer.toString("latin1") === "\x7fELF";
  } finally {
    await handle.close();
  }
}

async function findNPM(): Promise<string | undefined> {
  for (const file of await findOnPath("npm")) {
    // npm's bin is a symbolic link to <package>/bin/npm-cli.js; other wrapper scripts are unusable.
    const directory = dirname(dirname(await realpath(file)));
    if (await exists(join(directory, "bin/npm-cli.js"))) return directory;
  }
  return undefined;
}

const exists = (file: string) => succeeds(access(file));
