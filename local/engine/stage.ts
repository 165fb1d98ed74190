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
import { relative } from "node:path";
import { readInfo, type Mount } from "./bubblewrap.ts";

/** What is hidden by the stage in its own namespace is in no sandbox anyway. */
const place = "/tmp";

export class Stage {
  readonly #mounts: Mount[];
  readonly #directory: string;
  #holder: { child: ChildProcess; pid: Promise<number> } | undefined;

  /**
   * @param mounts What every sandbox is shown.
   * @param directory The engine's own directory, in which each sandbox's files appear.
   */
  constructor(mounts: Mount[], directory: string) {
    this.#mounts = mounts;
    this.#directory = directory;
  }

  /** The command before bubblewrap's. @throws Error when the namespace cannot be made. */
  async enter(uid: number): Promise<string[]> {
    const pid = await this.#pid();
    const id = String(uid);
    const user = ["setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--no-new-privs", "--"];
    return ["nsenter", `--mount=/proc/${pid}/ns/mnt`, "--", ...user];
  }

  /** The same mounts from the sources as they are in there. */
  translate(mounts: Mount[]): Mount[] {
    return mounts.map(({ from, to }) => {
      const index = this.#mounts.findIndex((mount) => mount.from === from);
      return { from: `${place}/${index < 0 ? `engine/${relative(this.#directory, from)}` : index}`, to };
    });
  }

  stop(): void {
    this.#holder?.child.kill("SIGKILL");
  }

  async #pid(): Promise<number> {
    const { child } = this.#holder ?? {};
    if (child === undefined || child.exitCode !== null || child.signalCode !== null)
      this.#holder = this.#start();
    const pid = await this.#holder?.pid;
    if (pid === undefined) throw new Error("The engine's mount namespace is gone.");
    return pid;
  }

  #start(): { child: ChildProcess; pid: Promise<number> } {
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
    this.#mounts.forEach(({ from }, index) => args.push("--ro-bind", from, `${place}/${index}`));
    args.push("--bind", this.#directory, `${place}/engine`, "--chdir", "/");
    // It reads to the end, which comes when the engine ends.
    args.push("/bin/sh", "-c", "echo ready; exec cat >/dev/null");
    const child = spawn("bwrap", args, {
      cwd: "/",
      detached: true,
      env: { PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" },
      stdio: ["pipe", "pipe", "ignore", "pipe"],
    });
    // It must not keep a process alive that has closed its engine or is about to end.
    child.unref();
    const ended = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
    // The process id comes first; the mounts are there when the command runs.
    const ready = new Promise((resolve) => child.stdout?.once("data", resolve));
    const pid = readInfo(child.stdio[3], ended).then(async (number) => {
      await Promise.race([ready, ended]);
      return number;
    });
    pid.catch(() => undefined);
    return { child, pid };
  }
}
