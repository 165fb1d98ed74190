/** Finds the sandbox that an engine has prepared, and identifies it from the host and from inside. */
import { existsSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { join } from "node:path";
import { UNUSED } from "../../container/sandboxd/engine-link.ts";
import { identify } from "../../local/engine/identity.ts";
import { sandboxMark } from "../../local/engine/leftovers.ts";
import { until } from "./until.ts";

interface PreparedSandbox {
  pid: number;
  /** Identifies the sandbox: the output of `whichCommand` in it. */
  which: string;
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

/** A connection to `SANDBOXD_PORT` in /proc/net/tcp: the engine's end. */
const connectionToEngine = /:21DF [\dA-F]+:[\dA-F]{4} 01 /g;

/** Waits for a prepared sandbox that is not in `before`, and whose two servers have connected to the engine. */
export async function nextPrepared(engine: string, before: readonly string[] = []): Promise<PreparedSandbox> {
  return await until(() => {
    const name = preparedSandboxes(engine).find((found) => !before.includes(found));
    const mark = name === undefined ? "" : readFileSync(join(engine, name, sandboxMark), "utf8");
    const pid = Number.parseInt(mark, 10);
    if (name === undefined || Number.isNaN(pid)) return undefined;
    const connections = readFileSync(`/proc/${pid}/net/tcp`, "utf8").match(connectionToEngine) ?? [];
    if (connections.length < 2 * UNUSED) return undefined;
    return { pid, name, which: `${readlinkSync(`/proc/${pid}/ns/net`)} ${startTimeOf(pid)}` };
  });
}
