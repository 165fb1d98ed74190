/**
 * Ends the processes and removes the files that a killed engine left behind. It finds them by marks that sandboxes cannot change:
 * files in the engine's directory that identify each sandbox's first process, and the names of control groups.
 */
import { chmod, mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { loadText } from "./host-files.ts";
import { endProcess, identify, isAlive } from "./identity.ts";
import { endLeftoverGroups, type GroupParent, removeForgottenGroups } from "./limits.ts";

const engineMark = "engine.pid";
export const sandboxMark = "sandbox.pid";

export async function markEngine(directory: string): Promise<void> {
  await writeFile(join(directory, engineMark), identify(process.pid) ?? "");
}

export async function endLeftovers(runDir: string, parents: GroupParent[]): Promise<void> {
  await mkdir(runDir, { recursive: true, mode: 0o700 });
  await chmod(runDir, 0o700);
  for (const boot of await readdir(runDir)) {
    if (!/^[0-9a-f]{16}$/.test(boot)) continue;
    const directory = join(runDir, boot);
    if (isAlive(await loadText(join(directory, engineMark)))) continue;
    const marks = (await readdir(directory)).map((name) => join(directory, name, sandboxMark));
    await Promise.all(marks.map(async (mark) => await endProcess(await loadText(mark))));
    await endLeftoverGroups(parents, boot);
    await rm(directory, { recursive: true, force: true });
  }
  await removeForgottenGroups(parents);
}
