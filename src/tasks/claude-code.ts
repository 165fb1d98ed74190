/** The events that `claude -p --output-format stream-json --verbose` prints, one JSON document a line. */
import { parseBounded, SANDBOX_JSON } from "../shared/bounded-json.ts";
import type { AgentReport, EventReader } from "./agents.ts";
import type { Tokens } from "../runs/task-detail.ts";
import { isRecord } from "../shared/is-record.ts";

/** Characters of a line of progress at most. */
const LINE_CHARACTERS = 200;

/** Characters of the answer that are kept. */
const ANSWER_CHARACTERS = 24_000;

type Fields = Record<string, unknown>;

export class ClaudeEvents implements EventReader {
  readonly report: AgentReport;
  readonly #directory: string;

  constructor(directory: string, report: AgentReport = { unread: 0 }) {
    this.#directory = directory;
    this.report = report;
  }

  read(line: string): string[] {
    if (line.trim() === "") return [];
    const event = parse(line);
    if (!event) {
      this.report.unread++;
      this.report.unreadSample ??= shortened(line);
      // What an agent says beside its events may matter; a flood of it does not.
      return this.report.unread <= 20 ? [shortened(line)] : [];
    }
    const conversation = text(event.session_id);
    if (conversation) this.report.conversation = conversation;
    switch (event.type) {
      case "system":
        return this.#system(event);
      case "assistant":
        return this.#assistant(event);
      case "user":
        return contentOf(event).filter(isFailedTool).map(failure);
      case "result":
        this.#result(event);
        return [];
      default:
        return [];
    }
  }

  #system(event: Fields): string[] {
    if (event.subtype === "init") {
      this.report.model = text(event.model);
      return [`Started with ${this.report.model ?? "its own model"}`];
    }
    if (event.subtype === "api_retry") {
      const status = number(event.error_status);
      const why = status === undefined ? text(event.error) : `status ${status}`;
      return [`The model did not answer (${why ?? "no reason given"}): trying again`];
    }
    return [];
  }

  #assistant(event: Fields): string[] {
    const nested = typeof event.parent_tool_use_id === "string" ? "  " : "";
    return contentOf(event).flatMap((block) => {
      if (block.type === "text") {
        const said = shortened(text(block.text) ?? "");
        return said ? [nested + said] : [];
      }
      if (block.type !== "tool_use") return [];
      return [nested + this.#toolLine(text(block.name) ?? "tool", record(block.input) ?? {})];
    });
  }

  /** "Edit src/app.ts", "Bash: npm test". */
  #toolLine(name: string, input: Fields): string {
    const path = text(input.file_path) ?? text(input.notebook_path);
    if (path !== undefined) return shortened(`${name} ${this.#relative(path)}`);
    const what =
      text(input.command) ??
      text(input.pattern) ??
      text(input.url) ??
      text(input.query) ??
      text(input.description) ??
      text(input.skill);
    return shortened(what === undefined ? name : `${name}: ${what}`);
  }

  #relative(path: string): string {
    return path.startsWith(`${this.#directory}/`) ? path.slice(this.#directory.length + 1) : path;
  }

  #result(event: Fields): void {
    const { report } = this;
    const answer = text(event.result);
    const ended = event.subtype === "success" && event.is_error !== true;
    if (answer !== undefined && ended)
      report.answer =
        answer.length > ANSWER_CHARACTERS ? `${answer.slice(0, ANSWER_CHARACTERS - 1)}…` : answer;
    report.end = ended ? "done" : event.subtype === "error_max_turns" ? "out_of_turns" : "error";
    const errors = Array.isArray(event.errors) ? event.errors.filter((one) => typeof one === "string") : [];
    if (report.end === "error")
      report.error = shortened(answer || errors.join("; ") || (text(event.subtype) ?? ""), 1000);
    report.turns = number(event.num_turns);
    report.costUSD = dollars(number(event.total_cost_usd));
    report.durationMs = number(event.duration_ms);
    report.tokens = tokensOf(record(event.usage));
  }
}

function tokensOf(usage: Fields | undefined): Tokens | undefined {
  if (!usage) return undefined;
  return {
    input: number(usage.input_tokens) ?? 0,
    output: number(usage.output_tokens) ?? 0,
    cacheRead: number(usage.cache_read_input_tokens) ?? 0,
    cacheWrite: number(usage.cache_creation_input_tokens) ?? 0,
  };
}

function contentOf(event: Fields): Fields[] {
  const content = record(event.message)?.content;
  const blocks: unknown[] = Array.isArray(content) ? content : [];
  return blocks.map(record).filter((block) => block !== undefined);
}

function isFailedTool(block: Fields): boolean {
  return block.type === "tool_result" && block.is_error === true;
}

function failure({ content }: Fields): string {
  const first = Array.isArray(content) ? text(record(content[0])?.text) : text(content);
  return shortened(`  failed: ${(first ?? "").replaceAll("\n", " ")}`);
}

/** The first line, cut. */
function shortened(value: string, characters = LINE_CHARACTERS): string {
  const trimmed = value.trimEnd().replace(/^\n+/, "");
  // Not split: it can be sixteen million lines.
  const end = trimmed.indexOf("\n");
  const line = end >= 0 ? `${trimmed.slice(0, end)} …` : trimmed;
  return line.length > characters ? `${line.slice(0, characters - 1)}…` : line;
}

/** An amount to a millionth: the agent adds up floating point, whose errors would be shown. */
function dollars(amount: number | undefined): number | undefined {
  return amount === undefined ? undefined : Math.round(amount * 1e6) / 1e6;
}

function parse(line: string): Fields | undefined {
  const event = record(parseBounded(line, SANDBOX_JSON));
  return typeof event?.type === "string" ? event : undefined;
}

function record(value: unknown): Fields | undefined {
  return isRecord(value) ? value : undefined;
}

function text(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function number(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}
