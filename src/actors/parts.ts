/** Creates the parts of a sandbox's actor in order: each gets the earlier ones, and informs later ones by events. */
import { Connection } from "../container/connection.ts";
import { FileOperations } from "../container/file-operations.ts";
import type { OutboundPolicy } from "../container/internet.ts";
import type { Interpreter } from "../container/kernels/interpreter.ts";
import { Kernels } from "../container/kernels/kernels.ts";
import { callModel } from "../container/model-egress.ts";
import { type Requesting, Requests } from "../container/requests.ts";
import { Snapshots } from "../container/snapshots.ts";
import { CodeExecutor } from "../runs/code-executor.ts";
import { CommandExecutor } from "../runs/command-executor.ts";
import { questionDetailOf } from "../runs/run-types.ts";
import { Runs } from "../runs/runs.ts";
import { type Config, type Env, parseConfig } from "../shared/config.ts";
import { DAY_MS } from "../shared/days.ts";
import { log } from "../shared/log.ts";
import { networkLimits } from "../shared/network-limits.ts";
import { type Secret, secretsFor } from "../shared/secrets.ts";
import { migrate } from "../storage/migrations.ts";
import { objectStore } from "../storage/object-store.ts";
import { SANDBOX_SCHEMA } from "../storage/sandbox-schema.ts";
import { TaskBudgets } from "../tasks/budget.ts";
import { Questions } from "../tasks/questions.ts";
import { TaskExecutor } from "../tasks/task-executor.ts";
import { AccountLink } from "./account-link.ts";
import { Activity } from "./activity.ts";
import { NetworkDecisions } from "./decisions.ts";
import { DiskUsage } from "./disk-usage.ts";
import { FileLinks } from "./file-links.ts";
import { IdleStop } from "./idle-stop.ts";
import { Lease } from "./lease.ts";
import { Lifecycle } from "./lifecycle.ts";
import { ModelUse } from "./model-use.ts";
import { SandboxOperations } from "./sandbox-operations.ts";
import { SandboxNetwork } from "./network.ts";
import type { NetworkPlatform } from "./platform/network-platform.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import { Previews } from "./previews.ts";
import { RestartNotice } from "./restart-notice.ts";
import { Retention } from "./retention.ts";
import { RunEnds } from "./run-ends.ts";
import { RunFiles } from "./run-files.ts";
import { OwnSandboxd } from "./sandboxd.ts";
import { SandboxVariables } from "./sandbox-variables.ts";
import { Service } from "./service.ts";
import { SandboxSettings } from "./settings.ts";
import { SetUp } from "./set-up.ts";
import { SetUpOutcomes } from "./set-up-outcomes.ts";
import { Storage } from "./storage.ts";
import { Workspace } from "./workspace.ts";
import { LOST_NOTES } from "./texts.ts";

/** What the parts need of the actor and the SDK. */
export interface PartsOptions {
  ctx: DurableObjectState<{}>;
  env: Env;
  platform: ContainerPlatform;
  interpreter: Interpreter;
  network: NetworkPlatform;
  /** Routes requests to these hosts to the policy handler. */
  intercept(hosts: readonly string[], policy: OutboundPolicy, secrets: readonly Secret[]): Promise<void>;
  /** Installs a coding agent that the sandbox lacks. @throws Error that says what to do */
  prepareAgent(agent: string): Promise<void>;
}

/** The storage key of the time until which use was reported to the account. */
const SETTLED = "told";

export class Parts {
  readonly restartNotice: RestartNotice;
  readonly account: AccountLink;
  readonly lease: Lease;
  readonly activity: Activity;
  readonly variables: SandboxVariables;
  readonly network: SandboxNetwork;
  readonly decisions: NetworkDecisions;
  readonly sandboxd: OwnSandboxd;
  readonly workspace: Workspace;
  readonly lifecycle: Lifecycle;
  readonly files: FileOperations;
  readonly operations: SandboxOperations;
  readonly kernels: Kernels;
  readonly code: CodeExecutor;
  readonly commands: CommandExecutor;
  readonly tasks: TaskExecutor;
  readonly questions: Questions;
  readonly runs: Runs;
  readonly runFiles: RunFiles;
  readonly modelUse: ModelUse;
  readonly fileLinks: FileLinks;
  readonly previews: Previews;
  readonly idle: IdleStop;
  readonly diskUsage: DiskUsage;
  readonly retention: Retention;
  readonly storage: Storage;
  readonly setUp: SetUp;
  readonly service: Service;
  readonly settings: SandboxSettings;
  readonly config: Config;

