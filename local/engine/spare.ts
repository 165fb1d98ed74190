/**
 * One sandbox that is started before anybody asks for it, so that the first call in a new sandbox does not wait for a
 * start. It is made like any other, runs nothing of a user's, reaches nothing, and is given to one actor.
 */
import { fingerprint } from "./mount-namespace.ts";
import { Sandbox, type Common, type Made, type Place } from "./sandbox.ts";

/** How long after one was taken the next is started, milliseconds: the first call in that one has the processors first. */
const pauseMs = 300;

interface Ahead {
  /** undefined when it did not come up. */
  sandbox: Promise<Sandbox | undefined>;
  /** What it was made of. */
  key: string;
}

export class Spare {
  readonly #common: Common;
  readonly #place: () => Place;
  /** The variables of the sandbox that was asked for last, which the next one most likely has too. */
  #env: Record<string, string> = {};
  #ahead: Ahead | undefined;
  #isOn = false;
  #timer: NodeJS.Timeout | undefined;
  /** What is being destroyed. */
  readonly #ending = new Set<Promise<void>>();

  /** @param place makes a place for a sandbox */
  constructor(common: Common, place: () => Place) {
    this.#common = common;
    this.#place = place;
  }

  /** Starts one, and another whenever it is taken. One that is there and is not made as a new one would be is replaced. */
  start(): void {
    this.#isOn = true;
    clearTimeout(this.#timer);
    const key = this.#key(this.#env);
    if (this.#ahead?.key === key) return;
    this.#discard();
    this.#ahead = { sandbox: this.#make(), key };
  }

  /** The sandbox, where it is just as one that was started now; undefined where one has to be started. */
  async take({ name, env }: Made): Promise<Sandbox | undefined> {
    if (!this.#isOn || this.#common.directories.some((directory) => directory.name === name))
      return undefined;
    this.#env = env;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.start(), pauseMs).unref();
    const ahead = this.#ahead;
    if (ahead?.key !== this.#key(env)) {
      this.#discard();
      return undefined;
    }
    this.#ahead = undefined;
    const sandbox = await ahead.sandbox;
    return sandbox?.hasEnded === true ? undefined : sandbox;
  }

  /** Resolves when nothing is left of it. */
  async close(): Promise<void> {
    this.#isOn = false;
    clearTimeout(this.#timer);
    this.#discard();
    await Promise.all(this.#ending);
  }

  /** One that fails is not tried again before somebody asks for a sandbox, who is told why where that fails too. */
  async #make(): Promise<Sandbox | undefined> {
    try {
      return await Sandbox.start(this.#common, this.#place(), { env: this.#env });
    } catch {
      return undefined;
    }
  }

  #discard(): void {
    const ended = this.#ahead?.sandbox.then((sandbox) => sandbox?.destroy());
    this.#ahead = undefined;
    if (ended === undefined) return;
    this.#ending.add(ended);
    void ended.finally(() => this.#ending.delete(ended));
  }

  /** Differs for sandboxes that are made differently, also where the host has replaced a file that they are shown. */
  #key(env: Record<string, string>): string {
    const { mounts, cache } = this.#common;
    const shown = [...mounts(), ...(cache === undefined ? [] : [cache])];
    return JSON.stringify([env, shown, fingerprint(shown.map(({ from }) => from))]);
  }
}
