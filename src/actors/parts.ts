/**
 * Creates the parts of a sandbox's actor, in groups from the container up to its calls. Each part uses parts created before it,
 * and learns of changes by the events of `Lifecycle` and `Runs`.
 */
import { Connection } from "../container/connection.ts";
import { FileOperations } from "../container/file-operations.ts";
import type { OutboundPolicy } from "../container/internet.ts";
import type { Interpreter } from "../container/kernels/interpreter.ts";
import { Kernels } from "../container/kernels/kernels.ts";
import { callModel } from "../container/model-egress.ts";
import { type Requesting, Sandboxd } from "../container/sandboxd.ts";
import { Snapshots } from "../container/snapshot-client.ts";
import { CodeExecutor } from "../runs/code-executor.ts";
import { CommandExecutor } from "../runs/command-executor.ts";
import type { Resumer } from "../runs/executor.ts";
import { type Allowance, questionDetailOf } from "../runs/run-types.ts";
import { type RunSubscriber, Runs } from "../runs/runs.ts";
import { type Env, parseConfig } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import { log } from "../shared/log.ts";
import { networkLimits } from "../shared/network-limits.ts";
import type { RunKind } from "../shared/run-listing.ts";
import { type Secret, secretsFor } from "../shared/secrets.ts";
import { migrate } from "../storage/migrations.ts";
import { objectStore } from "../storage/object-store.ts";
import { SANDBOX_MIGRATIONS, type SandboxKV } from "../storage/sandbox-schema.ts";
import { TaskBudgets } from "../tasks/budget.ts";
import { Questions } from "../tasks/questions.ts";
import { TaskExecutor } from "../tasks/task-executor.ts";
import type { Owner } from "./account-calls.ts";
import { AccountLink } from "./account-link.ts";
import { Activity } from "./activity.ts";
import { Calls, type RunPlan, type RunPlans } from "./calls.ts";
import { ContainerEnd } from "./container-end.ts";
import { NetworkDecisions } from "./decisions.ts";
import { DiskUsage } from "./disk-usage.ts";
import { FileLinks } from "./file-links.ts";
import { IdleStop } from "./idle-stop.ts";
import { Lifecycle } from "./lifecycle.ts";
import type { Subscriber } from "./lifecycle-state.ts";
import { ModelUse } from "./model-use.ts";
import { SandboxNetwork } from "./network.ts";
import type { ContainerPlatform, NetworkPlatform } from "./platform/platform.ts";
import { Previews } from "./previews.ts";
import { RestartNotice } from "./restart-notice.ts";
import { RunRecords, TaskRecords } from "./run-records.ts";
import { RunOutputs } from "./run-outputs.ts";
import { SandboxVariables } from "./sandbox-variables.ts";
import { Service } from "./service.ts";
import { SandboxSettings } from "./settings.ts";
import { SetUpOutcomes } from "./set-up-outcomes.ts";
import { SetUp } from "./set-up.ts";
import { LOST_NOTES } from "./texts.ts";
import { Workspace } from "./workspace.ts";

/** The members of the actor and the SDK that the parts use. */
interface ActorPlatform {
  ctx: DurableObjectState<{}>;
  env: Env;
  platform: ContainerPlatform;
  interpreter: Interpreter;
  network: NetworkPlatform;
  intercept(hosts: readonly string[], policy: OutboundPolicy, secrets: readonly Secret[]): Promise<void>;
  /** Installs a coding agent that the sandbox lacks. @throws Error that says what to do */
  prepareAgent(agent: string): Promise<void>;
  setName(sandbox: string): Promise<void>;
}

export type Parts = ReturnType<typeof createParts>;

/** The names of the parts that have one of these methods. With this type the compiler reports a part that is not subscribed. */
type Reacting<All, Event extends string> = {
  [Name in keyof All]: Extract<keyof All[Name], Event> extends never ? never : Name;
}[keyof All];

