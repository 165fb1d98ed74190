/** What the readers of agents' events have in common. Whatever an agent prints is bounded, and no field is believed to be there. */
import { parseBounded, SANDBOX_JSON } from "../shared/bounded.ts";
import { isRecord } from "../shared/is-record.ts";
import { textLine } from "../shared/task-steps.ts";
import type { EventReader } from "./agent-report.ts";

/** Characters of a line of progress at most. */
const LINE_CHARACTERS = 200;

/** Characters of the answer that are kept. */
const ANSWER_CHARACTERS = 24_000;

/** Lines that are no event and are shown all the same: what an agent says beside its events may matter, a flood of it does not. */
const SHOWN_UNREAD = 20;

export type Fields = Record<string, unknown>;

/** Takes a line that an agent has printed, and answers lines for a person to read. One that is no event is counted. */
export function readLine(reader: EventReader, line: string): string[] {
  if (line.trim() === "") return [];
  // An event is a JSON document with a type.
  const event = record(parseBounded(line, SANDBOX_JSON));
  if (typeof event?.type === "string") return reader.read(event);
  const { report } = reader;
  report.unread++;
  report.unreadSample ??= shortened(line);
  return report.unread <= SHOWN_UNREAD ? [textLine(shortened(line))] : [];
}

export function answerOf(rawText: string): string {
  return rawText.length > ANSWER_CHARACTERS ? `${rawText.slice(0, ANSWER_CHARACTERS - 1)}…` : rawText;
}

/** A path as seen from a directory, where it lies below. */
export function relativeTo(directory: string, path: string): string {
  return path.startsWith(`${directory}/`) ? path.slice(directory.length + 1) : path;
}

/** The first line, cut. */
export function shortened(value: string, characters = LINE_CHARACTERS): string {
  const trimmed = value.trimEnd().replace(/^\n+/, "");
  // Not split: it can be sixteen million lines.
  const end = trimmed.indexOf("\n");
  const line = end >= 0 ? `${trimmed.slice(0, end)} …` : trimmed;
  return line.length > characters ? `${line.slice(0, characters - 1)}…` : line;
}

/** An amount to a millionth: the agent adds up floating point, whose errors would be shown. */
export function dollars(amount: number | undefined): number | undefined {
  return amount === undefined ? undefined : Math.round(amount * 1e6) / 1e6;
}

export function record(value: unknown): Fields | undefined {
  return isRecord(value) ? value : undefined;
}

export function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

export function number(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}
