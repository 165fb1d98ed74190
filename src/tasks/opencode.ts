/** The events of `opencode run --format json`, one JSON document per line. */
import { callLine, failureLine, textLine } from "../shared/task-steps.ts";
import type { AgentReport, EventReader } from "./agent-report.ts";
import * as field from "./event-fields.ts";
import type { Fields } from "./event-fields.ts";
import { modelStopped } from "./texts.ts";

export class OpenCodeEvents implements EventReader {
  readonly report: AgentReport;
  readonly #directory: string;
  readonly #conversation: string;

  /** @param conversation the name of the conversation's database, which OpenCode does not print */
  constructor(directory: string, conversation: string, report: AgentReport = { unread: 0 }) {
    this.#directory = directory;
    this.#conversation = conversation;
    this.report = report;
  }

  read(event: Fields): string[] {
    const isFirst = this.report.conversation === undefined;
    this.report.conversation = this.#conversation;
    const started = isFirst ? ["Started"] : [];
    const part = field.record(event.part) ?? {};
    switch (event.type) {
      case "text":
        return [...started, ...this.#text(part)];
      case "tool_use":
        return [...started, ...this.#tool(part)];
      case "step_finish":
        this.#step(part);
        return started;
      case "error":
        this.#recordError(field.record(event.error) ?? {});
        return started;
      default:
        return started;
    }
  }

  #text(part: Fields): string[] {
    const text = field.text(part.text)?.trim();
    if (!text) return [];
    this.report.answer = field.answerOf(text);
    return [textLine(field.shorten(text))];
  }

  /** For example "edit src/app.ts" or "bash: npm test". Reported when the call has ended. */
  #tool(part: Fields): string[] {
    const name = field.text(part.tool) ?? "tool";
    const state = field.record(part.state) ?? {};
    const input = field.record(state.input) ?? {};
    const path = field.text(input.filePath);
    const subject = field.firstText(input, ["command", "pattern", "url", "description", "name"]);
    const tail =
      path === undefined ? subject && `: ${subject}` : ` ${field.relativeTo(this.#directory, path)}`;
    const line = callLine(field.shorten(`${name}${tail ?? ""}`));
    const error = state.status === "error" ? field.text(state.error) : undefined;
    return error === undefined ? [line] : [line, failureLine(field.shortenLines(error))];
  }

  /** Each model request is a step. The reason of the last one says how the agent ended. */
  #step(part: Fields): void {
    const { report } = this;
    report.turns = (report.turns ?? 0) + 1;
    report.costUSD = field.dollars((report.costUSD ?? 0) + (field.number(part.cost) ?? 0));
    const used = field.record(part.tokens) ?? {};
    const cache = field.record(used.cache) ?? {};
    const { input = 0, output = 0, cacheRead = 0, cacheWrite = 0 } = report.tokens ?? {};
    report.tokens = {
      input: input + (field.number(used.input) ?? 0),
      output: output + (field.number(used.output) ?? 0) + (field.number(used.reasoning) ?? 0),
      cacheRead: cacheRead + (field.number(cache.read) ?? 0),
      cacheWrite: cacheWrite + (field.number(cache.write) ?? 0),
    };
    const reason = field.text(part.reason);
    report.end = reason === "stop" ? "done" : undefined;
    if (reason === "stop" || reason === "tool-calls") return;
    report.end = "error";
    report.error = field.shorten(modelStopped(reason));
  }

  #recordError(error: Fields): void {
    this.report.end = "error";
    const message = field.text(field.record(error.data)?.message) ?? field.text(error.name) ?? "";
    this.report.error = field.shorten(message, 1000);
  }
}