export function createParts(actor: ActorPlatform) {
  const parts = addUpkeep(addTasks(addSettings(addExecution(addContainer(createBase(actor))))));
  const { account, lifecycle, runs, settings, decisions, network, previews, fileLinks } = parts;
  const { restartNotice, workspace, setUp, service } = parts;

  // Subscribers are called in this order. A subscriber may rely on the work of the subscribers before it.
  const { taskRecords, runRecords, diskUsage, connection, kernels } = parts;
  const onRuns: Pick<typeof parts, Reacting<typeof parts, keyof RunSubscriber>> = {
    taskRecords,
    runRecords,
    diskUsage,
    workspace,
    account,
    lifecycle,
    service,
  };
  runs.subscribe(...Object.values(onRuns));
  account.lease.inherit(runs.secondsSince(account.settledAt));
  runs.resume(parts.executors, actor.platform.isRunning);
  setUp.resume();
  const onContainers: Pick<typeof parts, Reacting<typeof parts, Exclude<keyof Subscriber, "isBusy">>> & {
    runs: Subscriber;
  } = {
    restartNotice,
    connection,
    previews,
    fileLinks,
    runRecords,
    diskUsage,
    // Before `kernels`, so that code that has ended with its container does not run in the next one.
    runs: {
      onContainerEnd: (end) => runs.endAll(LOST_NOTES[end], end === "lost"),
      get isBusy() {
        return runs.isBusy;
      },
    },
    kernels,
    network,
    workspace,
    setUp,
    service,
    settings,
    decisions,
    taskRecords,
  };
  lifecycle.subscribe(...Object.values(onContainers));
  taskRecords.resume();
  actor.platform.onIdle(parts.idle);
  // Enforced now, because programs in the sandbox may act before the next call. If this fails, the next call enforces
  // the policy again.
  if (account.principalID !== undefined) parts.background(lifecycle.resume().catch(() => undefined));

  // The parts that the methods of `Sandbox` call.
  return {
    account,
    lifecycle,
    runs,
    outputs: parts.outputs,
    settings,
    decisions,
    network,
    previews,
    fileLinks,
    modelUse: parts.modelUse,
    restartNotice,
    calls: new Calls({
      ...parts,
      noticeSources: [workspace, setUp, service],
      maxWaitMs: parts.config.maxWaitSeconds * 1000,
    }),
    containerEnd: new ContainerEnd({ ...parts, notice: restartNotice }),
  };
}

/** The sandbox and its account. */
function createBase(actor: ActorPlatform) {
  const { ctx, env, platform } = actor;
  const kv: SandboxKV = migrate(ctx.storage, SANDBOX_MIGRATIONS);
  const { sql } = ctx.storage;
  const config = parseConfig(env);
  const background = (work: Promise<unknown>) => ctx.waitUntil(work);
  const account = new AccountLink(ctx, kv, env, actor.setName);
  const bucket = objectStore(env);
  return {
    actor,
    kv,
    sql,
    platform,
    background,
    config,
    sync: () => ctx.storage.sync(),
    reportFrom: (where: string) => (error: unknown) =>
      log(config, { event: "error", ref: crypto.randomUUID(), where, error }),
    account,
    sandbox: () => account.owner.sandbox,
    secrets: () => secretsFor(config.secrets, account.principalID),
    bucket,
    objects: { bucket, prefix: (runID: string) => account.prefix(runID) },
    keepMs: config.resultTTLDays * DAY_MS,
    restartNotice: new RestartNotice(kv),
    activity: new Activity({ platform, background }),
    variables: new SandboxVariables(kv),
  };
}

/** The container, its network, its saved state, and the connections to it. */
function addContainer(base: ReturnType<typeof createBase>) {
  const { actor, account, config, secrets } = base;
  const network = new SandboxNetwork({
    ...base,
    platform: actor.network,
    limits: () => networkLimits(config, account.principalID),
    principalID: () => account.principalID,
    secretHosts: () => [...new Set(secrets().flatMap(({ hosts }) => hosts))],
    gitHosts: () => (config.gitSignIn ? account.gitHosts : []),
    intercept: (hosts, policy) => actor.intercept(hosts, policy, secrets()),
  });
  const sandboxd = new Sandboxd(base.platform, base.kv, () => account.principalID);
  const fetch: Requesting = (...call) => sandboxd.request(...call);
  const workspace = new Workspace({
    ...base,
    ...config.workspaces,
    snapshots: new Snapshots(fetch),
    prefix: () => account.workspacesPrefix,
    account: () => account.account(),
    report: base.reportFrom("workspace"),
  });
  const notice = base.restartNotice;
  const lifecycle = new Lifecycle({ ...base, environment: sandboxd, network, workspace, notice });
  return {
    ...base,
    network,
    sandboxd,
    workspace,
    lifecycle,
    connection: new Connection(sandboxd, lifecycle),
    files: new FileOperations(sandboxd.withWorkspace(lifecycle), workspace),
    glancing: new FileOperations(fetch, workspace),
  };
}

