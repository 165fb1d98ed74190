/** Checks whether bubblewrap can make a sandbox on this machine, by making one. */
import { existsSync } from "node:fs";
import { messageOf } from "../../src/shared/text.ts";
import { initCapability, withoutInitCapability } from "./init.ts";
import { runHost, systemPath } from "./host-programs.ts";
import { idOfNobody } from "./ids.ts";
import { readText } from "./host-files.ts";
import { BUBBLEWRAP } from "./texts.ts";

type Run = (program: string, args: readonly string[]) => Promise<string>;

export type Check =
  | {
      works: true;
      supported: ReadonlySet<string>;
      /**
       * Whether an engine that runs as root runs sandboxes under other user ids. In a user namespace with only one id, root has
       * no other ids.
       */
      dropsRoot: boolean;
    }
  | { works: false; reason: string; remedy: string };

/** Takes about 20 ms. @param path where to look for programs, as the engine does */
export async function checkBubblewrap(path = systemPath()): Promise<Check> {
  const run: Run = (program, args) => runHost(program, args, path);
  if (process.platform !== "linux") {
    return failedCheck(BUBBLEWRAP.notLinux(process.platform), BUBBLEWRAP.useOther);
  }
  const help = await run("bwrap", ["--help"]).catch(() => undefined);
  if (help === undefined)
    return failedCheck(BUBBLEWRAP.missing("bubblewrap"), BUBBLEWRAP.install(installCommand()));
  for (const program of ["nsenter", "setpriv"]) {
    const found = await run(program, ["--version"]).catch(() => "");
    // BusyBox has programs of the same names with too few options.
    if (!found.includes("util-linux"))
      return failedCheck(BUBBLEWRAP.missing(`util-linux's ${program}`), BUBBLEWRAP.installUtilities);
  }
  if (!(await run("perl", ["--version"]).catch(() => undefined)))
    return failedCheck(BUBBLEWRAP.missing("perl"), BUBBLEWRAP.install(installCommand("perl")));
  const supported = new Set(help.match(/--[a-z0-9-]+/g) ?? []);
  if (!supported.has("--size")) return failedCheck(BUBBLEWRAP.old, BUBBLEWRAP.installNewer(installCommand()));
  const isRoot = process.getuid?.() === 0;
  const problem = await tryBubblewrap(run, isRoot, supported);
  if (problem === undefined) return { works: true, supported, dropsRoot: isRoot };
  if (isRoot && isRootOnlyInNamespace() && (await tryBubblewrap(run, false, supported)) === undefined)
    return { works: true, supported, dropsRoot: false };
  return explain(problem);
}

/** Makes a sandbox. @returns the reason if that fails, else undefined */
async function tryBubblewrap(
  run: Run,
  dropsRoot: boolean,
  supported: ReadonlySet<string>,
): Promise<string | undefined> {
  const mounts = ["/usr", "/bin", "/lib", "/lib64"]
    .filter((path) => existsSync(path))
    .map((path) => ({ from: path, to: path }));
  const id = String(idOfNobody);
  const user = ["setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs", "--"];
  const outer = dropsRoot ? ["nsenter", "--mount=/proc/self/ns/mnt", "--", ...user] : [];
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
    return messageOf(error);
  }
}

function isRootOnlyInNamespace(): boolean {
  return !/^\s*0\s+0\s/.test(readText("/proc/self/uid_map"));
}

function failedCheck(reason: string, remedy: string): Check {
  return { works: false, reason, remedy };
}

function explain(stderr: string): Check {
  const program = /\b(nsenter|setpriv)\b.*(?:ENOENT|No such file)/.exec(stderr)?.[1];
  if (program !== undefined) return failedCheck(BUBBLEWRAP.missing(program), BUBBLEWRAP.installUtilities);
  const reason = BUBBLEWRAP.failed(stderr);
  if (readText("/proc/sys/kernel/apparmor_restrict_unprivileged_userns").trim() === "1")
    return failedCheck(reason, BUBBLEWRAP.allowAppArmor);
  if (readText("/proc/sys/kernel/unprivileged_userns_clone").trim() === "0")
    return failedCheck(reason, BUBBLEWRAP.allow("kernel.unprivileged_userns_clone=1"));
  if (readText("/proc/sys/user/max_user_namespaces").trim() === "0")
    return failedCheck(reason, BUBBLEWRAP.allow("user.max_user_namespaces=15000"));
  return failedCheck(reason, BUBBLEWRAP.allowNested);
}

function installCommand(name: "bubblewrap" | "perl" = "bubblewrap"): string {
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
