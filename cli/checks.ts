/** Checks of a machine, configuration or server: results, and what to do. */
import { EXIT } from "./exit.ts";
import { json, line, note, applyStyle, table } from "./print.ts";
import { ALL_IS_WELL, VERDICTS } from "./texts.ts";

export interface Check {
  name: string;
  /** A `warning` does not fail the command. */
  verdict: "ok" | "warning" | "failed" | "skipped";
  /** The observation: a version, a value, a reason. */
  found: string;
  fix?: string;
  ms?: number;
}

export const ok = (name: string, found: string): Check => ({ name, verdict: "ok", found });

export const failed = (name: string, found: string, fix: string): Check => ({
  name,
  verdict: "failed",
  found,
  fix,
});

const MARKS = { ok: "✓", warning: "!", failed: "✗", skipped: "-" } as const;
const STYLES = { ok: "green", warning: "yellow", failed: "red", skipped: "dim" } as const;

/** Prints the checks, and sets the exit status. */
export function report(checks: readonly Check[], asJSON: boolean, more: object = {}): void {
  const hasFailed = checks.some(({ verdict }) => verdict === "failed");
  process.exitCode = hasFailed ? EXIT.failed : EXIT.succeeded;
  if (asJSON) return json(!hasFailed, { ...more, checks });
  const isTimed = checks.some(({ ms }) => ms !== undefined);
  const isTerminal = process.stdout.isTTY;
  table(
    [
      { title: isTerminal ? " " : "VERDICT" },
      { title: "CHECK" },
      ...(isTimed ? [{ title: "MS", isRightAligned: true }] : []),
      { title: "FOUND" },
    ],
    checks.map(({ name, verdict, found, ms }) => [
      isTerminal ? MARKS[verdict] : verdict,
      name,
      ...(isTimed ? [ms === undefined ? "" : String(Math.round(ms))] : []),
      found,
    ]),
  );
  for (const { name, verdict, fix } of checks)
    if (fix !== undefined && verdict !== "ok")
      note(`${applyStyle(STYLES[verdict], name, process.stderr)}: ${fix}`);
  line(verdictOf(checks));
}

/** A one-line summary; skipped checks count as neither passed nor failed. */
function verdictOf(checks: readonly Check[]): string {
  const parts = (["failed", "warning", "skipped"] as const).flatMap((verdict) => {
    const names = checks.filter((check) => check.verdict === verdict).map(({ name }) => name);
    return names.length === 0 ? [] : `${VERDICTS[verdict]}: ${names.join(", ")}`;
  });
  const isWell = checks.every(({ verdict }) => verdict === "ok" || verdict === "skipped");
  return [...(isWell ? [ALL_IS_WELL] : []), ...parts].join(isWell ? " " : "; ");
}
