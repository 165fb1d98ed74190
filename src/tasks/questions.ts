/**
 * Answers questions: a model writes a program in one request, and the program runs in a kernel like any code. A question is a
 * task without an agent. Its model request has a placeholder and a budget, as an agent has.
 */
import type { ContainerLifecycle } from "../container/sandboxd.ts";
import type { ActiveRun } from "../runs/active-run.ts";
import type { CodeExecutor } from "../runs/code-executor.ts";
import type { Executor } from "../runs/executor.ts";
import type { Allowance, End, Execution } from "../runs/run-types.ts";
import type { QuestionDetail } from "../runs/task-detail.ts";
import { MODEL_HOST } from "../shared/secrets.ts";
import type { TraceContext } from "../shared/trace.ts";
import { pause, unlessAborted } from "../shared/timers.ts";
import { Waiters } from "../shared/waiters.ts";
import type { TaskBudgets } from "./budget.ts";
import { upstreamAdvice } from "./end.ts";
import type { Program, ProgramOrder, ProgramProblem } from "./program.ts";
import { ProgramReader, programRequest } from "./program.ts";
import { QUESTION_CANCELLED, dayIsSpent, modelFailed, programLate } from "./texts.ts";

export interface QuestionSpec extends Allowance, ProgramOrder {
  ownSandbox: boolean;
  trace?: TraceContext | undefined;
}

interface QuestionsHost {
  code: CodeExecutor;
  budgets: TaskBudgets;
  maxTokens: number;
  /** Sends a request to the model's API as if it came from the sandbox. */
  callModel(request: Request): Promise<Response>;
  lifecycle: Pick<ContainerLifecycle, "waitUntilReadyForRun">;
}

/** The kernel context of questions. `run_code` with this context can use their variables, and no other code is affected. */
const CONTEXT = "question";

/** A request that may succeed later is repeated up to MAX_REPEATS times, after a pause of at most MAX_PAUSE_MS milliseconds. */
const MAX_REPEATS = 3;
const MAX_PAUSE_MS = 20_000;

const CANCELLED_END: End = { state: "cancelled", note: QUESTION_CANCELLED };

export class Questions implements Executor<QuestionSpec> {
  readonly kind = "task";
  readonly #host: QuestionsHost;
  readonly #open = new Map<string, Question>();

  constructor(host: QuestionsHost) {
    this.#host = host;
  }

