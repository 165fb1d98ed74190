/** Only this folder knows the Cloudflare Sandbox SDK. */
export interface ContainerPlatform {
  /** Known in the actor's constructor; becomes false by itself when the container dies. */
  readonly isRunning: boolean;
  /**
   * Resolves when the container accepts connections. @param env variables of its first process
   * @throws {ToolError} `sandbox_unavailable`; `sandbox_restarted` if the container was ended meanwhile; unexpected SDK errors
   */
  start(env: Readonly<Record<string, string>>): Promise<void>;
  /** Resolves when no container runs or starts, and no late event can disturb the next one. */
  end(): Promise<void>;
  fetch(port: number, request: Request): Promise<Response>;
  /** The call may come late. */
  onEnd(listener: () => void): void;
  onIdle(idle: Idle): void;
  noteUse(): void;
  onSweep(sweep: () => Promise<void>): void;
  scheduleSweep(at: Date): Promise<void>;
}

export interface Idle {
  leftMs(): number;
  onIdleTimeout(): Promise<void>;
}
