/** A question as plain HTTP shows it. */
import type { RunView } from "../runs/run-types.ts";
import { shownText } from "../runs/shown-output.ts";
import { questionDetailOf } from "../runs/run-types.ts";
import { errorText, resultText } from "./run-result.ts";

export interface PlainQuestion {
  success: boolean;
  language?: string;
  code: string;
  /** The program's output, then the value of its last expression. The middle of a long output is omitted. */
  output: string;
  /** The program's exception, or why there is no result; null on success. */
  error: string | null;
  stderr: string;
  images: { mimeType: string; data: string }[];
  model: string;
  tokens?: { input: number; output: number };
}

/** @returns undefined if the run is not a question */
export function plainQuestion(run: RunView): PlainQuestion | undefined {
  const question = questionDetailOf(run);
  if (!question) return undefined;
  const { language, code, error, results, model, tokens } = question;
  const success = run.state === "succeeded";
  const printed = shownText(run.stdout);
  const result = resultText(results);
  const between = printed === "" || result === "" || printed.endsWith("\n") ? "" : "\n";
  return {
    success,
    language,
    code,
    output: printed + between + result,
    error: success ? null : ((error && errorText(error)) ?? run.note ?? run.state),
    stderr: shownText(run.stderr),
    images: results.flatMap((shown) =>
      "image" in shown ? [{ mimeType: shown.mimeType, data: shown.image }] : [],
    ),
    model,
    tokens,
  };
}
