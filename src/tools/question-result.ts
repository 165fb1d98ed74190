import { shownText } from "../runs/shown-output.ts";
import { type RunView, questionDetailOf } from "../runs/run-types.ts";
import { errorText, resultText } from "./run-result.ts";

/**
 * A question as plain HTTP shows it; undefined for other runs. `output` is the program's output, then the value of its last
 * expression. `error` is the program's exception, or why there is no result; null on success.
 */
export function plainQuestion(run: RunView) {
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
