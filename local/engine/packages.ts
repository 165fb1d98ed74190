/**
 * Optional packages. npm installs a set of packages on its first use, and after its lock file changes. The lock file pins
 * versions and hashes.
 */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { MACHINE, installing } from "./texts.ts";

interface PackageSet {
  title: string;
  manifest: string;
  directory: string;
  /** Files of optional packages, below node_modules; at least one must exist. npm reports no error if it installs none of them. */
  oneOf?: readonly string[];
}

/** The time limit of an installation, in milliseconds: half a gigabyte on a slow line. */
const LIMIT_MS = 15 * 60_000;

/** npm tries each request twice, for 30 seconds each: without a network it fails within two minutes. */
const NPM = [
  "ci",
  "--ignore-scripts",
  "--no-audit",
  "--no-fund",
  "--loglevel=error",
  "--fetch-timeout=30000",
  "--fetch-retries=1",
  "--fetch-retry-mintimeout=1000",
];

/** A copy of the installed lock file. It is written last, and shows that the installation is complete. */
const DONE = "node_modules/.sandbox-mcp-lock.json";
/** setpriv and flock are in util-linux, which sandboxes need anyway. On other systems they are not used. */
const IS_LINUX = existsSync("/usr/bin/setpriv");
/** npm is killed if the process that waits for it ends. */
const BOUND = "setpriv --pdeathsig KILL --";

const SCRIPT = `
from=$1 to=$2; shift 2
cmp -s "$from/package-lock.json" "$to/${DONE}" && exit
[ "$from" -ef "$to" ] || cp "$from/package.json" "$from/package-lock.json" "$to/"
cd "$to" && ${IS_LINUX ? BOUND : ""} npm "$@" && cp package-lock.json ${DONE}`;

function isInstalled({ manifest, directory }: PackageSet): boolean {
  const done = join(directory, DONE);
  return existsSync(done) && readFileSync(done).equals(readFileSync(join(manifest, "package-lock.json")));
}

/** @param print called with a line about the installation, if anything is installed @throws Error with npm's reason */
export async function installPackages(set: PackageSet, print: (line: string) => void): Promise<void> {
  if (isInstalled(set)) return;
  const { title, manifest, directory } = set;
  mkdirSync(directory, { recursive: true });
  print(installing(title, directory));
  // flock lets one installation run at a time.
  const first = IS_LINUX ? [...BOUND.split(" "), "flock", "--no-fork", join(directory, ".npm-lock")] : [];
  const [program = "", ...args] = [...first, "sh", "-c", SCRIPT, "sh"];
  const child = spawn(program, [...args, manifest, directory, ...NPM], {
    stdio: ["ignore", "ignore", "pipe"],
    timeout: LIMIT_MS,
    killSignal: "SIGKILL",
  });
  let stderrTail = "";
  child.stderr
    .setEncoding("utf8")
    .on("data", (text: string) => (stderrTail = (stderrTail + text).slice(-8000)));
  const outcome = await new Promise<unknown>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (status, signal) => resolve(signal === null ? status : "it took too long"));
  });
  const { oneOf } = set;
  const isThere = oneOf?.some((file) => existsSync(join(directory, "node_modules", file))) ?? true;
  if (outcome === 0 && isThere) return;
  rmSync(join(directory, DONE), { force: true });
  if (outcome === 0)
    stderrTail = `npm got none of its packages for this machine (${process.platform}, ${process.arch})`;
  const reason =
    typeof outcome === "string"
      ? outcome
      : (reasonIn(stderrTail) ?? `npm ended with status ${String(outcome)}`);
  throw new Error(MACHINE.notInstalled(title, reason));
}

function reasonIn(stderrTail: string): string | undefined {
  const lines = stderrTail.split("\n").map((line) => line.replace(/^npm (error|ERR!) ?/, "").trim());
  return lines
    .find((line) => line.split(" ").length > 3)
    ?.replace(/\.$/, "")
    .slice(0, 300);
}
