/**
 * A prepared sandbox, so that the first call in a new sandbox need not wait. It starts like any other sandbox, with a Python
 * kernel in it. Until it is assigned to an actor, it runs no user code and has no network access. It is assigned only once.
 */
import { attempt } from "../../container/sandboxd/file-error.ts";
import { fingerprint } from "./mount-namespace.ts";
import {
  EngineSandbox,
  type SharedSettings,
  type CreateOptions,
  type SandboxPlace,
} from "./engine-sandbox.ts";

/** The pause before the next prepared sandbox starts, and until the next look whether others start: it leaves the CPU to the first call. */
const PAUSE_MS = 300;

interface Prepared {
  /** Resolves with undefined if the sandbox did not start. Never rejects. */
  sandbox: Promise<EngineSandbox | undefined>;
  key: string;
}

export class PreparedSandbox {
  readonly #common: SharedSettings;
  readonly #place: () => SandboxPlace;
  readonly #areOthersStarting: () => boolean;
  #env: Record<string, string> = {};
  #prepared: Prepared | undefined;
  #isOn = false;
  #timer: NodeJS.Timeout | undefined;
  readonly #ending = new Set<Promise<void>>();

  /**
   * @param areOthersStarting while it returns true, no prepared sandbox starts, because it would take processor time from the others
   */
  constructor(common: SharedSettings, place: () => SandboxPlace, areOthersStarting: () => boolean) {
    this.#common = common;
    this.#place = place;
    this.#areOthersStarting = areOthersStarting;
  }

  start(): void {
    this.#isOn = true;
    clearTimeout(this.#timer);
    if (this.#areOthersStarting()) return this.#startLater();
    const key = this.#keyOf(this.#env);
    if (this.#prepared !== undefined && this.#prepared.key === key) return;
    this.#discard();
    if (key !== undefined) this.#prepared = { sandbox: this.#make(), key };
  }

  async take({ name, env }: CreateOptions): Promise<EngineSandbox | undefined> {
    if (!this.#isOn || this.#common.directories.some((directory) => directory.name === name))
      return undefined;
    this.#env = env;
    this.#startLater();
    const prepared = this.#prepared;
    if (prepared === undefined || prepared.key !== this.#keyOf(env)) {
      this.#discard();
      return undefined;
    }
    this.#prepared = undefined;
    const sandbox = await prepared.sandbox;
    return sandbox?.hasEnded === true ? undefined : sandbox;
  }

  async close(): Promise<void> {
    this.#isOn = false;
    clearTimeout(this.#timer);
    this.#discard();
    await Promise.all(this.#ending);
  }

  #startLater(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.start(), PAUSE_MS).unref();
  }

  /**
   * If the start fails, it is tried again after the next request for a sandbox. That request starts a sandbox itself, and
   * reports a failure to its caller.
   */
  async #make(): Promise<EngineSandbox | undefined> {
    try {
      const sandbox = await EngineSandbox.start(this.#common, this.#place(), { env: this.#env });
      void sandbox.startKernel();
      return sandbox;
    } catch {
      return undefined;
    }
  }

  #discard(): void {
    const ended = this.#prepared?.sandbox.then((sandbox) => sandbox?.destroy());
    this.#prepared = undefined;
    if (ended === undefined) return;
    this.#ending.add(ended);
    void ended.finally(() => this.#ending.delete(ended));
  }

  /**
   * A key that changes with variables and mounted files. Undefined if a file cannot be read. The caller then starts a sandbox
   * itself, and this start reports the error.
   */
  #keyOf(env: Record<string, string>): string | undefined {
    return attempt(() => {
      const mounted = this.#common.mounts();
      return JSON.stringify([env, mounted, fingerprint(mounted.map(({ from }) => from))]);
    }, undefined);
  }
}
