/**
 * For an engine that runs as root. Its sandboxes run as users without rights, so that root in a sandbox is nobody
 * on the host: process limits bind it, and no file or kernel setting of the host's root is open to it. Such a user
 * may not be able to reach what a sandbox is shown (a clone under /root is closed to everyone else), so a mount
 * namespace holds all of it in one place, and bubblewrap is started in there.
 *
 * Entering a namespace leaves no process between the engine and bubblewrap: bubblewrap's own "die with parent" only
 * works from a parent that may signal it, which a bubblewrap of root's around it may not.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, statSync } from "node:fs";
import { relative } from "node:path";
import { readInfo, type Mount } from "./bubblewrap.ts";
import { messageOf } from "../../src/shared/text.ts";
import { SYSTEM_PATH } from "./system-path.ts";
import type { HostIDs } from "./host-directories.ts";
import { mountMapped } from "./id-mapped-mount.ts";

/** Where the namespace holds its mounts. They hide the host's /tmp, which no sandbox is shown. */
const place = "/tmp";

/** A mount namespace that holds certain mounts. */
export interface MountNamespaceView {
  /** The command to put before bubblewrap's: it enters the namespace as the user that the sandbox's root is. */
  enter: string[];
  /** The same mounts, with their sources as the namespace names them. */
  translate(mounts: Mount[]): Mount[];
}

interface Holder {
  child: ChildProcess;
  pid: Promise<number>;
  /** The `fingerprint` of its mounts. */
  held: string;
  /** The mounts in it that show another owner, by their paths there. */
  mapped: Map<string, Promise<void>>;
}

export class MountNamespace {
  readonly #directory: string;
  readonly #directories: readonly Mount[];
  #holder: Holder | undefined;
  /** The previous one is kept, because a sandbox may be about to enter it. */
  #former: Holder | undefined;

  /**
   * @param directory the engine's own directory, in which each sandbox's files appear
   * @param directories the operator's directories that single sandboxes may use
   */
  constructor(directory: string, directories: readonly Mount[] = []) {
    this.#directories = directories;
    this.#directory = directory;
  }

  /**
   * Makes the namespace, or a new one when the host has replaced a file of it, as package managers do: a mount goes on
   * showing the removed file, which cannot be mounted into another sandbox.
   * @param mounts the mounts of one sandbox, files below the engine's directory among them
   * @throws Error when the namespace cannot be made, or a directory of root's cannot be shown as another's
   */
  async open(mounts: Mount[], { root, directoryMap }: HostIDs): Promise<MountNamespaceView> {
    // The directories of all sandboxes, so that sandboxes with different ones share a namespace.
    const given = this.#directories.filter(({ from }) => existsSync(from));
    const held = [...mounts, ...given].filter(({ from }) => this.#own(from) === undefined);
    const sources = [...new Set(held.map(({ from }) => from))];
    const writable = new Set(given.flatMap((mount) => (mount.writable ? mount.from : [])));
    const holder = this.#current(sources, writable);
    const pid = await holder.pid;
    const heldAt = (from: string) => `${place}/${this.#own(from) ?? sources.indexOf(from)}`;
    const shown = new Map<string, string>();
    for (const { from } of directoryMap === undefined
      ? []
      : given.filter((one) => mounts.some(isSame(one)))) {
      const path = `${heldAt(from)}-${root.uid}`;
      const mounted = holder.mapped.get(path) ?? mountMapped(pid, heldAt(from), path, directoryMap ?? "");
      holder.mapped.set(path, mounted);
      await mounted.catch((error: unknown) => {
        holder.mapped.delete(path);
        throw new Error(
          `${from} belongs to root, and this machine cannot show it as another user's (${messageOf(error)}). ` +
            `Give it to a user: chown -R USER ${from}`,
        );
      });
      shown.set(from, path);
    }
    const ids = ["--reuid", String(root.uid), "--regid", String(root.gid), "--clear-groups"];
    return {
      enter: ["nsenter", `--mount=/proc/${pid}/ns/mnt`, "--", "setpriv", ...ids, "--no-new-privs", "--"],
      translate: (requested) =>
        requested.map(({ from, ...rest }) => ({ ...rest, from: shown.get(from) ?? heldAt(from) })),
    };
  }

  stop(): void {
    for (const holder of [this.#holder, this.#former]) holder?.child.kill("SIGKILL");
  }

  /** The path of a file of the engine's directory below `place`; undefined for any other file. */
  #own(from: string): string | undefined {
    const path = relative(this.#directory, from);
    return path.startsWith("..") ? undefined : `engine/${path}`;
  }

  #current(sources: string[], writable: ReadonlySet<string>): Holder {
    const held = fingerprint(sources);
    const present = this.#holder;
    if (present?.held === held && present.child.exitCode === null && present.child.signalCode === null)
      return present;
    this.#former?.child.kill("SIGKILL");
    this.#former = present;
    this.#holder = { ...this.#start(sources, writable), held, mapped: new Map() };
    return this.#holder;
  }

  #start(sources: string[], writable: ReadonlySet<string>): Pick<Holder, "child" | "pid"> {
    const args = [
      "--die-with-parent",
      "--info-fd",
      "3",
      "--dev-bind",
      "/",
      "/",
      "--size",
      "1048576",
      "--tmpfs",
      place,
    ];
    sources.forEach((from, index) => {
      args.push(writable.has(from) ? "--bind" : "--ro-bind", from, `${place}/${index}`);
    });
    args.push("--bind", this.#directory, `${place}/engine`, "--chdir", "/");
    // cat ends with its input, which closes when the engine ends.
    args.push("/bin/sh", "-c", "echo ready; exec cat >/dev/null");
    const child = spawn("bwrap", args, {
      cwd: "/",
      detached: true,
      env: { PATH: SYSTEM_PATH },
      stdio: ["pipe", "pipe", "pipe", "pipe"],
    });
    // The child must not keep the engine's process alive.
    child.unref();
    let printed = "";
    child.stderr?.on("data", (chunk: Buffer) => (printed = (printed + chunk.toString()).slice(-1024)));
    const ended = new Promise((resolve) => child.once("close", resolve).once("error", resolve));
    // bubblewrap reports the process id before the mounts exist; they do once the command runs.
    const ready = new Promise((resolve) => child.stdout?.once("data", resolve));
    const pid = readInfo(child.stdio[3], ended).then(async (number) => {
      await Promise.race([ready, ended.then(() => Promise.reject(new Error(printed.trim())))]);
      return number;
    });
    pid.catch(() => undefined);
    return { child, pid };
  }
}

const isSame = (one: Mount) => (other: Mount) => one.from === other.from && one.to === other.to;

/** Changes when a path leads to another file. */
export function fingerprint(paths: string[]): string {
  return paths
    .map((path) => {
      const found = statSync(path, { throwIfNoEntry: false });
      return `${path} ${found?.dev} ${found?.ino}`;
    })
    .join("\n");
}
