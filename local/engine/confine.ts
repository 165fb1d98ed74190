/**
 * Bounds for which bubblewrap has no option. The engine sets them in the namespaces of a sandbox before its first program
 * runs, for pools that the kernel keeps for the whole machine or for all sandboxes of one user.
 */
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import { SYSTEM_PATH } from "./system-path.ts";

const run = promisify(execFile);

/** Of some 3,000 that a machine has. */
const pseudoTerminals = 64;

/** A user has 128 instances and at least 8,192 watches, for the editor beside the sandboxes too. */
const inotify = { instances: 64, watches: 65_536 };

/**
 * The buffers of a TCP connection, bytes: least, initial, most. All connections of the machine share the memory of TCP
 * (tcp_mem). What a sandbox sends to itself and does not read takes up to 38 MiB a connection of it unless bounded.
 */
const waiting = { tcp_rmem: "4096 65536 131072", tcp_wmem: "4096 16384 131072" };

/**
 * The number of each kind of namespace and of notification that the user namespace may have (user_namespaces(7)). The
 * kernel shows these files for the namespace of whoever opens them, and nobody inside may write to them.
 */
const counts = [
  "cd /proc/sys/user || exit",
  "for file in max_*_namespaces max_fanotify_groups; do [ ! -e $file ] || echo 0 >$file; done",
  `echo ${inotify.instances} >max_inotify_instances`,
  `echo ${inotify.watches} >max_inotify_watches`,
  ...Object.entries(waiting).map(([file, bytes]) => `echo ${bytes} >/proc/sys/net/ipv4/${file}`),
];

/** Pseudo terminals: bubblewrap mounts a devpts for the sandbox without a limit. */
const terminals =
  'exec nsenter --target "$1" --mount -- mount --internal-only --no-mtab -t devpts ' +
  `-o remount,nosuid,noexec,mode=620,ptmxmode=666,max=${pseudoTerminals} devpts /dev/pts`;

/** Root may drop its groups, but not where it is root of a user namespace that somebody without rights made. */
function changesGroups(): boolean {
  return process.getuid?.() === 0 && readFileSync("/proc/self/setgroups", "utf8").trim() === "allow";
}

/**
 * @param pid The sandbox's first process, as the host sees it.
 * @throws Error with what was printed when the bounds cannot be set.
 */
export async function confine(pid: number): Promise<void> {
  // Root becomes the sandbox's own user; any other user is that already, and may not drop its groups in there.
  const user = changesGroups() ? [] : ["--preserve-credentials"];
  const script = [...counts, terminals].join("\n");
  const args = [
    "--target",
    String(pid),
    "--user",
    "--net",
    ...user,
    "--",
    "/bin/sh",
    "-c",
    script,
    "sh",
    String(pid),
  ];
  const env = { PATH: SYSTEM_PATH };
  await run("nsenter", args, { cwd: "/", env, timeout: 10_000 }).catch((error: unknown) => {
    const printed = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    throw new Error(`its bounds could not be set: ${printed === "" ? String(error) : printed}`);
  });
}
