/** Debian's packages, where they can be installed without asking anybody: by root. */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { promisify } from "node:util";
import { SYSTEM_PATH } from "../local/engine/system-path.ts";

const run = promisify(execFile);

export function hasApt(): boolean {
  return existsSync("/usr/bin/apt-get");
}

export function mayInstall(): boolean {
  return process.getuid?.() === 0 && hasApt();
}

/** The command that installs `packages`, for a person to type. */
export function aptCommand(packages: readonly string[]): string {
  return `sudo apt-get update && sudo apt-get install -y --no-install-recommends ${packages.join(" ")}`;
}

/** @throws Error with what apt-get said */
export async function install(packages: readonly string[]): Promise<void> {
  const env = { ...process.env, PATH: SYSTEM_PATH, DEBIAN_FRONTEND: "noninteractive" };
  // A machine that has just started often installs its updates: apt-get waits for them, in seconds.
  const apt = (...words: string[]) =>
    run("apt-get", ["-q", "-o", "DPkg::Lock::Timeout=300", ...words], { env, maxBuffer: 64 << 20 });
  const once = () => apt("install", "-y", "--no-install-recommends", ...packages);
  try {
    // A fresh machine has no package lists, and old lists name packages that are gone.
    await once().catch(() => apt("update").then(once));
  } catch (error) {
    const said = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new Error(said === "" ? String(error) : said, { cause: error });
  }
}
