/** How a task ended: its state, and the note that says why and what to do. */
import { clause, cutText } from "../shared/text.ts";
import type { AgentReport } from "./agent-report.ts";
import type { Agent } from "./agents.ts";
import type { End } from "../runs/run-types.ts";
import type { EndState } from "../shared/run-listing.ts";
import type { Spending } from "./budget.ts";
import type { UpstreamError } from "../container/model-calls.ts";
import type { Step } from "./task-output.ts";
import type { StoredSpec } from "./task-state.ts";
import { toVisibleJSON } from "../shared/shown.ts";
import * as texts from "./texts.ts";

/** The most characters of the line in which `container/task.sh` names missing definitions. */
const MISSING_CHARACTERS = 2000;

export interface TaskFacts
  extends Pick<Agent, "image" | "install">, Omit<StoredSpec, "agent" | "ownSandbox"> {
  id: string;
  /** The agent's name for people, and its program. */
  agent: string;
  program: string;
  /** How the agent's process ended. */
  command: End;
  report: AgentReport;
  step: Step | undefined;
  spending: Spending;
  /** The operator's definitions, as `<kind>/<name>`. */
  offered: readonly string[];
  /** Whether the task's files and conversation stay, so that another task can continue it. */
  isKept: boolean;
  stderr: string;
}

/** The end of a task. `note` says why it did not succeed, or how its program ended, and what to do. */
export interface TaskVerdict {
  state: EndState;
  note?: string;
}

export function verdictOf(facts: TaskFacts): TaskVerdict {
  const { command, report, spending } = facts;
  const continueHint = report.conversation && facts.isKept ? texts.howToContinue(facts.id) : "";
  const failed = (note: string): TaskVerdict => ({ state: "failed", note });
  const isConfirmed = !command.unconfirmed;
  switch (command.state) {
    case "lost":
      return { state: "lost", note: command.note };
    case "cancelled":
      return { state: "cancelled", note: texts.taskCancelled(isConfirmed) + continueHint };
    case "timed_out": {
      if (report.end === "done")
        return { state: "succeeded", note: texts.didNotExit(facts.agent, isConfirmed) };
      const api = spending.upstream ? texts.modelWasFailing(describeUpstream(spending.upstream)) : "";
      const how = { isConfirmed, api, cut: facts.cut };
      const note = texts.timedOut(facts.agent, facts.timeoutMs / 1000, how) + continueHint;
      return { state: "timed_out", note };
    }
  }
  const startFailure = startFailureNote(facts);
  if (startFailure) return failed(startFailure);
  if (spending.isExhausted) return failed(texts.budgetSpent(spending) + continueHint);
  if (spending.isDaySpent) return failed(texts.dayIsSpent() + continueHint);
  switch (report.end) {
    case "done":
      return { state: "succeeded" };
    case "out_of_turns":
      return failed(texts.outOfTurns(facts.agent, facts.maxTurns) + continueHint);
    case "error":
      return failed(
        (spending.upstream
          ? texts.modelFailedAgent(facts.agent, upstreamAdvice(spending.upstream))
          : texts.agentFailed(facts.agent, quoted(clause(report.error ?? "")))) + continueHint,
      );
  }
  return failed(noResultNote(facts) + continueHint);
}

function startFailureNote(facts: TaskFacts) {
  const { step, agent, program, image, install, repository, branch, directory, offered, stderr } = facts;
  switch (step) {
    case "clone_failed":
      return texts.cloneFailed(repository, branch, lastLine(stderr));
    case "directory_exists":
      return texts.directoryInUse(directory);
    case "no_agent":
      return texts.agentMissing(agent, program, image, install);
    case "no_directory":
      return texts.directoryFailed(directory, lastLine(stderr));
    case "no_component":
      return `${quoted(clause(cutText(stderr.trim().split("\n").at(-1) ?? "", MISSING_CHARACTERS)))}. ${texts.describeOffered(offered)}`;
    default:
      return undefined;
  }
}

function noResultNote({ agent, command, report, stderr, spending }: TaskFacts): string {
  const end = texts.exitText(command.exitCode ?? 0);
  const printed = stderr.trim() && lastLine(stderr);
  if (report.unread > 0 && report.conversation === undefined)
    return texts.outputUnreadable(agent, end, quoted(clause(report.unreadSample ?? "")), printed);
  const api = spending.upstream ? texts.modelWasFailing(describeUpstream(spending.upstream)) : "";
  return texts.endedEarly(agent, end, printed, api);
}

function describeUpstream({ status, message }: UpstreamError): string {
  return texts.describeError(status, quoted(clause(message)));
}

export function upstreamAdvice(error: UpstreamError): string {
  return texts.modelAdvice(error.status, describeUpstream(error));
}

function lastLine(text: string): string {
  const lines = text.trim().split("\n");
  const errorLine = lines.findLast((line) => /^(fatal|error|remote):/i.test(line));
  return quoted(cutText(clause(errorLine ?? lines.at(-1) ?? ""), 300));
}

/** A text of the sandbox, of a git host or of the model's API, in quotation marks. Otherwise it could look like further sentences of the server. */
function quoted(text: string): string {
  return text === "" ? texts.NO_REASON : toVisibleJSON(text);
}
