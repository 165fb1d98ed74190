/**
 * The mount namespace of an engine that runs as root. Its sandboxes run as unprivileged users, so that root in a sandbox has no
 * privileges on the host. Process limits apply to this root, and it has no access to files or kernel settings of the host's root.
 * But an unprivileged user may be unable to reach files that the sandbox needs (for example a clone under /root). So the engine
 * mounts these files in a mount namespace, and starts bubblewrap in it.
 *
 * When bubblewrap starts in an existing namespace, there is no other process between the engine and bubblewrap. A second
 * bubblewrap around the first would be such a process. Then `--die-with-parent` would not work, because the outer bubblewrap may
 * not send signals to the inner one.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { relative } from "node:path";
import { readChildPID, type Mount } from "./bubblewrap.ts";
import { messageOf } from "../../src/shared/text.ts";
import { systemPath } from "./host-programs.ts";
import type { HostIDs } from "./host-directories.ts";
import { mountMapped, unmountMapped } from "./id-mapped-mount.ts";
import { MACHINE } from "./texts.ts";

/** The mount point inside the namespace. It hides the host's /tmp, which sandboxes never see. */
const place = "/tmp";

/** A process that keeps the namespace open. */
interface Holder {
  child: ChildProcess;
  pid: Promise<number>;
  /** The fingerprint of the files in the namespace. */
  key: string;
}

export class MountNamespace {
  readonly #directory: string;
  readonly #directories: readonly Mount[];
  #holder: Holder | undefined;
  /** The previous namespace is kept, because a sandbox may be about to enter it. */
  #previous: Holder | undefined;

  constructor(directory: string, directories: readonly Mount[] = []) {
    this.#directories = directories;
    this.#directory = directory;
  }

  /**
   * Opens the namespace, or a new one if a package manager has replaced one of its files. The old namespace still shows the
   * removed file, which cannot be mounted in a sandbox.
   * @throws Error if the namespace cannot be created, or a directory's owner cannot be mapped
   */
  async open(mounts: Mount[], { root, directoryMaps }: HostIDs) {
    // The namespace has the directories of all sandboxes, so that sandboxes with different directories can share it.
    const directories = this.#directories.filter(({ from }) => existsSync(from));
    const otherMounts = [...mounts, ...directories].filter(
      ({ from }) => this.#enginePath(from) === undefined,
    );
    const sources = [...new Set(otherMounts.map(({ from }) => from))];
    const writable = new Set(directories.flatMap((mount) => (mount.isWritable ? mount.from : [])));
    const holder = this.#currentHolder(sources, writable);
    const pid = await holder.pid;
    const pathOf = (from: string) => `${place}/${this.#enginePath(from) ?? sources.indexOf(from)}`;
    /** The paths of mounts that show another owner, by the path of the directory. */
    const mappedPaths = new Map<string, string>();
    const ofSandbox = directories.filter((mount) => mounts.some(isSame(mount)));
    if (directoryMaps !== undefined)
      for (const { from } of ofSandbox) {
        const path = `${pathOf(from)}-${root.uid}`;
        await mountMapped(pid, pathOf(from), path, directoryMaps).catch((error: unknown) => {
          throw new Error(MACHINE.ofRoot(from, messageOf(error)));
        });
        mappedPaths.set(from, path);
      }
    const ids = ["--reuid", String(root.uid), "--regid", String(root.gid), "--clear-groups"];
    const asUser = ["setpriv", ...ids, "--no-new-privs", "--"];
    return {
      enter: ["nsenter", `--mount=/proc/${pid}/ns/mnt`, "--", ...asUser],
      translate: (requested: Mount[]): Mount[] =>
        requested.map(({ from, ...rest }) => ({ ...rest, from: mappedPaths.get(from) ?? pathOf(from) })),
      /** Removes the mounts that are only for this sandbox. Call it when the sandbox has mounted them or has failed to start. */
      release: async () => {
        for (const path of mappedPaths.values()) await unmountMapped(pid, path).catch(() => undefined);
      },
    };
  }

  stop(): void {
    for (const holder of [this.#holder, this.#previous]) holder?.child.kill("SIGKILL");
  }

  #enginePath(from: string): string | undefined {
    const path = relative(this.#directory, from);
    return path.startsWith("..") ? undefined : `engine/${path}`;
  }

  #currentHolder(sources: string[], writable: ReadonlySet<string>): Holder {
    const key = fingerprint(sources);
    const present = this.#holder;
    if (present?.key === key && present.child.exitCode === null && present.child.signalCode === null)
      return present;
    this.#previous?.child.kill("SIGKILL");
    this.#previous = present;
    this.#holder = { ...this.#start(sources, writable), key };
    return this.#holder;
  }

  #start(sources: string[], writable: ReadonlySet<string>): Pick<Holder, "child" | "pid"> {
    const args = ["--die-with-parent", "--info-fd", "3", "--dev-bind", "/", "/"];
    args.push("--size", "1048576", "--tmpfs", place);
    sources.forEach((from, index) => {
      args.push(writable.has(from) ? "--bind" : "--ro-bind", from, `${place}/${index}`);
    });
    args.push("--bind", this.#directory, `${place}/engine`, "--chdir", "/");
    // cat ends when its input closes, which happens when the engine ends.
    args.push("/bin/sh", "-c", "echo ready; exec cat >/dev/null");
    const child = spawn("bwrap", args, {
      cwd: "/",
      detached: true,
      env: { PATH: systemPath() },
      stdio: ["pipe", "pipe", "pipe", "pipe"],
    });
    let printed = "";
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (printed = (printed + text).slice(-1024)));
    const ended = new Promise((resolve) => child.once("close", resolve).once("error", resolve));
    // bubblewrap reports the process id before the mounts exist; they exist once the command runs.
    const ready = new Promise((resolve) => child.stdout?.once("data", resolve));
    const pid = readChildPID(child.stdio[3], ended).then(async (number) => {
      await Promise.race([ready, ended.then(() => Promise.reject(new Error(printed.trim())))]);
      return number;
    });
    pid.catch(() => undefined);
    return { child, pid };
  }
}

const isSame = (one: Mount) => (other: Mount) => one.from === other.from && one.to === other.to;

export function fingerprint(paths: string[]): string {
  return paths
    .map((path) => {
      const found = statSync(path, { throwIfNoEntry: false });
      return `${path} ${found?.dev} ${found?.ino}`;
    })
    .join("\n");
}
