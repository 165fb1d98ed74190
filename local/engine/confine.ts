/** Limits a sandbox where bubblewrap has no option, before the sandbox's first program starts. */
import { readFileSync } from "node:fs";
import { messageOf } from "../../src/shared/text.ts";
import { runHost } from "./host-programs.ts";
import { START_PROBLEMS } from "./texts.ts";

const DISKS = ["/", "/dev/shm", "/var/lib/sandbox-mcp"];

/**
 * - Programs in the sandbox cannot make namespaces (user_namespaces(7)). The files in /proc/sys belong to the namespaces of the process
 *   that opens them, and no user of the sandbox may write to them.
 * - What the machine mounts later below a mounted directory stays outside: a sandbox could write to it, also if the directory is read-only.
 * - The disks record each access to a file, because a write through a memory mapping may change no other time of a tmpfs
 *   (container/sandboxd/snapshots/mappings.ts).
 */
const script = [
  "cd /proc/sys/user || exit",
  "for file in max_*_namespaces; do [ ! -e $file ] || echo 0 >$file; done",
  `exec nsenter --target "$1" --mount -- sh -c '${[
    "mount --no-mtab --make-rprivate /",
    ...DISKS.map(
      (disk) => `mount --internal-only --no-mtab -t tmpfs -o remount,nosuid,nodev,strictatime tmpfs ${disk}`,
    ),
  ].join(" && ")}'`,
].join("\n");

/** Whether the engine runs as root and may drop its groups. Root inside an unprivileged user's namespace may not drop them. */
function canDropGroups(): boolean {
  return process.getuid?.() === 0 && readFileSync("/proc/self/setgroups", "utf8").trim() === "allow";
}

export async function confine(pid: number): Promise<void> {
  // If the engine runs as root, nsenter must become the sandbox's user. Otherwise, nsenter already runs as that user, and may not
  // drop its groups.
  const user = canDropGroups() ? [] : ["--preserve-credentials"];
  const inside = ["--target", String(pid), "--user", "--net", "--ipc", ...user];
  await runHost("nsenter", [...inside, "--", "/bin/sh", "-c", script, "sh", String(pid)]).catch(
    (error: unknown) => {
      throw new Error(START_PROBLEMS.bounds(messageOf(error)));
    },
  );
}
