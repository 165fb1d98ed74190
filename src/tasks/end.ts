import { clause } from "../shared/text.ts";
import type { AgentReport } from "./agent-report.ts";
import type { End } from "../runs/run-types.ts";
import type { EndState } from "../shared/run-listing.ts";
import type { Spending } from "./budget.ts";
import type { UpstreamError } from "../container/model-calls.ts";
import type { Step } from "./task-output.ts";
import {
  CONFIRMED_END,
  NO_REASON,
  RAISE_TIMEOUT,
  UNCONFIRMED_END,
  agentFailed,
  agentMissing,
  budgetSpent,
  cloneFailed,
  dayIsSpent,
  describeError,
  describeOffered,
  directoryFailed,
  directoryInUse,
  endedEarly,
  exitText,
  howToContinue,
  modelAdvice,
  modelFailedAgent,
  modelWasFailing,
  outOfTurns,
  outputUnreadable,
  stoppedAfter,
} from "./texts.ts";

/** The most characters of a list of missing definitions, and of available ones. */
const MISSING_CHARACTERS = 2000;

export interface TaskFacts {
  id: string;
  /** The agent's name for people, and its program. */
  agent: string;
  program: string;
  /** How to install the program on the local platform. */
  image: string;
  install: string;
  command: End;
  report: AgentReport;
  step: Step | undefined;
  spending: Spending;
  directory: string;
  repository?: string;
  branch?: string;
  offered: readonly string[];
  maxTurns?: number | undefined;
  timeoutMs: number;
  /** Why the timeout is shorter than requested, if it is. */
  cut?: string;
  stderr: string;
}

export interface TaskVerdict {
  state: EndState;
  note?: string;
}

export function verdictOf(facts: TaskFacts): TaskVerdict {
  const { command, report, spending } = facts;
  const next = report.conversation ? howToContinue(facts.id) : "";
  const failed = (note: string): TaskVerdict => ({ state: "failed", note });
  const all = command.unconfirmed ? UNCONFIRMED_END : CONFIRMED_END;
  switch (command.state) {
    case "lost":
      return { state: "lost", note: command.note };
    case "cancelled":
      return { state: "cancelled", note: `The task was cancelled${all}.${next}` };
    case "timed_out": {
      const api = spending.upstream ? modelWasFailing(described(spending.upstream)) : "";
      const stopped = stoppedAfter(facts.timeoutMs / 1000, facts.cut !== undefined);
      return {
        state: "timed_out",
        note: `${facts.agent} ${stopped}${all}.${api} ${facts.cut ?? RAISE_TIMEOUT}${next}`,
      };
    }
  }
  const before = notStarted(facts);
  if (before) return failed(before);
  if (spending.exhausted) return failed(budgetSpent(spending) + next);
  if (spending.dayIsSpent) return failed(dayIsSpent() + next);
  switch (report.end) {
    case "done":
      return { state: "succeeded" };
    case "out_of_turns":
      return failed(outOfTurns(facts.agent, facts.maxTurns) + next);
    case "error":
      return failed(
        (spending.upstream
          ? modelFailedAgent(facts.agent, upstreamAdvice(spending.upstream))
          : agentFailed(facts.agent, clause(report.error ?? "") || NO_REASON)) + next,
      );
  }
  return failed(withoutResult(facts) + next);
}

/** Why the agent never started; undefined if it did. */
function notStarted(facts: TaskFacts) {
  const { step, agent, program, image, install, repository, branch, directory, offered, stderr } = facts;
  switch (step) {
    case "clone_failed":
      return cloneFailed(repository, branch, lastLine(stderr));
    case "directory_exists":
      return directoryInUse(directory);
    case "no_agent":
      return agentMissing(agent, program, image, install);
    case "no_directory":
      return directoryFailed(directory, lastLine(stderr));
    case "no_component":
      return `${clause(stderr.trim().split("\n").at(-1)?.slice(0, MISSING_CHARACTERS) ?? "")}. ${describeOffered(offered)}`;
    default:
      return undefined;
  }
}

function withoutResult({ agent, command, report, stderr, spending }: TaskFacts): string {
  const end = exitText(command.exitCode ?? 0);
  const printed = stderr.trim() && lastLine(stderr);
  if (report.unread > 0 && report.conversation === undefined)
    return outputUnreadable(agent, end, clause(report.unreadSample ?? ""), printed);
  const api = spending.upstream ? modelWasFailing(described(spending.upstream)) : "";
  return endedEarly(agent, end, printed, api);
}

function described({ status, message }: UpstreamError): string {
  return describeError(status, clause(message));
}

export function upstreamAdvice(error: UpstreamError): string {
  return modelAdvice(error.status, described(error));
}

function lastLine(text: string): string {
  const lines = text.trim().split("\n");
  const telling = lines.findLast((line) => /^(fatal|error|remote):/i.test(line));
  return (clause(telling ?? lines.at(-1) ?? "") || NO_REASON).slice(0, 300);
}
