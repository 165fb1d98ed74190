/** Checks the machine's requirements: Linux, and a working bubblewrap. */
import { type Check, checkBubblewrap } from "../local/engine/check.ts";
import type { EngineSettings } from "../local/engine/engine-settings.ts";
import { makePlaces } from "../local/engine/unisolated.ts";
import { runHost } from "../local/engine/host-programs.ts";
import { install, mayInstall } from "./apt.ts";
import { UserError } from "./exit.ts";
import { bubblewrapNotInstalled, INSTALLING_BUBBLEWRAP, needsLinux, noSandboxes } from "./texts.ts";

/** @throws {UserError} except on Linux */
export function requireLinux(platform: NodeJS.Platform): void {
  if (platform !== "linux") throw needsLinux(platform);
}

/**
 * Creates the directories and the link that sandboxes without isolation need.
 * @throws {UserError} with the exact command, if only an administrator can create them
 */
export async function requirePlaces(container: string): Promise<void> {
  const problem = await makePlaces(container);
  if (problem !== undefined) throw new UserError(problem);
}

export interface Installer {
  check(): Promise<Check>;
  /** Whether bubblewrap is missing and can be installed without a password. */
  canInstall(): Promise<boolean>;
  /** @throws Error with the package manager's message */
  install(): Promise<void>;
}

/**
 * Installs bubblewrap if that needs no password.
 * @returns the features of bubblewrap that the engine needs to know
 * @throws {UserError} with the reason and the exact command otherwise
 */
export async function requireBubblewrap(
  print: (line: string) => void,
  installer = apt,
): Promise<EngineSettings["bubblewrap"]> {
  let check = await installer.check();
  if (!check.works && (await installer.canInstall())) {
    print(INSTALLING_BUBBLEWRAP);
    try {
      await installer.install();
    } catch (error) {
      throw bubblewrapNotInstalled(check.remedy, error);
    }
    check = await installer.check();
  }
  if (!check.works) throw noSandboxes(check);
  return { supported: [...check.supported], dropsRoot: check.dropsRoot };
}

const apt: Installer = {
  check: checkBubblewrap,
  async canInstall() {
    if (!mayInstall()) return false;
    return await runHost("bwrap", ["--version"]).then(
      () => false,
      () => true,
    );
  },
  install: () => install(["bubblewrap"]),
};
