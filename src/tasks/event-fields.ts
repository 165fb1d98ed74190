/** Bounds the output of agents, and checks every field of their events. */
import { parseBounded, SANDBOX_VALUES } from "../shared/bounded.ts";
import { isRecord } from "../shared/is-record.ts";
import { shortened } from "../shared/text.ts";
import { textLine } from "../shared/task-steps.ts";
import type { EventReader } from "./agent-report.ts";

const LINE_CHARACTERS = 200;

const ANSWER_CHARACTERS = 24_000;

/** The most lines to show that are not events. Such lines may be important, but must not flood the log. */
const SHOWN_UNREAD = 20;

export type Fields = Record<string, unknown>;

/** Reads a line of an agent's output, and counts it if it is not an event. Returns the lines for the run's log. */
export function readLine(reader: EventReader, line: string): string[] {
  if (line.trim() === "") return [];
  const event = record(parseBounded(line, SANDBOX_VALUES));
  if (typeof event?.type === "string") return reader.read(event);
  const { report } = reader;
  report.unread++;
  report.unreadSample ??= shorten(line);
  return report.unread <= SHOWN_UNREAD ? [textLine(shorten(line))] : [];
}

export function answerOf(rawText: string): string {
  return shortened(rawText, ANSWER_CHARACTERS);
}

export function relativeTo(directory: string, path: string): string {
  return path.startsWith(`${directory}/`) ? path.slice(directory.length + 1) : path;
}

export function shorten(value: string, characters = LINE_CHARACTERS): string {
  const trimmed = value.trimEnd().replace(/^\n+/, "");
  // `split` would be slow for millions of lines.
  const end = trimmed.indexOf("\n");
  const line = end >= 0 ? `${trimmed.slice(0, end)} …` : trimmed;
  return shortened(line, characters);
}

/** As `shorten`, with spaces for line ends. Only the shortened text is changed. */
export function shortenLines(value: string): string {
  return shorten(value.slice(0, 2 * LINE_CHARACTERS).replaceAll("\n", " "));
}

/** The agent's floating point sums have visible errors. */
export function dollars(amount: number | undefined): number | undefined {
  return amount === undefined ? undefined : Math.round(amount * 1e6) / 1e6;
}

export function record(value: unknown): Fields | undefined {
  return isRecord(value) ? value : undefined;
}

export function firstText(fields: Fields, names: readonly string[]): string | undefined {
  return names.map((name) => text(fields[name])).find((value) => value !== undefined);
}

export function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** A text that the run's record stores as it is, such as an id; undefined if it is too long. */
export function shortText(value: unknown): string | undefined {
  return typeof value === "string" && value.length <= LINE_CHARACTERS ? value.toWellFormed() : undefined;
}

/** A figure, such as tokens or a cost, of a size that sums and JSON can hold. */
export function number(value: unknown): number | undefined {
  return typeof value === "number" && value >= 0 && value <= Number.MAX_SAFE_INTEGER ? value : undefined;
}
