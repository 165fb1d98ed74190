/** Starts a task or a question: chooses its sandbox and initial state. */
import { type Agent, AGENTS, type AgentName, DEFAULT_AGENT } from "../tasks/agents.ts";
import type { RunView } from "../runs/run-types.ts";
import type { TaskSpec } from "../tasks/task-executor.ts";
import { type ComponentNames, componentsFor, wantedComponents } from "../tasks/components.ts";
import { PROGRAM_LANGUAGES, type ProgramLanguage } from "../shared/languages.ts";
import type { QuestionSpec } from "../tasks/questions.ts";
import { cloneDirectory } from "../tasks/task-command.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { type ErrorCode, ToolError } from "../shared/errors.ts";
import { AGENT_NAMES, randomLetters } from "../shared/names.ts";
import { canRunTasks } from "../shared/config.ts";
import { MODEL_HOST, SERVER, secretsOfHost, secretsFor } from "../shared/secrets.ts";
import { requireOffered, type ToolContext, requireSandboxOf } from "./define.ts";
import { fork, forkTask, requireSavedWorkspaces } from "./checkpoints.ts";
import * as texts from "../tasks/texts.ts";

type SharedFields = "task" | "repository" | "branch" | "model" | "maxTurns" | "timeoutMs";

interface TaskRequest extends Pick<TaskSpec, SharedFields>, Partial<ComponentNames> {
  agent?: AgentName;
  /** The sandbox's name; undefined for a new sandbox. */
  sandbox?: string;
  continueFrom?: string;
  checkpoint?: string;
}

/** @param what one of the texts of `NEEDS_MODEL` @throws {ToolError} */
function requireModel(context: ToolContext, what: string): void {
  // HTTP routes start tasks without a tool. So no earlier code has checked that the operator offers `execute_task`.
  requireOffered("execute_task", context);
  if (canRunTasks(context.config)) return;
  throw texts.noModel(what);
}

interface QuestionRequest {
  question: string;
  language?: ProgramLanguage | undefined;
  sandbox?: string | undefined;
  model?: string | undefined;
  timeoutMs: number;
}

export async function startQuestion(
  context: ToolContext,
  { question, language, sandbox, model, timeoutMs }: QuestionRequest,
): Promise<RunView> {
  requireModel(context, texts.NEEDS_MODEL.question);
  const spec: QuestionSpec = {
    question,
    languages: language === undefined ? PROGRAM_LANGUAGES : [language],
    model: model ?? context.config.tasks.questionModel,
    ownSandbox: sandbox === undefined,
    timeoutMs,
    trace: context.trace,
  };
  return context.sandbox(sandbox ?? newSandboxName(), (actor, owner) => actor.askQuestion(owner, spec));
}

export async function startTask(context: ToolContext, request: TaskRequest): Promise<RunView> {
  const { continueFrom, checkpoint, sandbox, task, agent: chosen, agents, commands, ...options } = request;
  requireModel(context, texts.NEEDS_MODEL.task(AGENTS[chosen ?? DEFAULT_AGENT].title));
  if (checkpoint !== undefined && continueFrom !== undefined) throw texts.checkpointAndContinue();
  if (checkpoint !== undefined && sandbox !== undefined) throw texts.checkpointAndSandbox();
  if (options.branch !== undefined && options.repository === undefined) throw texts.branchAlone();
  const chosenComponents = agents || commands ? wantedComponents({ agents, commands }) : undefined;
  const {
    name,
    components: earlierComponents = [],
    agent: earlierAgent,
    ...start
  }: Start = continueFrom === undefined
    ? {
        name: sandbox ?? newSandboxName(),
        ownSandbox: sandbox === undefined,
        directory: options.repository === undefined ? "/workspace" : cloneDirectory(options.repository),
      }
    : await continueTask(context, continueFrom, request);
  const { env, config } = context;
  const startsEmpty = [options.repository, sandbox, continueFrom, checkpoint].every(
    (from) => from === undefined,
  );
  const agent = earlierAgent ?? chosen ?? DEFAULT_AGENT;
  if (chosen !== undefined && chosen !== agent)
    throw texts.otherAgent(String(continueFrom), AGENTS[agent].title);
  const named = chosenComponents ?? earlierComponents;
  requireSupport(AGENTS[agent], context, request, named);
  const components = await componentsFor(env, config, named, !startsEmpty);
  const { trace } = context;
  const spec: TaskSpec = { task, agent, ...options, ...start, ...components, trace };
  const begin = () => context.sandbox(name, (actor, owner) => actor.executeTask(owner, spec));
  if (checkpoint !== undefined) {
    requireSavedWorkspaces(context);
    return startInFork(context, name, () => fork(context, checkpoint, name), begin);
  }
  const { continuedRun } = start;
  if (continuedRun === undefined) return begin();
  return startInFork(context, name, () => forkTask(context, continuedRun, name), begin);
}

