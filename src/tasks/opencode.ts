/** The events of `opencode run --format json`, one JSON document per line. */
import { callLine, failureLine, textLine } from "../shared/task-steps.ts";
import type { AgentReport, EventReader } from "./agent-report.ts";
import {
  answerOf,
  dollars,
  firstText,
  type Fields,
  number,
  record,
  relativeTo,
  shortened,
  text,
} from "./event-fields.ts";

export class OpenCodeEvents implements EventReader {
  readonly report: AgentReport;
  readonly #directory: string;
  readonly #conversation: string;

  /** @param conversation the name of its database, which OpenCode does not print */
  constructor(directory: string, conversation: string, report: AgentReport = { unread: 0 }) {
    this.#directory = directory;
    this.#conversation = conversation;
    this.report = report;
  }

  read(event: Fields): string[] {
    const isFirst = this.report.conversation === undefined;
    this.report.conversation = this.#conversation;
    const started = isFirst ? ["Started"] : [];
    const part = record(event.part) ?? {};
    switch (event.type) {
      case "text":
        return [...started, ...this.#text(part)];
      case "tool_use":
        return [...started, ...this.#tool(part)];
      case "step_finish":
        this.#step(part);
        return started;
      case "error":
        this.#failed(record(event.error) ?? {});
        return started;
      default:
        return started;
    }
  }

  /** Its last text is its answer. */
  #text(part: Fields): string[] {
    const started = text(part.text)?.trim();
    if (!started) return [];
    this.report.answer = answerOf(started);
    return [textLine(shortened(started))];
  }

  /** For example "edit src/app.ts" or "bash: npm test". Reported when the call has ended. */
  #tool(part: Fields): string[] {
    const name = text(part.tool) ?? "tool";
    const state = record(part.state) ?? {};
    const input = record(state.input) ?? {};
    const path = text(input.filePath);
    const what = firstText(input, ["command", "pattern", "url", "description", "name"]);
    const tail = path === undefined ? what && `: ${what}` : ` ${relativeTo(this.#directory, path)}`;
    const line = callLine(shortened(`${name}${tail ?? ""}`));
    const error = state.status === "error" ? text(state.error) : undefined;
    return error === undefined ? [line] : [line, failureLine(shortened(error.replaceAll("\n", " ")))];
  }

  /** Each model request is a step. The reason of the last step says how the agent ended. */
  #step(part: Fields): void {
    const { report } = this;
    report.turns = (report.turns ?? 0) + 1;
    report.costUSD = dollars((report.costUSD ?? 0) + (number(part.cost) ?? 0));
    const used = record(part.tokens) ?? {};
    const cache = record(used.cache) ?? {};
    const { input = 0, output = 0, cacheRead = 0, cacheWrite = 0 } = report.tokens ?? {};
    report.tokens = {
      input: input + (number(used.input) ?? 0),
      output: output + (number(used.output) ?? 0) + (number(used.reasoning) ?? 0),
      cacheRead: cacheRead + (number(cache.read) ?? 0),
      cacheWrite: cacheWrite + (number(cache.write) ?? 0),
    };
    const reason = text(part.reason);
    report.end = reason === "stop" ? "done" : undefined;
    if (reason === "stop" || reason === "tool-calls") return;
    report.end = "error";
    report.error = shortened(`the model stopped for the reason ${reason ?? "unknown"}`);
  }

  #failed(error: Fields): void {
    this.report.end = "error";
    const message = text(record(error.data)?.message) ?? text(error.name) ?? "";
    this.report.error = shortened(message, 1000);
  }
}
