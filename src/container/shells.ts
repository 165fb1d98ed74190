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

export interface ShellsHost {
  /** Ends a shell, and settles when it is gone. */
  end(name: string): Promise<unknown>;
  /** Remembers the names of the shells that there are, for the actor after this one. */
  remember(names: string[]): void;
}

export class Shells {
  /** By name, the one whose last use is longest ago first. */
  readonly #live = new Map<string, Live>();
  readonly #ending = new Map<string, Promise<void>>();
  readonly #host: ShellsHost;
  /** Does not outlive the actor, nor keep it: the next one begins with the names. */
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** @param names the shells that an earlier actor has left: they count as used now, commands may go on in them */
  constructor(host: ShellsHost, names: readonly string[] = []) {
    this.#host = host;
    for (const name of names) this.#live.set(name, { usedAt: Date.now(), calls: 0 });
    this.#plan();
  }

  /** Makes a call in a shell, which stays for as long as that takes. */
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

  /** The container is gone, and every shell with it. */
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

  /** Looks again when the next shell can be ended, whether or not anybody calls by then. */
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
