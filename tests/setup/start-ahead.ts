/** Finds the sandbox that an engine has prepared, and identifies it from the host and from inside. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { identify } from "../../local/engine/identity.ts";
import { sandboxMark } from "../../local/engine/leftovers.ts";
import { until } from "./until.ts";

export interface PreparedSandbox {
  /** The id of its first process. */
  pid: number;
  /** Identifies the sandbox: the output of `whichCommand` in it. */
  which: string;
  /** Its name on the host. */
  name: string;
}

/**
 * Prints the network namespace and the start time of the first process. The namespace alone identifies no sandbox,
 * because the kernel reuses its number.
 */
export const whichCommand =
  "echo $(readlink /proc/self/ns/net) $(sed 's/.*) //' /proc/1/stat | cut -d' ' -f20)";

/** Names from `crypto.randomUUID`, like the Worker's. The names of `TestSandbox` are shorter. */
const isPreparedName = (name: string) => /^[0-9a-f]{8}-/.test(name);

/** Prepared sandboxes, used or not. `engine` is the directory of an engine. */
function preparedSandboxes(engine: string): string[] {
  return readdirSync(engine).filter(
    (name) => isPreparedName(name) && existsSync(join(engine, name, sandboxMark)),
  );
}

/** When a process started, in clock ticks since boot. */
const startTimeOf = (pid: number) => identify(pid)?.split(" ")[1];

/** Waits for a prepared sandbox that is not in `before` and has a control server that listens. */
export async function nextPrepared(engine: string, before: readonly string[] = []): Promise<PreparedSandbox> {
  return await until(() => {
    const name = preparedSandboxes(engine).find((found) => !before.includes(found));
    const mark = name === undefined ? "" : readFileSync(join(engine, name, sandboxMark), "utf8");
    const pid = Number.parseInt(mark, 10);
    if (name === undefined || Number.isNaN(pid)) return undefined;
    if (!existsSync(`/proc/${pid}/root/run/sandbox/sandboxd.sock`)) return undefined;
    return { pid, name, which: `${readlinkSync(`/proc/${pid}/ns/net`)} ${startTimeOf(pid)}` };
  });
}
