/** One sandbox: its processes, connections and egress, and their removal. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmod, type FileHandle, mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { ConnectionLog } from "../../src/shared/connection-log.ts";
import type { NetworkPolicy } from "../../src/shared/network-policy.ts";
import type { ExitReport, Intercepts, StartRequest } from "../platform/engine-protocol.ts";
import { type Mount, type View, keyPlace, tokenPlace } from "./bubblewrap.ts";
import { startUnisolated } from "./unisolated.ts";
import { createEgress, type Egress } from "./egress.ts";
import { PortForwarder } from "./forward.ts";
import { hostsFile, sandboxEnvironment } from "./rootfs-files.ts";
import type { HostDirectory } from "./engine-settings.ts";
import type { OwnServer } from "../../container/sandboxd/engine-link.ts";
import { launch, type RunningProcess } from "./launch.ts";
import { sandboxMark } from "./leftovers.ts";
import { createGroups, killAtOnce, removeGroups, type GroupParent, type Limits } from "./limits.ts";
import { claimIDsFor, type HostIDs, openDirectory, refuseSetID } from "./host-directories.ts";
import { OutboundQueue } from "./outbound-queue.ts";
import { cacheEnvironment } from "./compile-cache.ts";
import type { CertificateAuthority } from "./authority.ts";
import { serveListeners } from "./proxy-listeners.ts";
import type { MountNamespace } from "./mount-namespace.ts";
import type { UpstreamOptions } from "./upstream.ts";
import { NEEDS_ISOLATION, NO_INTERNET, NO_NETWORK, NOT_IN_USE } from "./texts.ts";

export interface SharedSettings {
  view: View;
  directories: HostDirectory[];
  limits: Limits;
  groupParents: GroupParent[];
  authority: CertificateAuthority | undefined;
  network: "internet" | "none";
  upstream: UpstreamOptions;
  /** Undefined without isolation. */
  bubblewrap: { supported: ReadonlySet<string>; mountNamespace: MountNamespace | undefined } | undefined;
  mounts: () => Mount[];
  cache?: Mount;
  onOutput: (id: string, text: string) => void;
  log: (line: string) => void;
}

export interface SandboxPlace {
  id: string;
  directory: string;
  group: string;
}

/** The part of a start request that cannot change while the sandbox runs. */
export type CreateOptions = Pick<StartRequest, "name" | "env">;
const SANDBOXD_POLL_MS = 20;

const START_KERNEL =
  "POST /kernel HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

const UNRESTRICTED: NetworkPolicy = { internet: "full", allowHosts: [] };
const NO_INTERCEPTS: Intercepts = { http: [], https: [] };
const HOSTS_FILE = "hosts";
const TOKEN_FILE = "token";
/** How long a stopping sandbox may take before it is killed, in milliseconds. init.pl, its first process, has a shorter limit. */
const graceMs = 660_000;

export class EngineSandbox {
  /** The id of the sandbox's Durable Object; undefined before `assign`. */
  actor: string | undefined;
  readonly egress: Egress;
  readonly forward: PortForwarder;
  /** Settles when the sandbox's processes and files are gone; never rejects. */
  readonly ended: Promise<ExitReport>;
  hasEnded = false;
  /** The control groups of the sandbox's processes. */
  readonly groups: readonly string[];
  #isEnding = false;
  readonly #running: RunningProcess;
  readonly #common: SharedSettings;
  readonly #place: SandboxPlace;
  #stopReason: string | undefined;
  #broken: string | undefined;

