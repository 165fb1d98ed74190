/**
 * Tasks: a coding agent at work in the sandbox, started by `container/task.sh` as one command. The steps of a task are
 * its own files in the sandbox, the command, and what is fetched from the sandbox when the agent has ended. Tasks of one
 * sandbox run one after another: two agents in one workspace would each answer for the other's changes.
 */
import { ToolError, platformFailure } from "../sandbox/errors.ts";
import type { Shell } from "../sandbox/shell.ts";
import type { ActiveRun } from "./active.ts";
import { AGENTS, type AgentName, type AgentReport, type EventReader } from "./agents.ts";
import type { CommandTrace, Commands } from "./command.ts";
import { KeyedQueue } from "./queue.ts";
import type { End, Execution } from "./run.ts";
import { type ArchiveSource, TaskArchive } from "./task-archive.ts";
import type { ModelAnswer, ModelCall, TaskBudgets } from "./task-budget.ts";
import { collect } from "./task-collect.ts";
import type { TaskDetail } from "./task-detail.ts";
import { verdictOf } from "./task-end.ts";
import { type Step, TaskOutput } from "./task-output.ts";
import { TASK_SESSION, TaskScript } from "./task-script.ts";

export interface TaskSpec {
  task: string;
  agent: AgentName;
  /** Cloned into `directory` first. */
  repository?: string;
  branch?: string;
  /** Where the agent works: an absolute path. */
  directory: string;
  model?: string;
  maxTurns?: number;
  /** From the moment it starts, milliseconds. */
  timeoutMs: number;
  /** Whether the sandbox was made for this task alone and ends with it. */
  ownSandbox: boolean;
  /** The agent's id of the conversation that goes on. */
  conversation?: string;
  /** The archive to start from. */
  restore?: ArchiveSource;
}

/** What the actor gives its tasks. */
export interface TasksHost {
  shell: Shell;
  commands: Commands;
  budgets: TaskBudgets;
  bucket: R2Bucket;
  /** `<principal hash>/<run id>/`, for objects in the bucket. */
  prefix(runID: string): string;
  /** Writes a file of base64. */
  writeFile(path: string, content: string, options: { encoding: string }): Promise<unknown>;
  /** How often the container was started. */
  boot(): number;
  maxTokens: number;
  archiveMaxBytes: number;
  /** Takes an error that nobody foresaw. */
  report(error: unknown): void;
}

/** What it takes to go on with a task in another actor. */
export interface TaskTrace {
  /** The specification without what is only needed to start. */
  spec: Omit<TaskSpec, "task" | "restore">;
  /** Once the command has started. */
  command?: CommandTrace;
  /** How the command ended, once it has. */
  end?: End;
  offset: number;
  step?: Step;
  report?: AgentReport;
}

export class Tasks {
  readonly #host: TasksHost;
  readonly #queue = new KeyedQueue();
  readonly #working = new Map<string, WorkingTask>();

  constructor(host: TasksHost) {
    this.#host = host;
  }

  start(run: ActiveRun, { task, restore, ...spec }: TaskSpec): Execution {
    const working = new WorkingTask(this.#host, run, { spec, offset: 0 });
    if (this.#working.size > 0) working.say("Waiting for the task before it in this sandbox");
    return this.#follow(working, () => working.begin(task, restore));
  }

  /** Goes on with a task that an earlier actor started, or answers why that cannot be. */
  resume(trace: TaskTrace | undefined): ((run: ActiveRun) => Execution) | string {
    if (!trace?.command)
      return "The server was restarted before the agent had started. Start the task again.";
    return (run) => {
      const working = new WorkingTask(this.#host, run, trace);
      return this.#follow(working, () => working.goOn());
    };
  }

  /** A request of a task to the model's API is over, with an answer or without. */
  modelAnswered(call: ModelCall, answer: ModelAnswer | undefined): void {
    this.#host.budgets.answered(call, answer);
    if (!answer?.error) return;
    const { status, message } = answer.error;
    this.#working.get(call.run)?.say(`The model's API answered with status ${status}: ${message}`);
  }

  #follow(working: WorkingTask, work: () => Promise<End>): Execution {
    const { id } = working;
    this.#working.set(id, working);
    const turn = this.#queue.run("task", work).finally(() => {
      this.#working.delete(id);
      this.#host.budgets.close(id);
    });
    return { done: Promise.race([turn, working.withdrawn]), cancel: () => working.cancel() };
  }
}

