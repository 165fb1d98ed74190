/**
 * The shells of a sandbox that are alive, one for each session that was used. A session's state is kept in files, so its
 * shell can end while it is idle, and another one takes its place.
 */

/** Idle shells that are kept at most. */
const KEPT = 12;

/** How long an idle shell is kept, milliseconds. */
const IDLE_MS = 300_000;

/** A shell that was used more recently may belong to a call under way, milliseconds. */
const BUSY_MS = 4000;

interface Live {
  usedAt: number;
  calls: number;
}

export interface ShellsHost {
  /** Ends a shell; settles when it has ended. */
  end(name: string): Promise<unknown>;
  /** Stores the names of the living shells for the next actor. */
  remember(names: string[]): void;
}

export class Shells {
  /** By name, the least recently used first. */
  readonly #live = new Map<string, Live>();
  readonly #ending = new Map<string, Promise<void>>();
  readonly #host: ShellsHost;
  /** The timer does not keep the actor alive; the next actor starts with the stored names. */
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** @param names the shells of an earlier actor; they count as just used, because calls may go on in them */
  constructor(host: ShellsHost, names: readonly string[] = []) {
    this.#host = host;
    for (const name of names) this.#live.set(name, { usedAt: Date.now(), calls: 0 });
    this.#plan();
  }

  /** Makes a call in a shell, which is not ended meanwhile. */
  async use<T>(name: string, call: () => Promise<T>): Promise<T> {
    await this.#ending.get(name);
    const known = this.#live.get(name);
    const shell = known ?? { usedAt: 0, calls: 0 };
    this.#live.set(name, shell);
    shell.calls++;
    if (!known) this.#remember();
    try {
      return await call();
    } finally {
      shell.calls--;
      shell.usedAt = Date.now();
      if (this.#live.delete(name)) this.#live.set(name, shell);
      this.#trim();
    }
  }

  /** The container has gone with every shell. */
  forget(): void {
    this.#live.clear();
    this.#remember();
    this.#plan();
  }

  #trim(): void {
    let surplus = this.#live.size - KEPT;
    for (const [name, { usedAt, calls }] of this.#live) {
      const idleMs = calls > 0 ? 0 : Date.now() - usedAt;
      if (idleMs < BUSY_MS || (surplus <= 0 && idleMs < IDLE_MS)) continue;
      surplus--;
      this.#live.delete(name);
      this.#ending.set(name, this.#end(name));
    }
    this.#plan();
  }

  async #end(name: string): Promise<void> {
    await this.#host.end(name).catch(() => undefined);
    this.#ending.delete(name);
    this.#remember();
  }

  /** Plans the next look for the time when a shell can be ended. */
  #plan(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const idle = this.#live.values().find(({ calls }) => calls === 0);
    if (!idle) return;
    const keepMs = this.#live.size > KEPT ? BUSY_MS : IDLE_MS;
    this.#timer = setTimeout(() => this.#trim(), Math.max(0, idle.usedAt + keepMs - Date.now()));
  }

  #remember(): void {
    this.#host.remember([...this.#live.keys(), ...this.#ending.keys()]);
  }
}
