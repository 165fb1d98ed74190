/** Calls that wait for a person's decision. The client opens a page of this server (URL elicitation), which asks the person. */
import {
  inputRequired,
  inputResponse,
  type InputRequiredResult,
  type ServerContext,
  UrlElicitationRequiredError,
} from "@modelcontextprotocol/server";
import { callSandbox } from "../actors/sandbox-client.ts";
import { linkKeys } from "../actors/link-keys.ts";
import type { NetworkChoice } from "../actors/network.ts";
import { DECISION_PATH, writeToken } from "../shared/link-token.ts";
import { actorName } from "../shared/names.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { defaultWait } from "../shared/wait.ts";
import { networkDeclined, networkQuestionText } from "./texts.ts";

export interface Question {
  id: string;
  url: string;
  message: string;
  /** The id of the run that the question is about. The client's next call names it. */
  run?: string;
}

/** The key of the question in a result, and of the reply in the client's next call. */
const KEY = "decision";

const SHOWN_HOSTS = 5;

/**
 * Returns the change, or a question to a person if the change gives the sandbox more network access and the client can show a
 * question. @throws {ToolError} if a person has refused
 */
export async function decideNetwork(
  context: CallerContext & { isDeclined: boolean },
  sandbox: string,
  change: NetworkChoice,
): Promise<{ change: NetworkChoice; isWithin?: true } | { question: Question }> {
  const { config, env, principal, urlElicitation, origin } = context;
  if (urlElicitation === undefined) return { change };
  const owner = { principalID: principal.id, sandbox, region: principal.region };
  const waitMs = context.isDeclined ? 0 : defaultWait(config.maxWaitSeconds) * 1000;
  const answer = await callSandbox(env, owner, (actor, who) => actor.askForNetwork(who, change, waitMs));
  if (answer.state === "within") return { change: answer.change, isWithin: true };
  const shown = answer.added.slice(0, SHOWN_HOSTS).join(", ");
  const more = answer.added.length > SHOWN_HOSTS ? ` and ${answer.added.length - SHOWN_HOSTS} more` : "";
  const hosts = answer.added.length === 0 ? "all of the internet" : shown + more;
  if (answer.state === "refused" || context.isDeclined) throw networkDeclined(sandbox, hosts);
  const link = { actor: await actorName(sandbox, principal.id), id: answer.id };
  const token = await writeToken(link, await linkKeys(context));
  const at = config.publicOrigin ?? origin;
  if (token === undefined || at === undefined) return { change };
  const message = networkQuestionText(sandbox, hosts);
  return { question: { id: answer.id, url: `${at}${DECISION_PATH}/${token}`, message } };
}

export function hasDeclined({ mcpReq }: ServerContext): boolean {
  const answer = inputResponse(mcpReq.inputResponses, KEY);
  return answer.kind === "elicit" && answer.action !== "accept";
}

/** The id of the run that the question was about. The client sends it, so it may be any text. */
export function questionedRun({ mcpReq }: ServerContext): string | undefined {
  const state = mcpReq.requestState<unknown>();
  return typeof state === "string" ? state : undefined;
}

/**
 * The question in the form that the client's revision of MCP requires. @throws {UrlElicitationRequiredError} for clients before
 * 2026-07-28
 */
export function questionResult(
  { id, url, message, run }: Question,
  { urlElicitation }: CallerContext,
): InputRequiredResult {
  if (urlElicitation === "legacy")
    throw new UrlElicitationRequiredError([{ mode: "url", elicitationId: id, url, message }], message);
  return inputRequired({
    inputRequests: { [KEY]: inputRequired.elicitUrl({ url, message }) },
    ...(run === undefined ? {} : { requestState: run }),
  });
}
