/** The sandboxes' Python, with the packages of the production image: installed once, in the background, by pip or from Debian. */
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync, readdirSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  describePython,
  findPythons,
  isComplete,
  PACKAGES,
  PACKAGES_ONLY,
  packagesKey,
  type Python,
} from "../local/engine/python.ts";
import { DAY_MS } from "../src/shared/days.ts";
import { aptCommand, hasApt, install, mayInstall } from "./apt.ts";
import { messageOf } from "../src/shared/text.ts";
import { attempt } from "../container/sandboxd/file-error.ts";
import { notPython, PYTHON } from "./texts.ts";

export interface PythonSetup {
  /** The initial interpreter; null for none. */
  python: string | null;
  /** The directory of its packages; may not exist yet. */
  packages: string | undefined;
  /** Installs missing packages. Never rejects; `stop` ends it early. */
  complete(use: (executable: string) => void): Promise<void>;
  stop(): void;
}

const RETRY_MS = DAY_MS;
const PIP_OPTIONS =
  "--only-binary=:all: --no-input --no-warn-script-location --quiet --retries=1 --timeout=15".split(" ");
/** Does what `python -m pip` does, but after PACKAGES_ONLY. */
const PIP = `${PACKAGES_ONLY}import runpy; runpy.run_module("pip", run_name="__main__", alter_sys=True)`;
const PIP_TIMEOUT_MS = 15 * 60 * 1000;

const SYSTEM = "/usr/bin/python3";
const NAMES = PACKAGES.map(({ pip }) => pip);
const LIST = `${NAMES.slice(0, -1).join(", ")} and ${NAMES.at(-1)}`;

/**
 * Finds the interpreters; undefined if there are none. `other` is the first interpreter that has all packages, apart from
 * `first`.
 */
export async function findPython(stateDir: string) {
  const [first, ...others] = await findPythons();
  if (first === undefined) return undefined;
  const packages = join(stateDir, "python");
  /** Whether an interpreter has all packages, or an earlier start installed them for it. */
  const isReady = (python: Python) =>
    isComplete(python) || modifiedAt(join(packages, packagesKey(python))) !== undefined;
  return { first, other: others.find(isReady), packages, isReady };
}

/** @param given the user's interpreter, for which nothing is installed @throws {UserError} if it is not Python 3 */
export async function setUpPython(
  given: string | undefined,
  stateDir: string,
  print: (line: string) => void,
): Promise<PythonSetup> {
  const nothing = { complete: async () => undefined, stop: () => undefined };
  if (given !== undefined) {
    const python = await describePython(given);
    if (python === undefined) throw notPython(given);
    return { python: python.executable, packages: undefined, ...nothing };
  }
  const found = await findPython(stateDir);
  if (found === undefined) return { python: null, packages: undefined, ...nothing };
  const { first, other, packages, isReady } = found;
  mkdirSync(packages, { recursive: true, mode: 0o755 });
  for (const name of readdirSync(packages)) {
    if (name.includes(".partial")) rmSync(join(packages, name), { recursive: true, force: true });
  }
  const failure = join(packages, `${packagesKey(first)}.failed`);
  const start = isReady(first) ? first : (other ?? first);
  const failedAt = modifiedAt(failure) ?? 0;
  if (isReady(first) || Date.now() - failedAt < RETRY_MS) {
    return { python: start.executable, packages, ...nothing };
  }
  const work = new PythonPackages(first, packages, print);
  return {
    python: start.executable,
    packages,
    stop: () => work.stop(),
    complete: async (use) => {
      const made = await work.make(other);
      if (made !== undefined && made !== start.executable) use(made);
      if (made === first.executable || work.isStopped) return;
      // Without this file, the next start tries the installation again.
      attempt(() => writeFileSync(failure, ""), undefined);
    },
  };
}

/** Installs the packages for an interpreter, or falls back to another one that has them. */
class PythonPackages {
  readonly #python: Python;
  readonly #directory: string;
  readonly #print: (line: string) => void;
  #pip: ChildProcess | undefined;
  isStopped = false;

  constructor(python: Python, directory: string, print: (line: string) => void) {
    this.#python = python;
    this.#directory = directory;
    this.#print = print;
  }

