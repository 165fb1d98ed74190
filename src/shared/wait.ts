/** How long calls wait for runs. */

/** The default of wait_seconds: most clients give a call a minute. */
export const WAIT_SECONDS = 45;

/** The default of wait_seconds where it may be at most `max`. */
export function defaultWait(max: number): number {
  return Math.min(WAIT_SECONDS, max);
}

/** Whether a call leaves it to the server when it is answered: it asks for no shorter wait than one that says nothing. */
export function isPatient(waitSeconds: number, max: number): boolean {
  return waitSeconds >= defaultWait(max);
}