  start(run: ActiveRun, spec: QuestionSpec): Execution {
    const { id } = run;
    const question = new Question(this.#host, run, spec);
    this.#open.set(id, question);
    const done = question.answer().finally(() => this.#open.delete(id));
    return { done, cancel: () => question.cancel(), waiting: () => question.waiting };
  }

  /** @param state the state of the running code. A run without a state counts as never started, and is not resumed */
  resume(run: ActiveRun, state: unknown): Execution {
    return this.#host.code.resume(run, state);
  }

  /** Waits up to `ms` milliseconds for more than `seen` characters of code. @returns whether the model was writing */
  async waitForCode(id: string, seen: number, ms: number): Promise<boolean> {
    const question = this.#open.get(id);
    if (!question?.isWriting) return false;
    await question.waitForCode(seen, ms);
    return true;
  }
}

class Question {
  isWriting = true;
  readonly #host: QuestionsHost;
  readonly #run: ActiveRun;
  readonly #spec: QuestionSpec;
  readonly #stopped = new AbortController();
  readonly #detail: QuestionDetail;
  readonly #waiters = new Waiters();
  #execution: Execution | undefined;

  constructor(host: QuestionsHost, run: ActiveRun, spec: QuestionSpec) {
    this.#host = host;
    this.#run = run;
    this.#spec = spec;
    const { model, ownSandbox } = spec;
    this.#detail = { results: [], code: "", model, ownSandbox, safe: true };
  }

  get waiting() {
    return this.#execution?.waiting?.();
  }

  async cancel(): Promise<void> {
    this.#stopped.abort();
    await this.#execution?.cancel();
  }

  async waitForCode(seen: number, ms: number): Promise<void> {
    await this.#waiters.until(() => !this.isWriting || this.#detail.code.length > seen, ms);
  }

  async answer(): Promise<End> {
    const run = this.#run;
    const { timeoutMs, cut } = this.#spec;
    const deadline = Date.now() + timeoutMs;
    run.markStarted();
    this.#describe();
    // If something else ends the run, the request ends too.
    void run.settled.then(() => this.#stopped.abort());
    const program = await this.#obtainProgram(deadline).finally(() => {
      this.isWriting = false;
      this.#host.budgets.close(run.id);
      this.#waiters.wakeAll();
    });
    if ("state" in program) return { ...program, detail: this.#detail };
    if (this.#stopped.signal.aborted) return { ...CANCELLED_END, detail: this.#detail };
    // The note of a timeout names whole seconds.
    const left = Math.max(1, Math.ceil((deadline - Date.now()) / 1000)) * 1000;
    const spec = { ...program, context: CONTEXT, timeoutMs: left, ...(cut === undefined ? {} : { cut }) };
    this.#execution = this.#host.code.start(run, spec);
    const end = await this.#execution.done;
    return { ...end, detail: { ...this.#detail, ...this.#keptDetail(end) } };
  }

  /** The result of the code. Leaves out the files of images if the sandbox ends with the question. */
  #keptDetail({ detail }: End): Partial<QuestionDetail> {
    if (!detail || !("results" in detail)) return {};
    if (!this.#spec.ownSandbox) return detail;
    const results = detail.results.map((result) => {
      if ("text" in result) return result;
      const { original: _, ...image } = result;
      return image;
    });
    return { ...detail, results };
  }

  /** Returns the run's end if there is no program. */
  async #obtainProgram(deadline: number): Promise<Program | End> {
    const { budgets, maxTokens } = this.#host;
    const { timeoutMs, cut, trace } = this.#spec;
    const { signal } = this.#stopped;
    // Not interrupted: the caller closes the budget, and it must not be opened after that.
    const key = await budgets.open(this.#run.id, maxTokens, trace);
    const timeout = AbortSignal.timeout(Math.max(0, deadline - Date.now()));
    const until = AbortSignal.any([signal, timeout]);
    try {
      return await unlessAborted(until, this.#requestProgram(key, until));
    } catch (error) {
      if (signal.aborted) return CANCELLED_END;
      if (!timeout.aborted) throw error;
      const lateNote = programLate(timeoutMs);
      return { state: "timed_out", note: [lateNote, cut].filter(Boolean).join(" ") };
    }
  }

  async #requestProgram(key: string, signal: AbortSignal): Promise<Program | End> {
    const body = JSON.stringify(programRequest(this.#spec, this.#host.maxTokens));
    for (let repeats = 0; ; repeats++) {
      const { problem, isTransient, pauseMs, program } = await this.#attempt(key, body, signal);
      if (program) return program;
      if (!isTransient || repeats >= MAX_REPEATS) return { state: "failed", note: problem ?? "" };
      await unlessAborted(signal, pause(Math.min(pauseMs ?? 1000 * 2 ** repeats, MAX_PAUSE_MS)));
    }
  }

  async #attempt(
    key: string,
    body: string,
    signal: AbortSignal,
  ): Promise<Partial<ProgramProblem> & { program?: Program; pauseMs?: number }> {
    const bytes = new TextEncoder().encode(body);
    const headers = {
      "x-api-key": key,
      "anthropic-version": "2023-06-01",
      "content-type": "application/json",
      "content-length": `${bytes.length}`,
    };
    const init = { method: "POST", headers, body: bytes, signal };
    const response = await this.#host.callModel(new Request(`http://${MODEL_HOST}/v1/messages`, init));
    if (!response.ok) return this.#describeRefusal(response);
    const reader = new ProgramReader(this.#spec.languages);
    try {
      for await (const piece of response.body ?? []) {
        const needsMore = reader.add(piece);
        this.#progress(reader);
        if (!needsMore) break;
      }
    } catch {
      signal.throwIfAborted();
      // The response was cut off. The reader reports that below.
    }
    const { program } = reader;
    if ("problem" in program) return program;
    this.#detail.language = program.language;
    this.#detail.code = program.code;
    this.#describe();
    return { program };
  }

  #progress({ code, usage }: ProgramReader): void {
    this.#detail.tokens = { ...usage };
    if (code.length <= this.#detail.code.length) return;
    // The container starts when the model writes the first code: without code, no container is needed. An error of the start is
    // reported when the program starts.
    if (this.#detail.code === "")
      this.#host.lifecycle.waitUntilReadyForRun(() => this.#run.isEnded).catch(() => undefined);
    this.#detail.code = code;
    this.#describe();
    this.#waiters.wakeAll();
  }

  async #describeRefusal({ status, headers, body }: Response) {
    await body?.cancel();
    const spending = this.#host.budgets.spending(this.#run.id);
    if (spending.isDaySpent) return { problem: dayIsSpent() };
    const error = spending.upstream ?? { status, message: "no reason given" };
    const wait = headers.get("retry-after");
    return {
      problem: modelFailed(upstreamAdvice(error)),
      isTransient: (status === 429 || status >= 500) && headers.get("x-should-retry") !== "false",
      ...(wait === null || !/^\d{1,6}$/.test(wait) ? {} : { pauseMs: Number(wait) * 1000 }),
    };
  }

  #describe(): void {
    this.#run.describe({ ...this.#detail });
  }
}
