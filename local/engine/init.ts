/**
 * A sandbox's first process, pid 1 of its namespaces: a bash that then executes container/init.pl, as in the image. When the
 * first process ends, the kernel kills all processes of the sandbox, so no program inside may control the first process. To trace
 * a process, or to open its memory or descriptors, a program needs all capabilities of that process. So the first process keeps
 * one capability that no other program in the sandbox can have.
 */
import { accountFiles, hostname } from "./rootfs-files.ts";
import type { Limits } from "./limits.ts";
import { quote } from "../../src/shared/text.ts";

/** No other process in the sandbox has this capability. The capability gives no access to files or to other processes. */
export const initCapability = "CAP_SETPCAP";
const INIT_PROGRAM = "/opt/sandbox-mcp/init.pl";
/** bash reads its script from stdin. So it waits until the engine sends the script, and `ps` shows only a few words. */
export const initCommand = ["/bin/bash", "-p", "-s", hostname];
/** The script's first line reports on file descriptor 6 that bubblewrap is done. */
export const initGreeting = "echo complete >&6\n";

/**
 * The script after its first line. It closes inherited descriptors, except the control server's channel to the engine, and then
 * executes the command. If the engine ends before it sends this part, bash ends, too.
 */
export function initScript(command: string[]): string {
  return [
    "{ exec </dev/null",
    ...Object.entries(accountFiles).map(([path, text]) => `printf %s ${quote(text)} >${path}`),
    "umask 077; : >/etc/shadow; : >/etc/gshadow; umask 022",
    `for fd in /proc/self/fd/*; do fd=\${fd##*/}; case $fd in [012]|${CHANNEL_FD}) ;; *) eval "exec $fd>&-"; esac; done`,
    // The sandbox's variables must not make Perl load other code.
    "unset PERL5OPT PERL5LIB PERL5DB",
    `exec ${command.map(quote).join(" ")}; }`,
    "",
  ].join("\n");
}

export function superviseCommand(sandboxd: string[], server: string[], limits: Limits): string[] {
  return [
    "/usr/bin/perl",
    INIT_PROGRAM,
    ...limitCommand(sandboxd, limits),
    "+++",
    ...limitCommand(server, limits),
  ];
}

export function limitCommand(command: string[], { openFiles, processes }: Limits): string[] {
  // The limit of core dumps is soft, so programs can raise it. If the server's own hard limit is lower than ours, it stays.
  const files = `ulimit -n ${openFiles} 2>/dev/null || ulimit -n "$(ulimit -Hn)"`;
  const script = `ulimit -Sc 0; ${files}; ${userLimits({ processes })}; exec "$@"`;
  return ["/bin/bash", "-p", "-c", script, "sbx", ...withoutInitCapability(command)];
}

/** The file descriptor of Node's channel between the engine and the control server. */
export const CHANNEL_FD = 7;

export function withoutInitCapability(command: string[]): string[] {
  const capability = initCapability.replace("CAP_", "-").toLowerCase();
  const sets = ["bounding-set", "inh-caps", "ambient-caps"].map((set) => `--${set}=${capability}`);
  return ["setpriv", ...sets, "--", ...command];
}

export function userLimits({ processes }: Pick<Limits, "processes">): string {
  // No real-time priority (-r) and no higher one (-e), which the user who starts the server may have.
  const limits = [`-u ${processes}`, `-l ${lockedKiB}`, "-r 0", "-e 0"];
  return limits.map((limit) => `ulimit ${limit} 2>/dev/null`).join("; ");
}

/** How much memory each process may lock: Linux's default since 5.16. Programs that handle keys need it. */
const lockedKiB = 8192;