  stop(): void {
    this.isStopped = true;
    this.#pip?.kill("SIGKILL");
  }

  /**
   * @param other an interpreter that has all packages
   * @returns the interpreter for new sandboxes; undefined if none has the packages
   */
  async make(other: Python | undefined): Promise<string | undefined> {
    const { executable } = this.#python;
    this.#print(PYTHON.installing(LIST, executable));
    let reason: string;
    try {
      await this.#installFromIndex();
      this.#print(PYTHON.installed(LIST, executable));
      return executable;
    } catch (error) {
      reason = messageOf(error);
    }
    if (this.isStopped) return undefined;
    if (other !== undefined) {
      this.#print(PYTHON.other(reason, other.executable, executable));
      return other.executable;
    }
    if (mayInstall()) {
      this.#print(PYTHON.installingDebian(reason, SYSTEM));
      try {
        await install(
          ["python3-pip", ...PACKAGES.map(({ debian }) => debian)],
          join(this.#directory, "apt.log"),
        );
        this.#print(PYTHON.installedDebian(LIST, SYSTEM, executable));
        return SYSTEM;
      } catch (error) {
        reason = error instanceof Error ? (error.message.split("\n").at(-1) ?? "") : String(error);
        if (this.isStopped) return undefined;
      }
    }
    const remedy = hasApt() && !mayInstall() ? `, ${aptCommand(PACKAGES.map(({ debian }) => debian))}` : "";
    this.#print(PYTHON.failed(LIST, reason, executable, remedy));
    return undefined;
  }

  /**
   * Installs the packages into a temporary directory, tries to import them, and renames the directory.
   * @throws Error with pip's message
   */
  async #installFromIndex(): Promise<void> {
    const { executable } = this.#python;
    const target = join(this.#directory, packagesKey(this.#python));
    const partial = `${target}.partial-${process.pid}`;
    try {
      // -E makes Python ignore PYTHONPATH, which may name a project that a sandbox writes to.
      await this.#run([executable, "-ESc", PIP, "install", ...PIP_OPTIONS, "--target", partial, ...NAMES]);
      const modules = PACKAGES.map(({ module }) => module).join(", ");
      const program = `${PACKAGES_ONLY}sys.path.insert(0, sys.argv[1]); import ${modules}`;
      await this.#run([executable, "-I", "-S", "-c", program, partial]);
      renameSync(partial, target);
    } finally {
      rmSync(partial, { recursive: true, force: true });
    }
  }

  async #run(command: string[]): Promise<void> {
    // Sandboxes run as another user, who must be able to read the packages. pip is killed with this process, because it would
    // otherwise overlap with the next attempt.
    const script = 'umask 022; exec setpriv --pdeathsig KILL -- "$@"';
    const child = spawn("/bin/sh", ["-c", script, "sh", ...command], {
      // `python -c` also loads modules from the working directory, which may be a project that a sandbox writes to.
      cwd: this.#directory,
      stdio: ["ignore", "ignore", "pipe"],
      timeout: PIP_TIMEOUT_MS,
      killSignal: "SIGKILL",
      // Overrides the user's settings of pip, because they could contradict --target.
      env: { ...process.env, PIP_USER: "0", PIP_REQUIRE_VIRTUALENV: "0", PIP_DISABLE_PIP_VERSION_CHECK: "1" },
    });
    this.#pip = child;
    if (this.isStopped) this.stop();
    let stderrTail = "";
    child.stderr
      .setEncoding("utf8")
      .on("data", (text: string) => (stderrTail = (stderrTail + text).slice(-4000)));
    const status = await new Promise((resolve) => child.once("close", resolve).once("error", resolve));
    if (status === 0) return;
    const lines = stderrTail.split("\n").map((line) => line.trim());
    const error =
      lines.findLast((line) => /^ERROR|Error:/.test(line)) ?? lines.findLast((line) => line !== "");
    throw new Error(
      (error ?? `status ${String(status)}`)
        .replace(/^ERROR: /, "")
        .replace(/\.$/, "")
        .slice(0, 200),
    );
  }
}

function modifiedAt(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs;
}