  private constructor(
    common: SharedSettings,
    place: SandboxPlace,
    running: RunningProcess,
    egress: Egress,
    groups: readonly string[],
    cleanUp: (groups: readonly string[]) => Promise<void>,
  ) {
    this.#common = common;
    this.#place = place;
    this.#running = running;
    this.egress = egress;
    this.groups = groups;
    this.forward = new PortForwarder(running.connect);
    this.ended = running.exited.then(async (report) => {
      this.hasEnded = true;
      this.forward.close();
      await cleanUp(groups);
      if (this.#broken !== undefined) return { exitCode: 137, reason: this.#broken };
      return this.#stopReason === undefined ? report : { exitCode: 0, reason: this.#stopReason };
    });
  }

  /** Starts a sandbox without an actor; no request leaves the sandbox before `assign`. @throws Error with a message for the user */
  static async start(
    common: SharedSettings,
    place: SandboxPlace,
    options: CreateOptions,
  ): Promise<EngineSandbox> {
    const { directory } = place;
    const queue = new OutboundQueue();
    const internet = { allowed: false, reason: NOT_IN_USE } as const;
    const connections = new ConnectionLog();
    const egress: Egress = {
      intercepts: NO_INTERCEPTS,
      internet,
      policy: UNRESTRICTED,
      connections,
      queue,
      upstream: common.upstream,
      authority: common.authority,
    };
    const server = createEgress(egress);
    let groups: string[] = [];
    let ids: HostIDs | undefined;
    let opened: FileHandle | undefined;
    let closeEgress = () => {};
    const cleanUp = async (used: readonly string[]) => {
      queue.close();
      closeEgress();
      await opened?.close();
      await removeGroups(used);
      ids?.release();
      await rm(directory, { recursive: true, force: true }).catch(() => undefined);
    };
    try {
      await mkdir(directory, { mode: 0o711 });
      /** A file that the sandbox's user can read, too. */
      const writeShared = async (name: string, text: string) => {
        const path = join(directory, name);
        await writeFile(path, text);
        await chmod(path, 0o644);
        return path;
      };
      const hosts = await writeShared(HOSTS_FILE, hostsFile([]));
      const token = await writeShared(TOKEN_FILE, "");
      const key = randomBytes(16).toString("hex");
      const keyFile = await writeShared("key", key);
      groups = await createGroups(common.groupParents, place.group, common.limits);
      const env = {
        ...sandboxEnvironment(options.env),
        ...(common.cache === undefined ? {} : cacheEnvironment),
      };
      const onOutput = (text: string) => common.onOutput(place.id, text);
      const ownDirectory = common.directories.find(({ name }) => name === options.name);
      const { limits, bubblewrap, view } = common;
      const mountNamespace = bubblewrap?.mountNamespace;
      if (ownDirectory !== undefined) opened = await openDirectory(ownDirectory);
      // `npm start` has checked the directory, but since then somebody may have added a set-user-id or set-group-id file.
      if (ownDirectory?.isWritable === true) await refuseSetID(ownDirectory.from);
      if (mountNamespace !== undefined) ids = await claimIDsFor(opened);
      const own = [
        { from: hosts, to: "/etc/hosts" },
        { from: token, to: tokenPlace },
        { from: keyFile, to: keyPlace },
        ...(ownDirectory === undefined ? [] : [{ ...ownDirectory, opened }]),
      ];
      const { toolchain } = view;
      const running =
        bubblewrap === undefined
          ? await startUnisolated({ directory, view, env, groups, onOutput })
          : await launch(
              {
                mounts: [...common.mounts(), ...own],
                record: join(directory, sandboxMark),
                supported: bubblewrap.supported,
                unprivileged: mountNamespace && ids && { mountNamespace, ids },
                toolchain,
                limits,
                env,
                groups,
                onOutput,
              },
              key,
            );
      closeEgress = serveListeners(server, running.egress);
      return new EngineSandbox(common, place, running, egress, groups, cleanUp);
    } catch (error) {
      await cleanUp(groups);
      throw error;
    }
  }

  async assign(
    id: string,
    { actor, enableInternet, intercepts, policy, token = "" }: StartRequest,
  ): Promise<void> {
    this.setPolicy(policy ?? UNRESTRICTED);
    this.actor = actor;
    this.#place.id = id;
    this.egress.internet = !enableInternet
      ? { allowed: false, reason: NO_INTERNET }
      : this.#common.network === "none"
        ? { allowed: false, reason: NO_NETWORK }
        : { allowed: true };
    await this.setIntercepts(intercepts);
    // Overwrites the file instead of replacing it, because this very file is mounted in the sandbox.
    await writeFile(join(this.#place.directory, TOKEN_FILE), token);
  }

  async #kill(): Promise<void> {
    this.#isEnding = true;
    // Otherwise the kernel ends the others only after the first process.
    void killAtOnce(this.groups);
    await this.#running.kill();
  }

  /** Prepares a Python kernel, before any user code runs. Waits for sandboxd, which records the initial files first. */
  async startKernel(): Promise<void> {
    while (!(await this.#sendTo("sandboxd"))) await pause(SANDBOXD_POLL_MS, undefined, { ref: false });
    await this.#sendTo("control", START_KERNEL);
  }

  /**
   * Sends bytes to sandboxd or the control server, and ignores the response. Returns false if the server does not accept
   * connections yet. Sends nothing if the sandbox is in use or has ended.
   */
  async #sendTo(server: OwnServer, bytes = ""): Promise<boolean> {
    if (this.hasEnded || this.actor !== undefined) return true;
    try {
      const socket = await this.#running.connect(server);
      socket.once("data", () => socket.destroy()).end(bytes);
      await once(socket, "close");
      return true;
    } catch {
      return false;
    }
  }

  async destroy(): Promise<void> {
    this.#stopReason ??= "destroyed";
    await this.#kill();
    await this.ended;
  }

  /** Works like a signal to a container's first process: SIGTERM, SIGINT and SIGKILL end the sandbox. */
  signal(number: number): void {
    if (number !== 15 && number !== 2 && number !== 9) return;
    this.#stopReason ??= "stopped";
    if (number === 9) {
      void this.#kill();
      return;
    }
    this.#running.signal("SIGTERM");
    const timer = setTimeout(() => void this.#kill(), graceMs);
    void this.ended.then(() => clearTimeout(timer));
  }

  /** Ends a sandbox that harms others, also while it stops. @param why words that follow "it" */
  end(why: string): void {
    if (this.#isEnding) return;
    this.#broken = `it ${why}`;
    this.#common.log(`engine: sandbox ${this.#place.id} was stopped: it ${why}`);
    void this.#kill();
  }

  /** @throws Error if nothing enforces the policy */
  setPolicy(policy: NetworkPolicy): void {
    if (this.#common.bubblewrap === undefined && policy.internet !== "full") throw new Error(NEEDS_ISOLATION);
    this.egress.policy = policy;
  }

  async setIntercepts(intercepts: Intercepts): Promise<void> {
    this.egress.intercepts = intercepts;
    // Overwrites the file instead of replacing it, because this very file is mounted at /etc/hosts in the sandbox.
    const hosts = join(this.#place.directory, HOSTS_FILE);
    await writeFile(hosts, hostsFile(intercepts.http)).catch(() => undefined);
  }
}
