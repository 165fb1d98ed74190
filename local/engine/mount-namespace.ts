/**
 * For an engine that runs as root. Its sandboxes run as a user without rights, so that root in a sandbox is nobody
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
import { SYSTEM_PATH } from "./system-path.ts";
import type { HostUser } from "./mounts.ts";

/** What is hidden by the stage in its own namespace is in no sandbox anyway. */
const place = "/tmp";

/** A stage that holds certain mounts. */
export interface StageView {
  /** The command before bubblewrap's, which enters the stage as a user. */
  enter(user: HostUser): string[];
  /** The same mounts from the sources as they are in there. */
  translate(mounts: Mount[]): Mount[];
}

interface Holder {
  child: ChildProcess;
  pid: Promise<number>;
  /** What it holds, as `fingerprint` gives it. */
  held: string;
}

export class Stage {
  readonly #directory: string;
  readonly #directories: readonly Mount[];
  #holder: Holder | undefined;
  /** The one before: a sandbox may be about to enter it. */
  #former: Holder | undefined;

  /**
   * @param directory The engine's own directory, in which each sandbox's files appear.
   * @param directories What the operator gave to single sandboxes.
   */
  constructor(directory: string, directories: readonly Mount[] = []) {
    this.#directories = directories;
    this.#directory = directory;
  }

  /**
   * @param mounts What a sandbox is shown, and perhaps files below the engine's directory. A mount goes on showing a
   *   file that the host has replaced, as package managers do all the time, and such a file cannot be shown to a new
   *   sandbox: so the stage is made anew when one was.
   * @throws Error when the namespace cannot be made.
   */
  async open(mounts: Mount[]): Promise<StageView> {
    // Those of every sandbox, so that two sandboxes that start in turn need no stage each.
    const given = this.#directories.filter(({ from }) => existsSync(from));
    const held = [...mounts, ...given].filter(({ from }) => this.#own(from) === undefined);
    const sources = [...new Set(held.map(({ from }) => from))];
    const writable = new Set(given.flatMap((mount) => (mount.writable ? mount.from : [])));
    const pid = await this.#pid(sources, writable);
    return {
      enter: ({ uid, gid }) => {
        const ids = ["--reuid", String(uid), "--regid", String(gid), "--clear-groups"];
        return ["nsenter", `--mount=/proc/${pid}/ns/mnt`, "--", "setpriv", ...ids, "--no-new-privs", "--"];
      },
      translate: (asked) =>
        asked.map(({ from, ...rest }) => ({
          ...rest,
          from: `${place}/${this.#own(from) ?? sources.indexOf(from)}`,
        })),
    };
  }

  stop(): void {
    for (const holder of [this.#holder, this.#former]) holder?.child.kill("SIGKILL");
  }

  /** Where a file of the engine's directory is on the stage; undefined for any other. */
  #own(from: string): string | undefined {
    const path = relative(this.#directory, from);
    return path.startsWith("..") ? undefined : `engine/${path}`;
  }

  async #pid(sources: string[], writable: ReadonlySet<string>): Promise<number> {
    const held = fingerprint(sources);
    const { child } = this.#holder ?? {};
    const isGone = child === undefined || child.exitCode !== null || child.signalCode !== null;
    if (isGone || this.#holder?.held !== held) {
      this.#former?.child.kill("SIGKILL");
      this.#former = this.#holder;
      this.#holder = { ...this.#start(sources, writable), held };
    }
    const pid = await this.#holder?.pid;
    if (pid === undefined) throw new Error("The engine's mount namespace is gone.");
    return pid;
  }

  #start(sources: string[], writable: ReadonlySet<string>): Omit<Holder, "held"> {
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
    // It reads to the end, which comes when the engine ends.
    args.push("/bin/sh", "-c", "echo ready; exec cat >/dev/null");
    const child = spawn("bwrap", args, {
      cwd: "/",
      detached: true,
      env: { PATH: SYSTEM_PATH },
      stdio: ["pipe", "pipe", "pipe", "pipe"],
    });
    // It must not keep a process alive that has closed its engine or is about to end.
    child.unref();
    let printed = "";
    child.stderr?.on("data", (chunk: Buffer) => (printed = (printed + chunk.toString()).slice(-1024)));
    const ended = new Promise((resolve) => child.once("close", resolve).once("error", resolve));
    // The process id comes first; the mounts are there when the command runs.
    const ready = new Promise((resolve) => child.stdout?.once("data", resolve));
    const pid = readInfo(child.stdio[3], ended).then(async (number) => {
      await Promise.race([ready, ended.then(() => Promise.reject(new Error(printed.trim())))]);
      return number;
    });
    pid.catch(() => undefined);
    return { child, pid };
  }
}

/** Another for every change of which files the paths lead to. */
function fingerprint(paths: string[]): string {
  return paths
    .map((path) => {
      const found = statSync(path, { throwIfNoEntry: false });
      return `${path} ${found?.dev} ${found?.ino}`;
    })
    .join("\n");
}
