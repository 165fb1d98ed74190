/** The container of one actor. Only this folder knows the Cloudflare Sandbox SDK. */
export interface ContainerPlatform {
  /** Whether a container runs. Known in the actor's constructor; becomes false by itself when the container dies. */
  readonly isRunning: boolean;
  /**
   * Starts the container. Resolves when it accepts connections.
   * @param env variables of its first process
   * @throws {ToolError} `sandbox_unavailable`; `sandbox_restarted` if the container was ended meanwhile; unexpected SDK errors
   */
  start(env: Readonly<Record<string, string>>): Promise<void>;
  /** Ends the container. Resolves when no container runs or starts, and no late event can disturb the next one. */
  end(): Promise<void>;
  fetch(port: number, request: Request): Promise<Response>;
  /** Sets the listener that is called when a container has ended. The call may come late. */
  onEnd(listener: () => void): void;
  /** Sets the idle time, and what happens after it. */
  onIdle(idle: Idle): void;
  noteUse(): void;
  /** Sets what a scheduled sweep does. */
  onSweep(sweep: () => Promise<void>): void;
  scheduleSweep(at: Date): Promise<void>;
}

export interface Idle {
  leftMs(): number;
  onIdleTimeout(): Promise<void>;
}