function addExecution(parts: ReturnType<typeof addContainer>) {
  const { actor, account, config, network } = parts;
  const logCapBytes = config.runLogMaxMiB * 1024 * 1024;
  const kernels = new Kernels(actor.interpreter, parts, parts.sql);
  const runs = new Runs({
    ...parts,
    logCapBytes,
    principalID: () => account.principalID,
    quota: account.lease,
    completeEnd: (end, startedAt) => network.addRefusals(end, startedAt),
    logError: (id, error) => log(config, { event: "error", ref: id, where: "run", error }),
    removeTaskFiles: (id) => account.account().removeArchive(id),
  });
  const code = new CodeExecutor(kernels, parts.files, logCapBytes);
  return { ...parts, kernels, runs, code, commands: new CommandExecutor(parts) };
}

/** The sandbox's settings, and the runs that they start: the set-up and the service. */
function addSettings(execution: ReturnType<typeof addExecution>) {
  const { config, variables, network } = execution;
  const report = execution.reportFrom("workspace");
  const parts = { ...execution, previews: new Previews(execution) };
  const outcomes = new SetUpOutcomes({
    ...parts,
    ...config.workspaces,
    variables: () => variables.current,
    policy: () => network.policy,
    keepSharedMs: config.workspaces.ttlDays * DAY_MS,
    report,
  });
  const setUp = new SetUp({ ...parts, outcomes, report });
  const service = new Service({ ...parts, setUp, report: parts.reportFrom("service") });
  const idle = new IdleStop({ ...parts, limits: config.idle });
  const settings = new SandboxSettings({ ...parts, setUp, idle, service });
  return {
    ...parts,
    setUp,
    service,
    idle,
    settings,
    decisions: new NetworkDecisions({ ...parts, settings }),
  };
}

/** Agents and questions, and the runs that callers start. */
function addTasks(configured: ReturnType<typeof addSettings>) {
  const { actor, config, lifecycle, workspace, settings, code, commands, restartNotice } = configured;
  const { maxTokens, archiveMaxMiB } = config.tasks;
  const parts = { ...configured, budgets: new TaskBudgets(configured.sql), maxTokens };
  const tasks = new TaskExecutor({
    ...parts,
    prepareAgent: (agent) => actor.prepareAgent(agent),
    boot: () => restartNotice.boot,
    principalID: () => configured.account.principalID,
    archives: {
      keepArchive: (archive) => workspace.keepArchive(archive, settings),
      restoreConversation: async (run, task) => {
        await lifecycle.waitUntilReady();
        await workspace.restoreConversation(run, task);
      },
    },
    archiveMaxBytes: archiveMaxMiB * 1024 * 1024,
    report: parts.reportFrom("execute_task"),
  });
  const questions = new Questions({
    ...parts,
    callModel: (request) => callModel(request, actor.env, actor.ctx.id.toString()),
  });
  const modelUse = new ModelUse({ ...parts, tasks });
  const taskRecords = new TaskRecords(parts);
  const check = (owner: Owner) => tasks.refuseDuringTask(owner);
  const modelRun: Pick<RunPlan<Allowance>, "check" | "onStart"> = {
    check: () => modelUse.requireTokens(),
    onStart: (owner, run) => taskRecords.recordStart(owner, run),
  };
  const plans: RunPlans = {
    code: { executor: code, sourceOf: (spec) => spec.code, check },
    command: { executor: commands, sourceOf: (spec) => spec.command, check },
    task: { executor: tasks, sourceOf: (spec) => spec.task, ...modelRun },
    question: { executor: questions, sourceOf: (spec) => spec.question, ...modelRun },
  };
  const executors: Record<RunKind, Resumer> = {
    code,
    command: commands,
    task: { resume: (run, state) => (questionDetailOf(run.record) ? questions : tasks).resume(run, state) },
  };
  return { ...parts, tasks, questions, modelUse, taskRecords, plans, executors };
}

/** The outputs and records of runs, links to files, and the measurement of the disk use. */
function addUpkeep(parts: ReturnType<typeof addTasks>) {
  const { account, idle, files } = parts;
  return {
    ...parts,
    fileLinks: new FileLinks(parts.kv, files),
    outputs: new RunOutputs(parts),
    runRecords: new RunRecords({
      ...parts,
      reportStored: (stored) => account.account().sandboxStored(account.owner, stored),
    }),
    diskUsage: new DiskUsage({
      ...parts,
      measure: async () => {
        // Starts a new period for `IdleStop`: the work of programs during a call is not background work.
        await idle.isBusy();
        await account.reportSize((await files.call("usage", { path: "/workspace" })).bytes);
      },
    }),
  };
}
