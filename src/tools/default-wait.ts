/** The default of wait_seconds. */
const WAIT_SECONDS = 45;

/** The default of wait_seconds where it may be at most `max`. */
export function defaultWait(max: number): number {
  return Math.min(WAIT_SECONDS, max);
}