const NEVER_STARTED: End = { state: "cancelled", note: "It was cancelled before the agent started." };

class WorkingTask {
  readonly #host: TasksHost;
  readonly #run: ActiveRun;
  readonly #trace: TaskTrace;
  readonly #events: EventReader;
  readonly #output: TaskOutput;
  readonly #script: TaskScript;
  readonly #withdrawn = Promise.withResolvers<End>();
  #command: Execution | undefined;
  #begun = false;
  #cancelled = false;

  constructor(host: TasksHost, run: ActiveRun, trace: TaskTrace) {
    this.#host = host;
    this.#run = run;
    this.#trace = trace;
    this.#script = new TaskScript(host.shell, run.id);
    this.#events = AGENTS[trace.spec.agent].reader(trace.spec.directory, trace.report);
    this.#output = new TaskOutput(
      run,
      this.#events,
      trace,
      () => this.#save(),
      () => storedOffset(run.storedTrace),
    );
    this.#save();
  }

  get id(): string {
    return this.#run.id;
  }

  say(line: string): void {
    this.#output.say(line);
  }

  /** Settles when it is cancelled while it waits its turn. */
  get withdrawn(): Promise<End> {
    return this.#withdrawn.promise;
  }

  async cancel(): Promise<void> {
    this.#cancelled = true;
    if (!this.#begun) this.#withdrawn.resolve({ ...NEVER_STARTED, detail: this.#unstarted() });
    await this.#command?.cancel();
  }

  async begin(task: string, restore: ArchiveSource | undefined): Promise<End> {
    const { spec } = this.#trace;
    this.#begun = true;
    if (!this.#cancelled) await this.#prepare(task, restore);
    if (this.#cancelled) return { ...NEVER_STARTED, detail: this.#unstarted() };
    this.#command = this.#host.commands.start(
      this.#output,
      { command: this.#script.run(), session: TASK_SESSION, timeoutMs: spec.timeoutMs },
      (command) => {
        this.#trace.command = command;
        this.#secure();
      },
    );
    return this.#see(this.#command);
  }

  async goOn(): Promise<End> {
    const { command, end } = this.#trace;
    this.#begun = true;
    if (end) return this.#finish(end);
    if (!command) return { state: "lost", note: "The agent had not started." };
    this.#command = this.#host.commands.resume(this.#output, command);
    if (this.#cancelled) await this.#command.cancel();
    return this.#see(this.#command);
  }

  async #prepare(task: string, restore: ArchiveSource | undefined): Promise<void> {
    const { spec } = this.#trace;
    const agent = AGENTS[spec.agent];
    const key = await this.#host.budgets.open(this.id, this.#host.maxTokens);
    const env = Object.entries(agent.env(key)).map(([name, value]) => `${name}=${value}\n`);
    await this.#script.prepare({
      prompt: task,
      argv: agent
        .command(spec)
        .map((word) => `${word}\n`)
        .join(""),
      env: env.join(""),
      directory: spec.directory,
      repository: spec.repository,
      branch: spec.branch,
    });
    if (restore) await new TaskArchive(this.#host, this.#script).restore(restore);
  }

  /** Sees the agent to its end, and what it left behind to safety. */
  async #see(command: Execution): Promise<End> {
    const end = await command.done;
    this.#output.finish();
    if (this.#run.ended) return end;
    this.#trace.end = end;
    this.#secure();
    return this.#finish(end);
  }

  async #finish(command: End): Promise<End> {
    const { spec } = this.#trace;
    const { budgets } = this.#host;
    const { record } = this.#run;
    const agent = AGENTS[spec.agent];
    const verdict = verdictOf({
      ...spec,
      id: record.id,
      agent: agent.title,
      program: agent.command({})[0] ?? "",
      command,
      report: this.#events.report,
      step: this.#output.step,
      spending: budgets.spending(this.id),
      stderr: record.ends.stderr.shown().tail || record.ends.stderr.shown().head,
    });
    budgets.close(this.id);
    const detail = { ...this.#detail(), success: verdict.state === "succeeded" };
    // Before the agent there is nothing of its to keep.
    detail.safe = this.#output.step !== "agent";
    if (detail.safe || command.state === "lost") return { ...verdict, detail };
    let note = verdict.note;
    try {
      this.say("Collecting what it changed");
      const { changes, artifacts } = await collect(this.#host, this.#script, record.id, spec.directory);
      Object.assign(detail, { changes, artifacts });
      if (changes === undefined) note = also(note, "What it changed could not be found out.");
      const archive = new TaskArchive(this.#host, this.#script);
      detail.archive = await archive.make(record.id, agent.conversations, detail.conversation);
      const left = detail.archive?.left;
      if (left)
        note = also(
          note,
          `The archive leaves out ${left.bytes} bytes (files: ${left.count}), among them ${left.largest
            .slice(0, 3)
            .map(({ path }) => path)
            .join(", ")}: they end with the sandbox.`,
        );
      detail.safe = detail.archive !== undefined;
      if (!detail.safe) note = also(note, "Its workspace could not be packed into an archive.");
    } catch (error) {
      const failure = platformFailure(error);
      if (!failure) this.#host.report(error);
      note = also(
        note,
        `Not all that it left could be kept: ${failure?.message ?? "the server had an internal error."}`,
      );
    }
    detail.boot = this.#host.boot();
    if (!spec.ownSandbox) await this.#script.clean().catch(() => undefined);
    return { state: verdict.state, note, detail };
  }

  /** Of a task that never began there is nothing to keep. */
  #unstarted(): TaskDetail {
    return { ...this.#detail(), safe: true };
  }

  #detail(): TaskDetail {
    const { spec } = this.#trace;
    const { conversation, model, answer, turns, tokens, costUSD } = this.#events.report;
    return {
      agent: spec.agent,
      success: false,
      answer,
      model,
      directory: spec.directory,
      conversation: conversation ?? spec.conversation,
      turns,
      tokens,
      costUSD,
      artifacts: [],
      ownSandbox: spec.ownSandbox,
      safe: false,
    };
  }

  /** What is known now must not wait for the next time that the run is written down. */
  #secure(): void {
    this.#save();
    this.#run.save();
  }

  #save(): void {
    const { spec, command, end } = this.#trace;
    const { offset, step } = this.#output;
    const report = { ...this.#events.report };
    this.#run.trace({ spec, command, end, offset, step, report } satisfies TaskTrace);
    this.#run.describe(this.#detail());
  }
}

function storedOffset(trace: unknown): number {
  return (trace as TaskTrace | undefined)?.offset ?? 0;
}

function also(note: string | undefined, more: string): string {
  return note ? `${note} ${more}` : more;
}

/** Where a clone of a repository goes: below /workspace, by its own name. @throws {ToolError} for one without a name */
export function cloneDirectory(repository: string): string {
  const name = repository
    .replace(/[?#].*$/, "")
    .replace(/\/+$/, "")
    .replace(/\.git$/, "")
    .split(/[/:]/)
    .at(-1);
  const clean = name?.replaceAll(/[^A-Za-z0-9._-]/g, "-").replace(/^[.-]+/, "");
  if (clean) return `/workspace/${clean}`;
  throw new ToolError(
    "invalid_argument",
    `${repository} does not name a repository.`,
    "Pass the address that git clone takes.",
  );
}
