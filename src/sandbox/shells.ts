/**
 * The shells of a sandbox that are alive, one for each session that was used. What a session carries from command to
 * command lies in files, so a shell can end when its session is idle, and another takes its place.
 */

/** Idle shells that are kept. */
const KEPT = 12;

/** How long a shell may be idle and stay, milliseconds. */
const IDLE_MS = 300_000;

/** A shell that was used more recently may be that of a command under way, which is looked at about once a second. */
const BUSY_MS = 4000;

interface Live {
  usedAt: number;
  calls: number;
}

export class Shells {
  /** By name, the one whose last use is longest ago first. */
  readonly #live = new Map<string, Live>();
  readonly #ending = new Map<string, Promise<void>>();
  readonly #end: (name: string) => Promise<unknown>;

  /** @param end ends a shell, and settles when it is gone */
  constructor(end: (name: string) => Promise<unknown>) {
    this.#end = end;
  }

  /** Makes a call in a shell, which stays for as long as that takes. */
  async use<T>(name: string, call: () => Promise<T>): Promise<T> {
    await this.#ending.get(name);
    const shell = this.#live.get(name) ?? { usedAt: 0, calls: 0 };
    this.#live.set(name, shell);
    shell.calls++;
    try {
      return await call();
    } finally {
      shell.calls--;
      shell.usedAt = Date.now();
      if (this.#live.delete(name)) this.#live.set(name, shell);
      this.#trim();
    }
  }

  /** The container is gone, and every shell with it. */
  forget(): void {
    this.#live.clear();
  }

  #trim(): void {
    let surplus = this.#live.size - KEPT;
    for (const [name, { usedAt, calls }] of this.#live) {
      const idleMs = calls > 0 ? 0 : Date.now() - usedAt;
      if (idleMs < BUSY_MS || (surplus <= 0 && idleMs < IDLE_MS)) continue;
      surplus--;
      this.#live.delete(name);
      const gone = this.#end(name)
        .catch(() => undefined)
        .then(() => void this.#ending.delete(name));
      this.#ending.set(name, gone);
    }
  }
}
