/** Most clients allow a minute per call. */
export const WAIT_SECONDS = 45;

export function defaultWait(max: number): number {
  return Math.min(WAIT_SECONDS, max);
}

export function isDefaultWait(waitSeconds: number, max: number): boolean {
  return waitSeconds >= defaultWait(max);
}
