/** After how many minutes without use a sandbox is stopped, its workspace saved. docs/guides/operate.md says what that costs. */
export const IDLE_STOP_MINUTES = 10;
