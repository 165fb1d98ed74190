/** The default of wait_seconds: most clients allow a minute per call. */
export const WAIT_SECONDS = 45;

export function defaultWait(max: number): number {
  return Math.min(WAIT_SECONDS, max);
}

/** Whether a call waits at least as long as the default. */
export function isDefaultWait(waitSeconds: number, max: number): boolean {
  return waitSeconds >= defaultWait(max);
}
