/** Installs Debian packages as root. Nothing is installed if that would need the user's password. */
import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, readFileSync } from "node:fs";
import { failureOf, systemPath, runFile } from "../local/engine/host-programs.ts";

export function hasApt(): boolean {
  return existsSync("/usr/bin/apt-get");
}

export function mayInstall(): boolean {
  return process.getuid?.() === 0 && hasApt();
}

export function aptCommand(packages: readonly string[]): string {
  return `sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages.join(" ")}`;
}

/**
 * @param log a file for output. If there is one, apt-get continues after this process ends, because an interrupted apt-get needs
 * manual repair.
 */
export async function install(packages: readonly string[], log?: string): Promise<void> {
  // Scripts of packages run Python and Perl as root. Variables such as PYTHONPATH and PERL5LIB could make them load modules from a
  // project that a sandbox writes to.
  const inherited = Object.entries(process.env).filter(([name]) => !/^(PYTHON|PERL)/.test(name));
  const env = { ...Object.fromEntries(inherited), PATH: systemPath(), DEBIAN_FRONTEND: "noninteractive" };
  // A machine that has just started often installs updates. apt-get waits this many seconds for them.
  const apt = async (...words: string[]) => {
    const args = ["-q", "-o", "DPkg::Lock::Timeout=300", ...words];
    await (log === undefined
      ? runFile("apt-get", args, { env, maxBuffer: 64 << 20 })
      : runDetached(args, env, log));
  };
  const installOnce = () => apt("install", "-y", "--no-install-recommends", ...packages);
  try {
    // A fresh machine has no package lists, and old lists name versions that no longer exist.
    await installOnce().catch(() => apt("update").then(installOnce));
  } catch (error) {
    throw new Error(failureOf(error), { cause: error });
  }
}

async function runDetached(args: string[], env: NodeJS.ProcessEnv, log: string): Promise<void> {
  const output = openSync(log, "w", 0o600);
  const child = spawn("apt-get", args, { detached: true, env, stdio: ["ignore", output, output] });
  closeSync(output);
  const status = await new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
  if (status === 0) return;
  throw Object.assign(new Error(`apt-get failed (${status})`), {
    stderr: readFileSync(log, "utf8").slice(-2000),
  });
}
