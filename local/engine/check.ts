/** Checks whether bubblewrap can make a sandbox on this machine, by making one. */
import { execFile } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { promisify } from "node:util";
import { initCapability, withoutInitCapability } from "./init.ts";
import { SYSTEM_PATH } from "./system-path.ts";
import { idOfNobody } from "./ids.ts";
import { readText } from "./host-files.ts";

const execute = promisify(execFile);

type Run = (file: string, args: readonly string[]) => Promise<{ stdout: string }>;

export type Check =
  | {
      works: true;
      supported: ReadonlySet<string>;
      /** Whether sandboxes of root have their own ids; false if this is the root of a user namespace without more ids. */
      dropsRoot: boolean;
    }
  | { works: false; reason: string; remedy: string };

/** Tries every namespace that sandboxes use. Takes about 20 ms. @param path where to look for programs, as the engine does */
export async function checkBubblewrap(path = SYSTEM_PATH): Promise<Check> {
  const run: Run = (file, args) => execute(file, args, { cwd: "/", timeout: 10_000, env: { PATH: path } });
  if (process.platform !== "linux") {
    return {
      works: false,
      reason: `bubblewrap needs Linux and this is ${process.platform}`,
      remedy: "Use `npm run dev:docker`, or WSL 2 on Windows.",
    };
  }
  let help: string;
  try {
    help = (await run("bwrap", ["--help"])).stdout;
  } catch {
    return { works: false, reason: "bubblewrap is not installed", remedy: `Install it: ${installCommand()}` };
  }
  for (const program of ["nsenter", "setpriv"]) {
    const found = await run(program, ["--version"]).catch(() => undefined);
    // BusyBox's small program of the same name has too few options.
    if (found?.stdout.includes("util-linux") !== true)
      return { works: false, reason: `util-linux's ${program} is not installed`, remedy: installUtilities };
  }
  if (
    !(await run("perl", ["--version"]).then(
      () => true,
      () => false,
    ))
  )
    return { works: false, reason: "perl is not installed", remedy: `Install it: ${installCommand("perl")}` };
  const supported = new Set(help.match(/--[a-z0-9-]+/g) ?? []);
  if (!supported.has("--size")) {
    const reason = "this bubblewrap is older than 0.5 and cannot limit the size of a sandbox's files";
    return { works: false, reason, remedy: `Install a newer one: ${installCommand()}` };
  }
  const isRoot = process.getuid?.() === 0;
  const asUser = await attempt(run, isRoot, supported);
  if (asUser === undefined) return { works: true, supported, dropsRoot: isRoot };
  if (isRoot && isRootOfNamespaceAlone() && (await attempt(run, false, supported)) === undefined)
    return { works: true, supported, dropsRoot: false };
  return { works: false, ...explain(asUser) };
}

/** @returns what went wrong, or undefined. */
async function attempt(
  run: Run,
  dropRoot: boolean,
  supported: ReadonlySet<string>,
): Promise<string | undefined> {
  const mounts = ["/usr", "/bin", "/lib", "/lib64"]
    .filter((path) => existsSync(path))
    .map((path) => ({ from: path, to: path }));
  const id = String(idOfNobody);
  const user = ["setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs", "--"];
  const outer = dropRoot ? ["nsenter", "--mount=/proc/self/ns/mnt", "--", ...user] : [];
  const args = ["--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"];
  args.push("--unshare-cgroup-try", "--uid", "0", "--gid", "0", "--die-with-parent");
  if (supported.has("--disable-userns")) args.push("--disable-userns");
  args.push("--size", "1048576", "--tmpfs", "/", "--proc", "/proc", "--dev", "/dev");
  for (const { from, to } of mounts) args.push("--ro-bind", from, to);
  args.push("--cap-drop", "ALL", "--cap-add", "CAP_CHOWN", "--cap-add", initCapability, "--as-pid-1");
  args.push(...withoutInitCapability(["true"]));
  const [file = "bwrap", ...rest] = [...outer, "bwrap", ...args];
  try {
    await run(file, rest);
    return undefined;
  } catch (error) {
    const stderr = error instanceof Error && "stderr" in error ? String(error.stderr).trim() : "";
    return stderr === "" ? String(error) : stderr;
  }
}

const installUtilities = "Install util-linux, with your distribution's package manager.";

/** Whether this process is in a user namespace whose root has no rights on the machine. */
function isRootOfNamespaceAlone(): boolean {
  return !/^\s*0\s+0\s/.test(readText("/proc/self/uid_map"));
}

function explain(stderr: string): { reason: string; remedy: string } {
  const program = /\b(nsenter|setpriv)\b.*(?:ENOENT|No such file)/.exec(stderr)?.[1];
  if (program !== undefined) {
    return { reason: `${program} is not installed`, remedy: "Install util-linux, which has it." };
  }
  const reason = `bubblewrap cannot make a sandbox here: ${stderr}`;
  if (setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") === "1") {
    const remedy =
      "AppArmor forbids user namespaces to unprivileged programs (Ubuntu 23.10 and newer). Allow them until the next " +
      "start with `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or for good with a file in /etc/sysctl.d.";
    return { reason, remedy };
  }
  if (setting("/proc/sys/kernel/unprivileged_userns_clone") === "0") {
    return { reason, remedy: "Allow user namespaces: `sudo sysctl -w kernel.unprivileged_userns_clone=1`." };
  }
  if (setting("/proc/sys/user/max_user_namespaces") === "0") {
    return { reason, remedy: "Allow user namespaces: `sudo sysctl -w user.max_user_namespaces=15000`." };
  }
  const remedy =
    "Inside a container, allow it nested namespaces and an unmasked /proc (Docker: `--security-opt seccomp=unconfined " +
    "--security-opt apparmor=unconfined --security-opt systempaths=unconfined`; for a server that root starts also `--cap-add SYS_ADMIN`), or choose `--isolation none`.";
  return { reason, remedy };
}

function setting(file: string): string | undefined {
  return existsSync(file) ? readFileSync(file, "utf8").trim() : undefined;
}

/** The command that installs a package on this distribution. */
export function installCommand(name: "bubblewrap" | "perl" = "bubblewrap"): string {
  const managers: [file: string, command: string][] = [
    ["/usr/bin/apt-get", "sudo apt-get install -y"],
    ["/usr/bin/dnf", "sudo dnf install -y"],
    ["/usr/bin/pacman", "sudo pacman -S --noconfirm"],
    ["/usr/bin/zypper", "sudo zypper install -y"],
    ["/sbin/apk", "sudo apk add bash util-linux"],
  ];
  const found = managers.find(([file]) => existsSync(file));
  if (found) return `${found[1]} ${name}`;
  return name === "perl"
    ? "see https://www.perl.org/get.html"
    : "see https://github.com/containers/bubblewrap";
}