/** The codes of errors after which the call may have run. */
const UNCERTAIN: ReadonlySet<ErrorCode> = new Set(["connection_lost", "storage_unavailable"]);

/** Starts a task in a sandbox that `make` creates from a saved state. If the task is refused, destroys the sandbox. */
async function startInFork<T>(
  context: ToolContext,
  sandbox: string,
  make: () => Promise<unknown>,
  begin: () => Promise<T>,
): Promise<T> {
  await make();
  try {
    return await begin();
  } catch (error) {
    // After any other error the task may have begun. The server destroys the sandbox once it has been idle for long.
    if (error instanceof ToolError && !UNCERTAIN.has(error.code))
      await context.sandbox(sandbox, (actor, owner) => actor.destroySandbox(owner)).catch(() => undefined);
    throw error;
  }
}

function requireSupport(
  agent: Agent,
  { config }: ToolContext,
  { maxTurns }: TaskRequest,
  components: readonly string[],
): void {
  const { title } = agent;
  const [model] = secretsOfHost(secretsFor(config.secrets, SERVER), MODEL_HOST);
  if (!agent.takesToken && model?.place.name !== "x-api-key") throw texts.agentNeedsKey(title);
  if (maxTurns !== undefined && !agent.limitsTurns) throw texts.noTurnLimit(title);
  if (components.length > 0 && !agent.findsComponents) throw texts.noComponents(title);
}

type Start = Pick<TaskSpec, "ownSandbox" | "directory" | "conversation" | "continuedRun"> & {
  name: string;
  agent?: AgentName;
  components?: readonly string[];
};

/** Continues in the earlier task's sandbox if its files are still there, else in a new sandbox with the restored files. */
async function continueTask(context: ToolContext, id: string, request: TaskRequest): Promise<Start> {
  if (request.repository !== undefined) throw texts.repositoryAndContinue();
  const earlierSandbox = requireSandboxOf(id);
  const { run, isAlive } = await context.reading(earlierSandbox, (actor, owner) =>
    actor.taskOrigin(owner, id),
  );
  const detail = taskDetailOf(run);
  if (!detail) throw texts.notATask(id);
  if (run.state === "running") throw texts.taskRunning(id);
  const { directory, conversation, archive, components } = detail;
  if (conversation === undefined) throw texts.noConversation(id);
  const agent = AGENT_NAMES.find((name) => name === detail.agent);
  if (isAlive && (request.sandbox ?? earlierSandbox) === earlierSandbox)
    return { name: earlierSandbox, ownSandbox: false, directory, conversation, agent, components };
  if (request.sandbox !== undefined) throw texts.filesElsewhere(id, request.sandbox);
  if (!archive) throw texts.taskFilesGone(id, earlierSandbox);
  const resumed = archive.isWithoutConversation ? undefined : conversation;
  const start = { ownSandbox: true, directory, conversation: resumed, continuedRun: id, agent, components };
  return { ...start, name: newSandboxName() };
}

function newSandboxName(): string {
  return `task-${randomLetters(8)}`;
}
