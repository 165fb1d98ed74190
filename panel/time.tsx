/** A relative time ("5 minutes ago"), with the exact one on hover. */
import { useEffect, useState } from "preact/hooks";

const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** How often relative times are updated. */
const REFRESH_MS = 20_000;

const UNITS = [
  ["day", 86_400],
  ["hour", 3600],
  ["minute", 60],
] as const;

export function exactTime(iso: string): string {
  return EXACT.format(new Date(iso));
}

function relativeTime(iso: string): string {
  const seconds = (Date.parse(iso) - Date.now()) / 1000;
  const [unit, length] = UNITS.find(([, least]) => Math.abs(seconds) >= least) ?? [];
  if (unit) return RELATIVE.format(Math.trunc(seconds / length), unit);
  // The clocks of server and browser may differ by some seconds.
  return seconds > 10 ? "in less than a minute" : "just now";
}

export function Time({ iso }: { iso: string }) {
  const [, refresh] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => refresh((count) => count + 1), REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  return (
    <time dateTime={iso} title={exactTime(iso)}>
      {relativeTime(iso)}
    </time>
  );
}