  constructor(foundation: PartsOptions) {
    const { ctx, env, platform } = foundation;
    migrate(ctx.storage, SANDBOX_SCHEMA);
    const { kv, sql } = ctx.storage;
    const config = parseConfig(env);
    this.config = config;
    const keepMs = config.resultTTLDays * DAY_MS;
    const logCapBytes = config.runLogMaxMiB * 1024 * 1024;
    const background = (work: Promise<unknown>) => ctx.waitUntil(work);
    const report = (where: string) => (error: unknown) =>
      log(config, { event: "error", ref: crypto.randomUUID(), where, error });
    const common = { kv, sql, platform, background };

    // The sandbox and its account.
    this.restartNotice = new RestartNotice(kv);
    const account = new AccountLink(ctx, env);
    this.account = account;
    const sandbox = () => account.owner.sandbox;
    const secrets = () => secretsFor(config.secrets, account.principalID);
    const bucket = objectStore(env.RESULTS);
    const objects = { bucket, prefix: (runID: string) => account.prefix(runID) };
    this.lease = new Lease({
      limits: config.limits,
      request: (request) => account.account().lease(account.owner, request),
      background,
      settled: () => kv.put(SETTLED, Date.now()),
    });
    this.activity = new Activity(common);
    this.variables = new SandboxVariables(kv);
    this.network = new SandboxNetwork({
      ...common,
      platform: foundation.network,
      limits: () => networkLimits(config, account.principalID),
      principalID: () => account.principalID,
      secretHosts: () => [...new Set(secrets().flatMap(({ hosts }) => hosts))],
      gitHosts: () => (config.gitSignIn ? account.gitHosts : []),
      intercept: (hosts, policy) => foundation.intercept(hosts, policy, secrets()),
    });

    // The container.
    const sandboxd = new OwnSandboxd(platform, kv);
    this.sandboxd = sandboxd;
    const requests = new Requests(sandboxd);
    const fetch: Requesting = (...call) => requests.request(...call);
    this.workspace = new Workspace({
      ...common,
      sync: () => ctx.storage.sync(),
      snapshots: new Snapshots(fetch),
      bucket,
      prefix: () => account.workspacesPrefix,
      account: () => account.account(),
      sandbox,
      ...config.workspaces,
      restartNotice: this.restartNotice,
      report: report("workspace"),
    });
    this.lifecycle = new Lifecycle({
      platform,
      environment: sandboxd,
      account,
      lease: this.lease,
      network: this.network,
      workspace: this.workspace,
      notice: this.restartNotice,
      activity: this.activity,
      background,
    });
    const { lifecycle } = this;
    const connection = new Connection(sandboxd, lifecycle);
    this.files = new FileOperations(requests.withWorkspace(lifecycle));
    const glancing = new FileOperations(fetch);
    this.operations = new SandboxOperations({
      files: this.files,
      glancing,
      activity: this.activity,
      lifecycle,
      workspace: this.workspace,
    });

    // What runs in it.
    const link = { connection, lifecycle, variables: this.variables };
    this.kernels = new Kernels(foundation.interpreter, link, sql);
    this.code = new CodeExecutor(this.kernels, this.files, logCapBytes);
    this.commands = new CommandExecutor(link);
    const budgets = new TaskBudgets(sql);
    this.tasks = new TaskExecutor({
      files: this.files,
      commands: this.commands,
      budgets,
      prepareAgent: (agent) => foundation.prepareAgent(agent),
      objects,
      boot: () => this.restartNotice.count,
      maxTokens: config.tasks.maxTokens,
      archives: {
        keepArchive: (what) => this.workspace.keepArchive(what, this.settings),
        restoreConversation: async (run, task) => {
          await lifecycle.ready();
          await this.workspace.restoreConversation(run, task);
        },
      },
      archiveMaxBytes: config.tasks.archiveMaxMiB * 1024 * 1024,
      keepMs,
      report: report("execute_task"),
    });
    this.questions = new Questions({
      code: this.code,
      budgets,
      maxTokens: config.tasks.maxTokens,
      callModel: (request) => callModel(request, env, ctx.id.toString()),
      lifecycle,
    });
    this.runs = new Runs({
      sql,
      executors: {
        code: this.code,
        command: this.commands,
        task: {
          resume: (run, state) =>
            (questionDetailOf(run.record) ? this.questions : this.tasks).resume(run, state),
        },
      },
      quota: this.lease,
      sandbox,
      objects,
      logCapBytes,
      keepMs,
      background,
      ready: async () => {
        await lifecycle.admitRun();
        this.storage.changed();
      },
      completed: (end, startedAt) => this.network.withRefusals(end, startedAt),
      explained: (error) => lifecycle.explained(error),
      failed: (id, error) => log(config, { event: "error", ref: id, where: "run", error }),
      discard: () => lifecycle.release(),
      taskRemoved: (id) => account.account().removeArchive(id),
    });
    const { runs } = this;
    this.modelUse = new ModelUse({
      budgets,
      tasks: this.tasks,
      runs,
      network: this.network,
      account,
      background,
    });

    // What they leave, and what leads to them.
    this.runFiles = new RunFiles(runs, objects);
    this.fileLinks = new FileLinks(kv);
    this.previews = new Previews({
      sql,
      sandboxd,
      restartNotice: this.restartNotice,
      lifecycle,
      account,
      background,
    });
    this.retention = new Retention({ ...common, connection, runs, keepMs });
    this.idle = new IdleStop({
      ...common,
      account,
      lifecycle,
      previews: this.previews,
      files: glancing,
      limits: config.idle,
    });
    this.diskUsage = new DiskUsage({
      lifecycle,
      background,
      measure: async () => {
        // What programs did until now was for somebody: the next look is at what they do from now on.
        await this.idle.isBusy();
        await account.measured((await this.files.call("usage", { path: "/workspace" })).bytes);
      },
    });
    this.storage = new Storage({
      runs,
      report: (stored) => account.account().sandboxStored(account.owner, stored),
      background,
    });
    const ends = new RunEnds({
      account,
      lease: this.lease,
      platform,
      lifecycle,
      budgets,
      retention: this.retention,
      diskUsage: this.diskUsage,
      workspace: this.workspace,
      storage: this.storage,
      background,
    });
    runs.onEnded((run, hasFiles) => {
      ends.ended(run, hasFiles);
      // Those that end with an earlier actor end before there is a service.
      (this.service as Service | undefined)?.runEnded(run);
    });
    this.lease.inherit(runs.secondsSince(kv.get<number>(SETTLED)));
    runs.resume(platform.isRunning);

    // What it is set to. To be made after the runs of an earlier actor are resumed.
    this.setUp = new SetUp({
      kv,
      lifecycle,
      background,
      sandbox,
      outcomes: new SetUpOutcomes({
        workspace: this.workspace,
        lifecycle,
        account,
        variables: () => this.variables.current,
        policy: () => this.network.policy,
        secrets,
        isSaved: config.workspaces.isSaved,
        keepMs: config.workspaces.ttlDays * DAY_MS,
        report: report("workspace"),
      }),
      workspace: this.workspace,
      runs,
      commands: this.commands,
      report: report("workspace"),
    });
    this.service = new Service({
      kv,
      lifecycle,
      background,
      runs,
      commands: this.commands,
      setUp: this.setUp,
      report: report("service"),
    });
    this.settings = new SandboxSettings({
      variables: this.variables,
      network: this.network,
      setUp: this.setUp,
      idle: this.idle,
      service: this.service,
      lifecycle,
      account,
    });

    this.decisions = new NetworkDecisions({
      kv,
      network: this.network,
      settings: this.settings,
      lifecycle,
    });

    lifecycle.subscribe(
      connection,
      this.previews,
      this.fileLinks,
      this.retention,
      this.diskUsage,
      this.kernels,
      this.network,
      this.workspace,
      this.restartNotice,
      this.setUp,
      {
        ended: (end) => runs.containerGone(LOST_NOTES[end]),
        get isBusy() {
          return runs.isBusy;
        },
      },
      this.service,
      this.settings,
      this.decisions,
    );
  }
}
