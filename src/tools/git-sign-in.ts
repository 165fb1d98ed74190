/** If git lacked credentials in a run, the server asks a person to sign in to the host, or the answer says what to do. */
import { accountOf } from "../actors/account-of.ts";
import { retryOnce } from "../actors/sandbox-client.ts";
import { type RunView, hasFailed } from "../runs/run-types.ts";
import { GIT_PATH } from "../shared/link-token.ts";
import { gitHost, refusedByHost } from "../shared/git-credential.ts";
import { networkLimits } from "../shared/network-limits.ts";
import { countdown } from "../shared/timers.ts";
import { defaultWait } from "../shared/wait.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { CLONE_FAILED } from "../tasks/texts.ts";
import type { Question } from "./decision.ts";
import { type ToolContext, requireSandboxOf } from "./define.ts";
import { didNotSignInText, signInQuestion, signInText, signedInText } from "./texts.ts";

/** The host for which git had no credentials in an ended run. `gitHost` checks it, because any program can print the message. */
function refusingHost({ config, principal }: ToolContext, run: RunView): string | undefined {
  if (!config.gitSignIn || !hasFailed(run)) return undefined;
  const { note = "", stderr, stdout } = run;
  const printed = [stderr, stdout].flatMap(({ head, tail }) => [head, tail]);
  const clone = note.startsWith(CLONE_FAILED) ? [note] : [];
  // In a task, only the failed clone counts, not the agent's output.
  const [host] = (taskDetailOf(run) ? clone : printed).flatMap((text) => refusedByHost(text) ?? []);
  return host === undefined ? undefined : gitHost(host, networkLimits(config, principal.id));
}

function signInPage({ config, hasSignIn, origin }: ToolContext, host: string): string | undefined {
  const at = config.publicOrigin ?? origin;
  return hasSignIn && at !== undefined ? `${at}${GIT_PATH}/${host}` : undefined;
}

export async function gitHint(context: ToolContext, run: RunView): Promise<string | undefined> {
  const host = refusingHost(context, run);
  if (host === undefined) return undefined;
  if (await hasSignedInTo(context, host, run, 0)) return signedInText(host);
  return signInText(host, signInPage(context, host));
}

/**
 * A question that asks the person to sign in, if the run ended during this call. Later calls only read the run's result, so
 * they do not ask. Clients of MCP 2025-11-25 repeat the call without naming the earlier run, so they get a question only if a
 * repetition does no harm.
 */
export function gitQuestion(
  context: ToolContext,
  run: RunView,
  { isRepeatable }: { isRepeatable: boolean },
): Question | undefined {
  const { arrivedAt, urlElicitation, notices } = context;
  // Notices are for the model, and may contain text that code chose. So a question to a person has none.
  if (notices.size > 0) return undefined;
  if (urlElicitation === undefined || (urlElicitation === "legacy" && !isRepeatable)) return undefined;
  if (run.endedAt === undefined || run.endedAt < arrivedAt) return undefined;
  const host = refusingHost(context, run);
  const url = host && signInPage(context, host);
  return url ? { id: run.id, url, message: signInQuestion(host), run: run.id } : undefined;
}

/** The run that the previous call's question was about, and whether the person signed in; undefined without such a question. */
export async function signInAnswer(context: ToolContext, { isTask }: { isTask: boolean }) {
  const { questionedRun: id, urlElicitation, config, isDeclined } = context;
  if (id === undefined || urlElicitation === undefined) return undefined;
  const read = { id, waitMs: 0 };
  const { run } = await context.reading(requireSandboxOf(id), (actor, owner) => actor.readRun(owner, read));
  const host = refusingHost(context, run);
  // The tools for tasks and for commands need different scopes.
  if (host === undefined || isTask !== (taskDetailOf(run) !== undefined)) return undefined;
  const waitMs = isDeclined ? 0 : defaultWait(config.maxWaitSeconds) * 1000;
  const hasSignedIn = await hasSignedInTo(context, host, run, waitMs);
  return { run, hasSignedIn, hint: hasSignedIn ? signedInText(host) : didNotSignInText(host) };
}

/** Waits for a sign-in after the run's start. */
async function hasSignedInTo({ env, principal }: ToolContext, host: string, run: RunView, ms: number) {
  const leftMs = countdown(ms);
  return await retryOnce(async () =>
    accountOf(env, principal.id).gitSignedIn(host, run.startedAt, Math.max(0, leftMs())),
  );
}
