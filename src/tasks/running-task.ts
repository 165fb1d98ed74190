/** A running task: prepares the sandbox, runs the agent, and fetches the results. */
import { taskDirectory } from "../../container/sandboxd/shapes.ts";
import { ToolError } from "../shared/errors.ts";
import { messageOf } from "../shared/text.ts";
import { unlessAborted, waitAtMost } from "../shared/timers.ts";
import type { ActiveRun } from "../runs/active-run.ts";
import type { EventReader } from "./agent-report.ts";
import { AGENTS } from "./agents.ts";
import type { CommandState } from "../runs/command-executor.ts";
import type { End, Execution } from "../runs/run-types.ts";
import { archive, leftOutText } from "./archive.ts";
import { collect } from "./collect.ts";
import type { Definition } from "./components.ts";
import type { Artifact, TaskDetail } from "../runs/task-detail.ts";
import { type TaskVerdict, verdictOf } from "./end.ts";
import { TaskOutput } from "./task-output.ts";
import { TASK_SESSION, taskCommand } from "./task-command.ts";
import type { TraceContext } from "../shared/trace.ts";
import type { StoredSpec, TaskState, TasksHost } from "./task-state.ts";
import * as texts from "./texts.ts";

/** How long it may take to fetch the results of a task, in milliseconds; KEEP_CANCELLED_MS after a task was cancelled. */
const KEEP_MS = 900_000;
const KEEP_CANCELLED_MS = 120_000;

/** If the agent is not ready after this time, in milliseconds, it is being installed. The task's output then reports the wait. */
const INSTALL_NOTICE_MS = 2000;

const CANCELLED_BEFORE_AGENT: End = { state: "cancelled", note: texts.CANCELLED_TEXT };

export class RunningTask {
  readonly #host: TasksHost;
  readonly #run: ActiveRun;
  readonly #state: TaskState;
  readonly #events: EventReader;
  readonly #output: TaskOutput;
  /** Aborted when the task is cancelled, or its run has ended. */
  readonly #stopped = new AbortController();
  #command: Execution | undefined;
  #storedOffset = 0;
  /**
   * The stored artifacts. The run's record has this very list, so that they count even if the container ends during the collection.
   * Otherwise they would stay in R2 for as long as the record, in no quota. The list of a later actor begins empty.
   */
  readonly #artifacts: Artifact[] = [];

  constructor(host: TasksHost, run: ActiveRun, state: TaskState) {
    this.#host = host;
    this.#run = run;
    this.#state = state;
    this.#events = AGENTS[state.spec.agent].reader(state.spec.directory, this.#conversation, state.report);
    this.#output = new TaskOutput(
      run,
      this.#events,
      state,
      () => this.#save(),
      (command) => {
        this.#state.command = command;
        this.#saveNow();
      },
      () => this.#storedOffset,
    );
    this.#storedOffset = state.offset;
    this.#save();
    // Not when the task begins: its run may have ended while it waited for an earlier task.
    void run.settled.then(() => this.#stopped.abort());
  }

  get id(): string {
    return this.#run.id;
  }

