/** Quotas count days in UTC, as days since the epoch. */

export const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;
export const DAY_SECONDS = DAY_MS / 1000;

export function dayOf(time: number): number {
  return Math.floor(time / DAY_MS);
}

export function nextDay(now: number): string {
  return `${new Date((dayOf(now) + 1) * DAY_MS).toISOString()} (midnight UTC)`;
}

/** How many of the last `seconds` before `now` belong to each day. */
export function splitByDay(seconds: number, now: number): [day: number, seconds: number][] {
  const days: [number, number][] = [];
  for (let day = dayOf(now), left = seconds, end = now; left > 0; day--) {
    const part = Math.min(left, Math.ceil((end - day * DAY_MS) / 1000));
    if (part > 0) days.push([day, part]);
    left -= part;
    end = day * DAY_MS;
  }
  return days;
}

export type UsedByDay = ReadonlyMap<number, number>;
