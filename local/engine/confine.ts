/**
 * Limits a sandbox's use of kernel resources that all sandboxes share, where bubblewrap has no option. The limits are set before
 * the sandbox's first program starts.
 */
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { messageOf } from "../../src/shared/text.ts";
import { runHost } from "./host-programs.ts";
import { START_PROBLEMS } from "./texts.ts";

/** The most pseudo terminals of a sandbox. All sandboxes share about 3,000 (kernel.pty.max minus kernel.pty.reserve). */
const pseudoTerminals = 64;
/**
 * The limits of a sandbox. Linux's own limits for each user (128 instances and at least 8,192 watches by default) also apply to
 * programs outside the sandboxes.
 */
const inotify = { instances: 64, watches: 65_536 };

/**
 * TCP buffers in bytes: minimum, initial, maximum. By default, one connection inside a sandbox can keep 38 MiB of the shared
 * tcp_mem.
 */
const tcpBuffers = { tcp_rmem: "4096 65536 131072", tcp_wmem: "4096 16384 131072" };

/**
 * The most queues of messages (msgget(2)), and Linux's defaults for semaphores, but a million of all sets together (semget(2)), and 32 in
 * one call (semop(2)), Linux's default before 3.19:
 * - A queue can have 16,384 messages. When the sandbox has ended, a thread of the kernel frees all of them at once, and no other program
 * runs on its processor meanwhile. Linux allows 32,000 queues and a billion semaphores.
 * - After a call, the kernel tries the calls of all waiting threads again, and no other program runs on its processor meanwhile.
 */
const ipcLimits = { msgmni: "64", sem: "32000 1024000 32 32000" };
/** Before Linux 6.10, only the machine's root may set these limits; since then, only the namespace's root. */
const limitIPC = Object.entries(ipcLimits)
  .map(([file, values]) => `{ echo ${values} >/proc/sys/kernel/${file}; } 2>/dev/null`)
  .join("; ");

/**
 * Limits of the user, network and IPC namespaces (user_namespaces(7)). The files in /proc/sys belong to the namespaces of the process
 * that opens them, and no user of the sandbox may write to them.
 */
const namespaceLimits = [
  "cd /proc/sys/user || exit",
  "for file in max_*_namespaces max_fanotify_groups; do [ ! -e $file ] || echo 0 >$file; done",
  `echo ${inotify.instances} >max_inotify_instances`,
  `echo ${inotify.watches} >max_inotify_watches`,
  limitIPC,
  // Forbids timestamps of sent packets: if a program requests them, the kernel keeps the packets in memory until the program reads
  // them. Older kernels have this setting only for the whole machine.
  "[ ! -w /proc/sys/net/core/tstamp_allow_data ] || echo 0 >/proc/sys/net/core/tstamp_allow_data",
  ...Object.entries(tcpBuffers).map(([file, bytes]) => `echo ${bytes} >/proc/sys/net/ipv4/${file}`),
];

/**
 * The most files and directories of each of the sandbox's disks: as many as ext4 has on a disk of 4 GiB. Linux allows as many as
 * half of the machine's pages. A rename below 750,000 nested directories takes 0.25 s, and no other program runs on that
 * processor meanwhile.
 */
const files = Math.min(262_144, Math.floor(totalmem() / 4096 / 2));
const disks = ["/", "/dev/shm", "/var/lib/sandbox-mcp"];

const remount = (type: string, options: string, at: string) =>
  `mount --internal-only --no-mtab -t ${type} -o remount,nosuid,${options} ${type} ${at}`;

/**
 * Limits files, and pseudo terminals, because bubblewrap mounts a devpts without a limit. Records each access to a file, because
 * a write through a memory mapping may change no other time of a tmpfs (container/sandboxd/snapshots/mappings.ts). Keeps out what the
 * machine mounts later below a mounted directory: a sandbox could write to it, also if the directory is read-only.
 */
const mounts = [
  "mount --no-mtab --make-rprivate /",
  ...disks.map((disk) => remount("tmpfs", `nodev,strictatime,nr_inodes=${files}`, disk)),
  remount("devpts", `noexec,mode=620,ptmxmode=666,max=${pseudoTerminals}`, "/dev/pts"),
].join(" && ");

/** Whether the engine runs as root and may drop its groups. Root inside an unprivileged user's namespace may not drop them. */
function canDropGroups(): boolean {
  return process.getuid?.() === 0 && readFileSync("/proc/self/setgroups", "utf8").trim() === "allow";
}

export async function confine(pid: number): Promise<void> {
  // If the engine runs as root, nsenter must become the sandbox's user. Otherwise, nsenter already runs as that user, and may not
  // drop its groups.
  const isRoot = canDropGroups();
  const user = isRoot ? [] : ["--preserve-credentials"];
  const target = ["nsenter", "--target", String(pid)];
  const asRoot = [...target, "--ipc", "--", "/bin/sh", "-c", `${limitIPC}; exec "$@"`, "sh"];
  const script = [...namespaceLimits, `exec nsenter --target "$1" --mount -- sh -c '${mounts}'`].join("\n");
  const shell = ["--", "/bin/sh", "-c", script, "sh", String(pid)];
  const inside = [...target, "--user", "--net", "--ipc", ...user, ...shell];
  const [program = "", ...words] = isRoot ? [...asRoot, ...inside] : inside;
  await runHost(program, words).catch((error: unknown) => {
    throw new Error(START_PROBLEMS.bounds(messageOf(error)));
  });
}