  /** The id of the continued conversation, or of a new one. */
  get #conversation(): string {
    return this.#state.spec.conversation ?? this.#run.id;
  }

  addLine(line: string): void {
    this.#output.addLine(line);
  }

  /** The end of a task that is cancelled before its agent starts. */
  cancelledEnd(): End {
    return { ...CANCELLED_BEFORE_AGENT, detail: this.#detail() };
  }

  async cancel(): Promise<void> {
    this.#stopped.abort();
    await this.#command?.cancel();
  }

  /** @param continuedRun the run of a conversation that continues in another sandbox */
  async begin(
    task: string,
    continuedRun: string | undefined,
    definitions: readonly Definition[] = [],
    trace?: TraceContext,
  ): Promise<End> {
    const { signal } = this.#stopped;
    try {
      signal.throwIfAborted();
      this.#run.markStarted();
      const problem = await this.#prepareAgent();
      if (problem !== undefined) return { state: "failed", note: problem, detail: this.#detail() };
      const key = await this.#prepareSandbox(continuedRun, definitions, trace);
      signal.throwIfAborted();
      this.#command = this.#startAgent(task, key);
    } catch (error) {
      if (signal.aborted) return this.cancelledEnd();
      throw error;
    }
    return this.#waitForEnd(this.#command);
  }

  /** Takes a step before the agent's start. @throws at once if the task is stopped, so that no other step begins */
  async #step<T>(step: () => Promise<T>): Promise<T> {
    const { signal } = this.#stopped;
    signal.throwIfAborted();
    return await unlessAborted(signal, step());
  }

  /** Waits until the agent is installed. @returns the reason if the agent cannot be installed */
  async #prepareAgent(): Promise<string | undefined> {
    const { name, title } = AGENTS[this.#state.spec.agent];
    const noticeTimer = setTimeout(() => this.addLine(texts.waitingForAgent(title)), INSTALL_NOTICE_MS);
    const prepare = () => this.#host.prepareAgent(name).then(() => undefined, messageOf);
    return await this.#step(prepare).finally(() => clearTimeout(noticeTimer));
  }

  /** Returns the placeholder for the model's credential. */
  async #prepareSandbox(
    continuedRun: string | undefined,
    definitions: readonly Definition[],
    trace: TraceContext | undefined,
  ): Promise<string> {
    const { budgets, maxTokens, archives, files } = this.#host;
    // Not interrupted: the budget is closed at the task's end, and must not be opened after that.
    const key = await budgets.open(this.id, maxTokens, trace);
    if (continuedRun !== undefined) {
      this.addLine(texts.RESTORING);
      await this.#step(() => archives.restoreConversation(continuedRun, this.id));
    }
    for (const { kind, name, text } of definitions) {
      const path = `${taskDirectory(this.id)}/components/${kind}/${name}.md`;
      await this.#step(() => files.call("write", { path, body: new TextEncoder().encode(text) }));
    }
    return key;
  }

  #startAgent(task: string, key: string): Execution {
    const { spec } = this.#state;
    const agent = AGENTS[spec.agent];
    return this.#host.commands.start(this.#output, {
      command: taskCommand(this.id, spec, agent.command(spec), spec.components?.wanted),
      env: agent.env(key, this.#conversation, spec),
      stdin: task,
      session: TASK_SESSION,
      timeoutMs: spec.timeoutMs,
      cut: spec.cut,
    });
  }

  /** @param command the state of a command that an earlier actor has started */
  async resumeTask(command: CommandState): Promise<End> {
    const { verdict } = this.#state;
    if (verdict) return this.#finish(verdict);
    this.#command = this.#host.commands.resume(this.#output, command);
    return this.#waitForEnd(this.#command);
  }

  async #waitForEnd(command: Execution): Promise<End> {
    const end = await command.done;
    this.#output.finish();
    if (this.#run.isEnded) return end;
    const verdict = this.#verdictOf(end);
    // Stored together with the end of the budget, on which the verdict depends.
    this.#state.verdict = verdict;
    this.#saveNow();
    this.#host.budgets.close(this.id);
    return this.#finish(verdict);
  }

  #verdictOf(command: End): TaskVerdict {
    const { spec } = this.#state;
    const { record } = this.#run;
    const agent = AGENTS[spec.agent];
    return verdictOf({
      ...spec,
      id: record.id,
      agent: agent.title,
      program: agent.command({})[0] ?? "",
      image: agent.image,
      install: agent.install,
      offered: spec.components?.offered ?? [],
      isKept: !spec.ownSandbox || this.#host.archiveMaxBytes > 0,
      command,
      report: this.#events.report,
      step: this.#output.step,
      spending: this.#host.budgets.spending(this.id),
      stderr: record.output.stderr.toShownOutput().tail || record.output.stderr.toShownOutput().head,
    });
  }

  async #finish(verdict: TaskVerdict): Promise<End> {
    const detail = { ...this.#detail(), success: verdict.state === "succeeded" };
    // If the agent never started, there is nothing to keep.
    detail.safe = this.#output.step !== "agent";
    if (detail.safe || verdict.state === "lost") return { ...verdict, detail };
    const note = await this.#limitToKeepTime(this.#collectResults(detail, verdict.note));
    detail.boot = this.#host.boot();
    return {
      state: verdict.state,
      note: note ?? appendNote(verdict.note, texts.notAllKept(texts.NOT_KEPT_IN_TIME)),
      detail,
    };
  }

  /** Fetches as many results as possible into `detail`. Returns the verdict's note, and adds which results could not be kept. */
  async #collectResults(detail: TaskDetail, verdictNote: string | undefined): Promise<string> {
    const { spec } = this.#state;
    const { record } = this.#run;
    let note = verdictNote;
    try {
      this.addLine("Collecting the changes");
      const isOver = () => this.#run.isEnded;
      const { directory } = spec;
      const { artifacts } = detail;
      const collected = await collect(this.#host, this.id, { id: record.id, directory, artifacts, isOver });
      if (isOver()) return "";
      Object.assign(detail, collected);
      if (collected.changes === undefined) note = appendNote(note, texts.CHANGES_UNKNOWN);
      const { archives, archiveMaxBytes: maxBytes, keepMs } = this.#host;
      const { conversations } = AGENTS[spec.agent];
      const options = { run: record.id, expiresAt: Date.now() + keepMs, maxBytes };
      if (maxBytes > 0) detail.archive = await archive(archives, options, conversations, detail.conversation);
      detail.safe = true;
      const left = detail.archive && leftOutText(detail.archive);
      if (left) note = appendNote(note, left);
    } catch (error) {
      const failure = error instanceof ToolError ? error : undefined;
      if (!failure) this.#host.report(error);
      note = appendNote(note, texts.notAllKept(failure?.message ?? texts.NOT_KEPT_INTERNAL));
    }
    return note ?? "";
  }

  #limitToKeepTime<T>(work: Promise<T>): Promise<T | undefined> {
    const never = new Promise<undefined>(() => {});
    const cancelled = unlessAborted(this.#stopped.signal, never).catch(() =>
      this.#run.isEnded ? undefined : waitAtMost(KEEP_CANCELLED_MS, never),
    );
    return Promise.race([waitAtMost(KEEP_MS, work), cancelled]);
  }

  #detail(): TaskDetail {
    const { spec, command } = this.#state;
    const { conversation = spec.conversation, model, answer, turns, tokens, costUSD } = this.#events.report;
    const reported = { conversation, model, answer, turns, tokens, costUSD };
    return {
      ...detailOf(spec),
      ...reported,
      artifacts: this.#artifacts,
      safe: command === undefined,
    };
  }

  /** Writes the state to disk at once, and not with the run's next save. */
  #saveNow(): void {
    this.#save();
    this.#run.save();
  }

  #save(): void {
    const { spec, command, verdict } = this.#state;
    const { offset, step } = this.#output;
    const report = { ...this.#events.report };
    const state: TaskState = { spec, command, verdict, offset, step, report };
    this.#run.keepState(state, () => (this.#storedOffset = offset));
    this.#run.describe(this.#detail());
  }
}

/** The detail of a task before its agent starts. Nothing needs to be kept. */
export function detailOf({ agent, components, directory, conversation, ownSandbox }: StoredSpec): TaskDetail {
  const task = { agent, components: components?.wanted, directory, conversation, ownSandbox };
  return { ...task, success: false, artifacts: [], safe: true };
}

function appendNote(note: string | undefined, more: string): string {
  return note ? `${note} ${more}` : more;
}
