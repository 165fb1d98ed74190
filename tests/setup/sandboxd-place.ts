/** Runs sandboxd alone, with its own directories, so that it can be killed at any step. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { request } from "node:http";
import { connect } from "node:net";
import { join } from "node:path";
import { beforeAll } from "vitest";
import { repository } from "../../local/engine/own-files.ts";
import { bundleSandboxd } from "../../scripts/bundle-sandboxd.ts";
import { temporaryDirectory } from "./temporary.ts";
import { until } from "./until.ts";

// In memory, like a sandbox's files. On ext4, creating files took a sixth of the tests' processor time.
export const parent = temporaryDirectory("/dev/shm");
const bundle = join(parent, "sandboxd.cjs");
const compiled = join(parent, "compiled");

beforeAll(async () => {
  await bundleSandboxd(bundle);
  // Node writes its compile cache when a program exits. The tests kill every sandboxd, except this one: it exits because
  // it cannot listen.
  const env = { PATH: process.env.PATH, NODE_COMPILE_CACHE: compiled, SANDBOXD_ROOT: join(parent, "ends") };
  const sandboxd = spawn(process.execPath, [bundle, "--socket", join(parent, "missing/socket")], { env });
  await once(sandboxd, "exit");
});

/** Restarts sandboxd whenever it ends. Only the first one is killed at a step. */
const AGAIN = 'export KILL_AT=$1; shift; while :; do "$@"; KILL_AT=0; done';

interface PlaceOptions {
  preloaded?: string;
  variables?: NodeJS.ProcessEnv;
  /** The sizes in bytes of separate disks for the workspace and for sandboxd's own files. */
  disk?: number;
  ownDisk?: number;
}

/** A sandboxd with its own directories and processes, which is restarted when it ends. */
export class Place {
  readonly directory = mkdtempSync(join(parent, "place-"));
  readonly socket = join(this.directory, "sandboxd.sock");
  readonly workspace = join(this.directory, "workspace");
  readonly root = join(this.directory, "root");
  readonly #armed = join(this.directory, "armed");
  readonly #sandbox: ChildProcess;

  /** @param killAt the step at which the first sandboxd is killed */
  constructor(killAt: number, { preloaded = "kill-at.cjs", variables = {}, disk, ownDisk }: PlaceOptions) {
    mkdirSync(this.workspace);
    mkdirSync(this.root);
    const env = {
      ...variables,
      PATH: process.env.PATH,
      // Without this cache, each of hundreds of sandboxds would compile its program.
      NODE_COMPILE_CACHE: compiled,
      SANDBOXD_ROOT: this.root,
      SANDBOXD_WORKSPACE: this.workspace,
      ARMED: this.#armed,
      CALLS: join(this.directory, "calls"),
    };
    const preload = join(repository, "tests/setup", preloaded);
    const sandboxd = [process.execPath, "--require", preload, bundle, "--socket", this.socket];
    // sandboxd's scripts have the same paths as in a sandbox, and its processes end with it. It has its own network:
    // otherwise it would list all sockets of the machine twice a second, because it looks for ports.
    const view = ["--dev-bind", "/", "/", "--proc", "/proc", "--tmpfs", "/opt"];
    const namespaces = ["--unshare-pid", "--unshare-net"];
    const scripts = ["--ro-bind", join(repository, "container"), "/opt/sandbox-mcp"];
    const mount = (path: string, bytes?: number) =>
      bytes === undefined ? [] : ["--size", String(bytes), "--tmpfs", path];
    const own = [...mount(this.workspace, disk), ...mount(this.root, ownDisk)];
    const shell = ["--die-with-parent", "/bin/sh", "-c", AGAIN, "sh", String(killAt)];
    const args = [...view, ...namespaces, ...scripts, ...own, ...shell, ...sandboxd];
    this.#sandbox = spawn("bwrap", args, { env, cwd: "/", stdio: "ignore" });
  }

  get runs(): string[] {
    return readdirSync(join(this.root, "runs"));
  }

  /** Begins to count steps. */
  arm(): void {
    writeFileSync(this.#armed, "");
  }

  /** The calls of the first sandboxd, up to the one at which it was killed. */
  get calls(): string[] {
    const path = join(this.directory, "calls");
    return existsSync(path) ? readFileSync(path, "utf8").trim().split("\n") : [];
  }

  async waitUntilReady(): Promise<void> {
    await until(() => this.request("GET", "/").catch(() => undefined));
  }

  request(
    method: string,
    path: string,
    body: string | Buffer = "",
  ): Promise<{ status: number; body: string }> {
    return new Promise((resolve, reject) => {
      const call = request({ socketPath: this.socket, method, path, agent: false }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
        response.once("error", reject);
        response.once("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
      });
      call.once("error", reject);
      call.end(body);
    });
  }

  /** Sends a PUT request whose connection ends before its body. Resolves when sandboxd has closed the connection too. */
  async giveUp(path: string): Promise<void> {
    const connection = connect(this.socket);
    connection.end(`PUT ${path} HTTP/1.1\r\nhost: sandboxd\r\ncontent-length: 100\r\n\r\n`);
    connection.resume();
    await once(connection, "close");
  }

  async close(): Promise<void> {
    const exited = once(this.#sandbox, "exit");
    this.#sandbox.kill("SIGKILL");
    await exited;
    rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Creates a `Place` and runs `work` with it. Returns the number of calls that the first sandboxd made. */
export async function inPlace(
  killAt: number,
  work: (place: Place) => Promise<unknown>,
  options: PlaceOptions = {},
): Promise<number> {
  const place = new Place(killAt, options);
  try {
    await place.waitUntilReady();
    await work(place);
    return place.calls.length;
  } catch (error) {
    throw new Error(`killed at the last of ${place.calls.join(" ")}`, { cause: error });
  } finally {
    await place.close();
  }
}
