/** Explains why a value does not match a schema. Each message ends a sentence that begins with the argument's name. */
import type * as z from "zod";
import { shownName, makeVisible } from "./shown.ts";
import { cutText } from "./text.ts";

const KINDS: Record<string, string> = {
  string: "a text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  record: "an object",
};

/** How many problems, and how many unknown names, one text lists. A call may have thousands. */
const MAX_LISTED = 5;

const MAX_NAME_CHARS = 100;

const alternatives = new Intl.ListFormat("en-GB", { type: "disjunction" });

/** Replaces zod's own messages, as the `error` option of a parse. Messages of the schema take precedence. */
export function issueMessage(issue: z.core.$ZodRawIssue): string {
  switch (issue.code) {
    case "invalid_type":
      return mismatchMessage(issue.input, KINDS[issue.expected] ?? "another value");
    case "invalid_value":
      return mismatchMessage(issue.input, alternatives.format(issue.values.map(String)));
    case "too_small":
    case "too_big":
      return boundMessage(issue);
    case "unrecognized_keys": {
      const names = issue.keys.slice(0, MAX_LISTED).map((name) => shownName(cutText(name, MAX_NAME_CHARS)));
      return `has no parameter ${names.join(", ")}`;
    }
    default:
      return "is not valid";
  }
}

export function argumentsText(
  tool: string,
  issues: readonly z.core.$ZodIssue[],
  parameters: readonly string[],
): string {
  const sentences = issues.map(
    ({ path, message }) => `${path.length > 0 ? path.map(shownPart).join(".") : tool} ${message}`,
  );
  // An argument may break several rules that have the same message.
  const problems = [...new Set(sentences)];
  const more =
    problems.length > MAX_LISTED ? ` There are ${problems.length - MAX_LISTED} more problems.` : "";
  const isUnknown = issues.some(({ code, path }) => code === "unrecognized_keys" && path.length === 0);
  const accepted = isUnknown ? ` It accepts ${parameters.join(", ") || "none"}.` : "";
  return makeVisible(`${problems.slice(0, MAX_LISTED).join("; ")}.${more}${accepted}`);
}

/** A part of an argument's path. It can be a name that the caller chose, with as many characters as a body has room for. */
function shownPart(part: PropertyKey): string {
  return cutText(String(part), MAX_NAME_CHARS);
}

function mismatchMessage(given: unknown, expected: string): string {
  return given === undefined ? `is missing: it must be ${expected}` : `must be ${expected}`;
}

function boundMessage(issue: z.core.$ZodRawIssue): string {
  const isLower = issue.code === "too_small";
  const bound = String(isLower ? issue.minimum : issue.maximum);
  if (issue.origin !== "string" && issue.origin !== "array")
    return `must be ${isLower ? "at least" : "at most"} ${bound}`;
  if (isLower && bound === "1") return "must not be empty";
  const unit = issue.origin === "string" ? "characters" : "entries";
  return `must have ${isLower ? "at least" : "at most"} ${bound} ${unit}`;
}
