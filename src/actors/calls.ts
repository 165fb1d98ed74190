/**
 * Handles the calls to a sandbox. A result contains notices, and an error as data. A `CallPlan` says what a call needs besides
 * its own work. The plan of a file operation follows from its row in `container/sandboxd/operations.ts`.
 */
import {
  type FileRow,
  type OperationName,
  type Policy,
  failedPath,
  operations,
} from "../../container/sandboxd/operations.ts";
import { absolute } from "../../container/sandboxd/shapes.ts";
import type { FileOperations } from "../container/file-operations.ts";
import type { CodeRunSpec } from "../runs/code-executor.ts";
import type { CommandSpec } from "../runs/command-executor.ts";
import type { Executor } from "../runs/executor.ts";
import type { Allowance, RunView } from "../runs/run-types.ts";
import type { OnProgress, Runs } from "../runs/runs.ts";
import { type Outcome, ToolError, correctExhaustedHint } from "../shared/errors.ts";
import type { Scope } from "../shared/principal.ts";
import { sizeOf, whileHolding } from "../shared/limits.ts";
import { waitAtMost } from "../shared/timers.ts";
import type { QuestionSpec } from "../tasks/questions.ts";
import type { TaskSpec } from "../tasks/task-executor.ts";
import type { Owner } from "./account-calls.ts";
import type { AccountLink } from "./account-link.ts";
import type { Activity } from "./activity.ts";
import type { DiskUsage } from "./disk-usage.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { RestartNotice } from "./restart-notice.ts";
import type { SetUp } from "./set-up.ts";
import { actorUnreachable, changeRefused, needsScope, stopped } from "./texts.ts";

/** The result of an actor's method, with notices since the last result, for example that files were lost. */
export type ActorResult<T> = Outcome<T> & {
  notices?: string[];
  /** The one of the notices that further results have too, until it is confirmed. */
  toConfirm?: string | undefined;
};

export interface CallPlan {
  /** While a task runs in the sandbox, refuses the call unless its caller may run tasks. */
  isRefusedDuringTask?: boolean;
  /** Registers the sandbox and waits for its set-up, so that the work may start a container. Implies `isLimited`. */
  usesContainer?: boolean;
  /** Fails if the work takes longer than the client waits. */
  isLimited?: boolean;
  /** How long a call that does not use the container waits for a set-up under way, in milliseconds. */
  setUpMs?: number;
  /** Repeats the work in the next container if the current one is gone. */
  isRepeated?: boolean;
  /** The characters and bytes that the call brings. The actor keeps them until the call ends. */
  inputSize?: number;
  /** Exempts the work from the time limit once it has begun, because it reads a stream. */
  readsStream?: boolean;
}

interface RunSpecs {
  code: CodeRunSpec;
  command: CommandSpec;
  task: TaskSpec;
  question: QuestionSpec;
}

export type RunPlans = { [Kind in keyof RunSpecs]: RunPlan<RunSpecs[Kind]> };

export interface RunPlan<Spec extends Allowance> {
  executor: Executor<Spec>;
  sourceOf(spec: Spec): string;
  /** @throws {ToolError} if the caller may not start such a run now */
  check(owner: Owner): void | Promise<void>;
  onStart?(owner: Owner, run: RunView): Promise<void>;
}

/** How the caller of a run waits. With `namesID` the result has the run's id even if it is complete. */
export type RunWait = [waitMs?: number, namesID?: boolean, onProgress?: OnProgress];

interface CallParts {
  account: Pick<AccountLink, "setOwner">;
  activity: Activity;
  lifecycle: Lifecycle;
  setUp: Pick<SetUp, "begin" | "gate" | "state" | "waitUntilDone">;
  runs: Pick<Runs, "start" | "hasUnendedRun">;
  plans: RunPlans;
  files: FileOperations;
  /** File operations that do not count as use of the sandbox. */
  glancing: FileOperations;
  diskUsage: Pick<DiskUsage, "noteUse">;
  restartNotice: Pick<RestartNotice, "current">;
  /** The other parts that have notices, in the order in which a result shows them. */
  noticeSources: readonly { takeNotice(mayRead: boolean): string | undefined }[];
  /** How long a client waits if its call has no `callerWaitMs`, in milliseconds. */
  maxWaitMs: number;
  background(work: Promise<unknown>): void;
}

