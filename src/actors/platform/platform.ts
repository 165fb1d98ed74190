/** The container of one actor, as this server uses it. Only this folder knows the Cloudflare Sandbox SDK behind it. */
export interface ContainerPlatform {
  /** Whether a container runs. It is known in the constructor of the actor, and falls by itself when the container dies. */
  readonly isRunning: boolean;
  /**
   * Starts the container. Resolves when it takes connections.
   * @param env variables of its first process
   * @throws {ToolError} `sandbox_unavailable`, `sandbox_restarted` where it was ended meanwhile, and what the SDK throws unexpectedly
   */
  start(env: Readonly<Record<string, string>>): Promise<void>;
  /** Ends the container. Resolves when none runs, none is being started, and nothing late of it can disturb the next. */
  end(): Promise<void>;
  fetch(port: number, request: Request): Promise<Response>;
  /** Calls the listener when a container has ended: late where nobody looked. */
  onEnd(listener: () => void): void;
  /** Says how long the sandbox may go on without use, and what to do then. */
  onIdle(idle: Idle): void;
  /** The sandbox is in use: its idle time begins anew. */
  used(): void;
  /** Has the actor's `sweepRuns` called at this time. */
  scheduleSweep(at: Date): Promise<void>;
}

export interface Idle {
  /** Milliseconds. */
  leftMs(): number;
  expired(): Promise<void>;
}
