/**
 * The first process of a sandbox, pid 1 of its namespaces: a bash that becomes container/init.pl, as in the image. The kernel
 * ends every process of a sandbox with it, so nothing inside may have a say in it: it keeps one capability more than whatever it
 * starts can have, and the kernel lets a process trace, or open the memory or the descriptors of, only what has no more
 * capabilities than itself.
 */
import { accountFiles, hostname } from "./rootfs-files.ts";
import type { Limits } from "./limits.ts";
import { quote } from "../../src/shared/text.ts";

/** It stays out of the capabilities of everything else in the sandbox. By itself it gives no right over anything. */
export const initCapability = "CAP_SETPCAP";

const INIT_PROGRAM = "/opt/sandbox-mcp/init.pl";

/** It reads its script from stdin, so that it does nothing before the engine says so, and `ps` shows a few words. */
export const initCommand = ["/bin/bash", "-p", "-s", hostname];

/** The first line of its script: says on file descriptor 6 that bubblewrap is done. */
export const initGreeting = "echo complete >&6\n";

/**
 * What the engine writes to its stdin after that: the program that the first process becomes. Without it the first process ends. It
 * closes what file descriptors came along, but for the control server's channel to the engine.
 */
export function initScript(command: string[]): string {
  return [
    "{ exec </dev/null",
    ...Object.entries(accountFiles).map(([path, text]) => `printf %s ${quote(text)} >${path}`),
    "umask 077; : >/etc/shadow; : >/etc/gshadow; umask 022",
    `for fd in /proc/self/fd/*; do fd=\${fd##*/}; case $fd in [012]|${channel}) ;; *) eval "exec $fd>&-"; esac; done`,
    // The sandbox's variables must not have Perl load code of its own.
    "unset PERL5OPT PERL5LIB PERL5DB",
    `exec ${command.map(quote).join(" ")}; }`,
    "",
  ].join("\n");
}

/** What keeps these two commands running, each within the limits. */
export function supervised(sandboxd: string[], server: string[], limits: Limits): string[] {
  return ["/usr/bin/perl", INIT_PROGRAM, ...limited(sandboxd, limits), "+++", ...limited(server, limits)];
}

/** The command within the limits of one process, and without the first one's capability. */
export function limited(command: string[], { openFiles, processes }: Limits): string[] {
  // A core dump only where somebody asks for it. The machine's limits stay where they are lower.
  const script = `ulimit -Sc 0; ulimit -n ${openFiles} 2>/dev/null; ${userLimits({ processes })}; exec "$@"`;
  return ["/bin/bash", "-p", "-c", script, "sbx", ...withoutInitCapability(command)];
}

/** The file descriptor of the channel that Node has between the engine and the control server. */
export const channel = 7;

/** The command as a process that can never have the first one's capability. */
export function withoutInitCapability(command: string[]): string[] {
  const capability = initCapability.replace("CAP_", "-").toLowerCase();
  const sets = ["bounding-set", "inh-caps", "ambient-caps"].map((set) => `--${set}=${capability}`);
  return ["setpriv", ...sets, "--", ...command];
}

/** Limits of one user, as commands. */
export function userLimits({ processes }: Pick<Limits, "processes">): string {
  const limits = [`-u ${processes}`, `-l ${lockedKiB}`, `-i ${pendingSignals}`];
  return limits.map((limit) => `ulimit ${limit} 2>/dev/null`).join("; ");
}

/** What processes may keep out of reach of the machine's memory management. */
const lockedKiB = 8192;
/** Signals that wait, and timers, which take a place among them: a pool of the user's. */
const pendingSignals = 4096;
