/** The events of `claude -p --output-format stream-json --verbose`, one JSON document per line. */
import type { AgentReport, EventReader } from "./agent-report.ts";
import type { Tokens } from "../runs/task-detail.ts";
import { callLine, failureLine, NESTED, textLine } from "../shared/task-steps.ts";
import * as field from "./event-fields.ts";
import type { Fields } from "./event-fields.ts";
import * as texts from "./texts.ts";

/** The most blocks to read from one message, because each becomes a line of the log. Agents send only a few. */
const MAX_BLOCKS = 200;

export class ClaudeEvents implements EventReader {
  readonly report: AgentReport;
  readonly #directory: string;

  constructor(directory: string, report: AgentReport = { unread: 0 }) {
    this.#directory = directory;
    this.report = report;
  }

  read(event: Fields): string[] {
    const conversation = field.shortText(event.session_id);
    if (conversation) this.report.conversation = conversation;
    switch (event.type) {
      case "system":
        return this.#system(event);
      case "assistant":
        return this.#assistant(event);
      case "user":
        return contentOf(event)
          .filter(({ type, is_error }) => type === "tool_result" && is_error === true)
          .map(failure);
      case "result":
        this.#result(event);
        return [];
      default:
        return [];
    }
  }

  #system(event: Fields): string[] {
    if (event.subtype === "init") {
      this.report.model = field.shortText(event.model);
      return [textLine(texts.startedWith(this.report.model))];
    }
    if (event.subtype === "api_retry") {
      const status = field.number(event.error_status);
      const reason = status === undefined ? field.text(event.error) : `status ${status}`;
      return [textLine(texts.requestFailed(reason && field.shorten(reason)))];
    }
    return [];
  }

  #assistant(event: Fields): string[] {
    const nested = typeof event.parent_tool_use_id === "string" ? NESTED : "";
    // A further turn has begun, for example after the end of a background command.
    if (!nested) this.report.end = undefined;
    return contentOf(event).flatMap((block) => {
      if (block.type === "text") {
        const line = textLine(field.shorten(field.text(block.text) ?? ""));
        return line ? [nested + line] : [];
      }
      if (block.type !== "tool_use") return [];
      return [
        nested + callLine(this.#call(field.text(block.name) ?? "tool", field.record(block.input) ?? {})),
      ];
    });
  }

  /** For example "Edit src/app.ts" or "Bash: npm test". */
  #call(name: string, input: Fields): string {
    const path = field.firstText(input, ["file_path", "notebook_path"]);
    if (path !== undefined) return field.shorten(`${name} ${field.relativeTo(this.#directory, path)}`);
    const subject = field.firstText(input, ["command", "pattern", "url", "query", "description", "skill"]);
    return field.shorten(subject === undefined ? name : `${name}: ${subject}`);
  }

  #result(event: Fields): void {
    const { report } = this;
    const answer = field.text(event.result);
    const isSuccess = event.subtype === "success" && event.is_error !== true;
    if (answer !== undefined && isSuccess) report.answer = field.answerOf(answer);
    report.end = isSuccess ? "done" : event.subtype === "error_max_turns" ? "out_of_turns" : "error";
    const errors = Array.isArray(event.errors)
      ? event.errors.filter((error) => typeof error === "string")
      : [];
    if (report.end === "error")
      report.error = field.shorten(answer || errors.join("; ") || (field.text(event.subtype) ?? ""), 1000);
    report.turns = field.number(event.num_turns);
    report.costUSD = field.dollars(field.number(event.total_cost_usd));
    report.durationMs = field.number(event.duration_ms);
    report.tokens = tokensOf(field.record(event.usage));
  }
}

function tokensOf(usage: Fields | undefined): Tokens | undefined {
  if (!usage) return undefined;
  return {
    input: field.number(usage.input_tokens) ?? 0,
    output: field.number(usage.output_tokens) ?? 0,
    cacheRead: field.number(usage.cache_read_input_tokens) ?? 0,
    cacheWrite: field.number(usage.cache_creation_input_tokens) ?? 0,
  };
}

function contentOf(event: Fields): Fields[] {
  const content = field.record(event.message)?.content;
  const blocks: unknown[] = Array.isArray(content) ? content.slice(0, MAX_BLOCKS) : [];
  return blocks.map(field.record).filter((block) => block !== undefined);
}

function failure({ content }: Fields): string {
  const first = Array.isArray(content) ? field.text(field.record(content[0])?.text) : field.text(content);
  return failureLine(field.shortenLines(first ?? ""));
}