export class Calls {
  readonly #parts: CallParts;

  constructor(parts: CallParts) {
    this.#parts = parts;
  }

  /** Does the work of a call. Expected errors become data. Unexpected errors are thrown, so that they are logged. */
  async perform<T>(owner: Owner, work: () => T | Promise<T>, plan: CallPlan = {}): Promise<ActorResult<T>> {
    const { account, activity, lifecycle, plans, restartNotice, noticeSources } = this.#parts;
    await account.setOwner(owner);
    const isLimited = plan.isLimited || plan.usesContainer;
    const called = activity.call(() =>
      this.#outcome(() =>
        whileHolding(holderOf(owner), plan.inputSize ?? 0, async () => {
          if (plan.isRefusedDuringTask) await plans.code.check(owner);
          return isLimited ? await this.#doWithinLimit(owner, work, plan) : await work();
        }),
      ),
    );
    const outcome = await called.finally(() => lifecycle.release());
    if (owner.takesNotice === false) return outcome;
    const toConfirm = restartNotice.current;
    const notices = [toConfirm, ...noticeSources.map((source) => source.takeNotice(mayRead(owner)))];
    return { ...outcome, notices: notices.filter((notice) => notice !== undefined), toConfirm };
  }

  /** Starts a run and waits for it. If the run takes too long, the caller gets its id before the time limit. */
  run<Kind extends keyof RunSpecs>(
    owner: Owner,
    kind: Kind,
    spec: RunSpecs[Kind],
    ...[waitMs = 0, namesID = true, onProgress]: RunWait
  ): Promise<ActorResult<RunView>> {
    const { lifecycle, setUp, runs, plans } = this.#parts;
    const { executor, sourceOf, check, onStart } = plans[kind];
    const now = Date.now();
    const prepare = async () => {
      await lifecycle.admit(owner);
      await check(owner);
      await setUp.begin();
    };
    const waiting = { waitUntil: now + waitMs, replyBy: now + this.#waitMs(owner), namesID, onProgress };
    const start = async () => {
      const run = await runs.start(executor, sourceOf(spec), spec, { ...waiting, prepare, gate: setUp.gate });
      await onStart?.(owner, run);
      return run;
    };
    return this.perform(owner, start, { inputSize: sizeOf(spec) });
  }

  operate(owner: Owner, name: OperationName, input: object): Promise<ActorResult<object>> {
    const row: FileRow & Policy = operations[name];
    const { scope, start, retry, up } = row;
    if (scope !== undefined && !hasScope(owner, scope))
      return this.#outcome(() => Promise.reject(needsScope(scope)));
    const work = () => this.#doOperation(owner, name, input, row);
    if (start === "glance") return this.#outcome(() => whileHolding(holderOf(owner), 0, work));
    const mayStart = start === "known" ? (owner.mayStart ?? true) && "ifKnown" : owner.mayStart;
    return this.perform({ ...owner, mayStart }, work, {
      usesContainer: start !== "none",
      isRepeated: retry !== "never",
      readsStream: up === "stream",
      inputSize: sizeOf(input),
    });
  }

  async #doOperation(
    owner: Owner,
    name: OperationName,
    input: object,
    row: FileRow & Policy,
  ): Promise<object> {
    const { files, glancing, activity, lifecycle } = this.#parts;
    const isGlance = row.start === "glance";
    if ((row.start === "none" && !lifecycle.isRunning) || (isGlance && !lifecycle.container))
      throw stopped(owner.sandbox);
    const isConfined = row.confined && !hasScope(owner, "sandbox:exec");
    const call = (isGlance ? glancing : files).call(name, input as never, { isConfined });
    const done: Promise<object> = row.up === "stream" ? activity.transfer<object>(call) : call;
    if (row.withoutReading && !mayRead(owner))
      return await withoutContent(row.withoutReading, failedPath(row, input), done);
    const result: { body?: ReadableStream<Uint8Array> } = await done;
    return result.body ? { ...result, body: activity.trackTransfer(result.body) } : result;
  }

  #waitMs({ callerWaitMs }: Owner): number {
    return callerWaitMs ?? this.#parts.maxWaitMs;
  }

  /**
   * Throws if a call takes longer than its client waits. Work that has begun continues. Work that has not begun is not done.
   * @throws {ToolError} `no_answer`
   */
  async #doWithinLimit<T>(owner: Owner, work: () => T | Promise<T>, plan: CallPlan): Promise<T> {
    const { activity, lifecycle, background } = this.#parts;
    const ms = this.#waitMs(owner);
    let hasBegun = false;
    // Undefined when it is too late to begin, so that nothing keeps the call's input.
    let mayBegin: typeof work | undefined = work;
    const begin = async () => {
      if (!mayBegin) throw actorUnreachable(owner.sandbox, ms, false);
      hasBegun = true;
      return await mayBegin();
    };
    const working = activity.call(async () => ({ value: await this.#prepareAndDo(owner, begin, plan) }));
    const done =
      (await waitAtMost(ms, working)) ?? (plan.readsStream && hasBegun ? await working : undefined);
    if (done) return done.value;
    mayBegin = undefined;
    background(working.catch(() => undefined).finally(() => lifecycle.release()));
    throw actorUnreachable(owner.sandbox, ms, hasBegun);
  }

  /**
   * Makes the preparations that the plan needs, then does the work. @throws {ToolError} `quota_exceeded` if there are too many
   * sandboxes
   */
  async #prepareAndDo<T>(owner: Owner, work: () => Promise<T>, plan: CallPlan): Promise<T> {
    const { lifecycle, setUp, diskUsage } = this.#parts;
    if (!plan.usesContainer) {
      const { setUpMs: ms } = plan;
      if (ms !== undefined && setUp.state === "running") await setUp.waitUntilDone({ ms });
      return await work();
    }
    await lifecycle.admit(owner);
    const attempt = async () => {
      await setUp.waitUntilDone({ mayBegin: owner.mayStart !== false });
      return await work();
    };
    const working = plan.isRepeated ? lifecycle.retryInNextContainer(owner, attempt) : attempt();
    return await working.finally(() => diskUsage.noteUse());
  }

  async #outcome<T>(work: () => Promise<T>): Promise<Outcome<T>> {
    const { lifecycle, runs } = this.#parts;
    try {
      return { ok: true, value: await work() };
    } catch (cause) {
      const error = await lifecycle.explainError(cause);
      if (!(error instanceof ToolError)) throw error;
      const failure = error.toFailure();
      return { ok: false, failure: runs.hasUnendedRun ? failure : correctExhaustedHint(failure) };
    }
  }
}

/** Others who have a link could use up the principal's own limit. */
function holderOf({ principalID, isByLink }: Owner): string {
  return isByLink ? `links of ${principalID}` : principalID;
}

function hasScope({ scopes = [] }: Owner, scope: Scope): boolean {
  return scopes.includes(scope);
}

/** A caller who may run code can read files by code. */
function mayRead(owner: Owner): boolean {
  return hasScope(owner, "sandbox:read") || hasScope(owner, "sandbox:exec");
}

/** The result for a caller that may not read files. */
async function withoutContent(
  { fields, reason }: Exclude<Policy["withoutReading"], false>,
  path = "",
  done: Promise<object>,
): Promise<object> {
  const result = await done.catch((error: unknown) => {
    if (!(error instanceof ToolError) || error.code !== "invalid_argument") throw error;
    throw changeRefused(absolute(path), reason);
  });
  return Object.fromEntries(Object.entries(result).filter(([field]) => fields.includes(field)));
}
