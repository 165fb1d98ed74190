/** How a task ended, in sentences that name the next step. */
import { clause } from "../shared/text.ts";
import { nextDay } from "../shared/days.ts";
import type { AgentReport } from "./agent-report.ts";
import type { End } from "../runs/run-types.ts";
import type { EndState } from "../shared/run-listing.ts";
import type { Spending } from "./budget.ts";
import type { UpstreamError } from "../container/model-calls.ts";
import type { Step } from "./task-output.ts";
import { describeOffered } from "./texts.ts";

/** The most characters of a list of missing definitions, and of available ones. */
const MISSING_CHARACTERS = 2000;

export interface TaskFacts {
  /** The complete run id, for the next call. */
  id: string;
  /** The agent's name for people, and its program. */
  agent: string;
  program: string;
  /** How to install the program on the local platform. */
  image: string;
  install: string;
  /** How the agent's process ended. */
  command: End;
  report: AgentReport;
  step: Step | undefined;
  spending: Spending;
  directory: string;
  repository?: string;
  branch?: string;
  /** The operator's definitions, as `<kind>/<name>`. */
  offered: readonly string[];
  timeoutMs: number;
  /** Why the timeout is shorter than requested, if it is. */
  cut?: string;
  /** The last lines of standard error. */
  stderr: string;
}

export interface TaskVerdict {
  state: EndState;
  note?: string;
}

export function verdictOf(facts: TaskFacts): TaskVerdict {
  const { command, report, spending } = facts;
  const howToContinue = report.conversation
    ? ` Its work is kept: continue it with execute_task and continue_from ${facts.id}.`
    : "";
  const failed = (note: string): TaskVerdict => ({ state: "failed", note });
  const all = command.unconfirmed
    ? ". The sandbox did not confirm its end: use destroy_sandbox to be sure"
    : ", with all its processes that were found";
  switch (command.state) {
    case "lost":
      return { state: "lost", note: command.note };
    case "cancelled":
      return { state: "cancelled", note: `The task was cancelled${all}.${howToContinue}` };
    case "timed_out": {
      const seconds = facts.timeoutMs / 1000;
      const api = spending.upstream
        ? ` The model's API was failing: ${describeError(spending.upstream)}.`
        : "";
      const stopped = facts.cut
        ? `was stopped after ${seconds} s`
        : `did not finish within ${seconds} s and was stopped`;
      return {
        state: "timed_out",
        note: `${facts.agent} ${stopped}${all}.${api} ${facts.cut ?? "Raise timeout_seconds."}${howToContinue}`,
      };
    }
  }
  const before = notStarted(facts);
  if (before) return failed(before);
  if (spending.exhausted)
    return failed(
      `The task used up its budget for the model (${spending.tokens} tokens in ${spending.requests} requests). Split it into smaller tasks, or ask the operator to raise MAX_TASK_TOKENS.${howToContinue}`,
    );
  if (spending.dayIsSpent) return failed(dayIsSpent() + howToContinue);
  switch (report.end) {
    case "done":
      return { state: "succeeded" };
    case "out_of_turns":
      return failed(
        `${facts.agent} used up its turns (${report.turns ?? "max_turns"}) before it was done. Raise max_turns.${howToContinue}`,
      );
    case "error":
      return failed(
        spending.upstream
          ? `${facts.agent} stopped because the model's API failed: ${upstreamAdvice(spending.upstream)}${howToContinue}`
          : `${facts.agent} stopped with an error: ${clause(report.error ?? "") || "it gave no reason"}.${howToContinue}`,
      );
  }
  return failed(withoutResult(facts) + howToContinue);
}

/** Why the agent never started; undefined if it did. */
function notStarted(facts: TaskFacts) {
  const { step, agent, program, image, install, repository, branch, directory, offered, stderr } = facts;
  switch (step) {
    case "clone_failed":
      return `git could not clone ${repository}${branch ? `, branch ${branch}` : ""}: ${lastLine(stderr)}. Check the address and the branch; a private repository needs a URL that carries a token, or a sandbox where you cloned it before.`;
    case "directory_exists":
      return `${directory} already holds files in this sandbox, so nothing was cloned. Leave repository out to work on what is there, or leave sandbox out for a fresh one.`;
    case "no_agent":
      return `The sandbox has no ${agent}: the program ${program} is not installed in it. On Cloudflare, ${image}; on the local platform, ${install} and restart the server.`;
    case "no_directory":
      return `${directory} could not be made or entered: ${lastLine(stderr)}.`;
    case "no_component":
      return `${clause(stderr.trim().split("\n").at(-1)?.slice(0, MISSING_CHARACTERS) ?? "")}. ${describeOffered(offered)}`;
    default:
      return undefined;
  }
}

/** The verdict on an agent that ended without a final event. */
function withoutResult({ agent, command, report, stderr, spending }: TaskFacts): string {
  const status = command.exitCode ?? 0;
  const how = status > 128 ? `was killed by signal ${status - 128}` : `ended with status ${status}`;
  const printed = stderr.trim() ? ` Its last line of stderr: ${lastLine(stderr)}.` : "";
  const api = spending.upstream ? ` The model's API had failed: ${describeError(spending.upstream)}.` : "";
  if (report.unread > 0 && report.conversation === undefined)
    return `${agent} ${how} and its output could not be parsed, beginning with: ${clause(report.unreadSample ?? "")}.${printed} Look at the log with get_result and cursor 0; then try again.`;
  return `${agent} ${how} before it was done.${printed}${api} Try again; split a task that needs much memory.`;
}

export function dayIsSpent(): string {
  return `The model tokens for your tasks today are used up (MAX_MODEL_TOKENS_PER_DAY). The next day begins at ${nextDay(Date.now())}.`;
}

function describeError({ status, message }: UpstreamError): string {
  return `status ${status}, ${clause(message)}`;
}

/** An error of the model's API as the end of a sentence, with what to do about it. */
export function upstreamAdvice(error: UpstreamError): string {
  const { status } = error;
  if (status === 401 || status === 403)
    return `it refused the server's credential (${describeError(error)}). The operator has to set a valid ANTHROPIC_API_KEY or CLAUDE_CODE_OAUTH_TOKEN.`;
  if (status === 429)
    return `it limits the rate of requests (${describeError(error)}). Try again in some minutes.`;
  if (status === 529 || status >= 500)
    return `it is overloaded or failing (${describeError(error)}). Try again in some minutes.`;
  return `${describeError(error)}.`;
}

function lastLine(text: string): string {
  const lines = text.trim().split("\n");
  const telling = lines.findLast((line) => /^(fatal|error|remote):/i.test(line));
  return (clause(telling ?? lines.at(-1) ?? "") || "it gave no reason").slice(0, 300);
}
