/**
 * The model budgets of running tasks. Each task gets a placeholder instead of the model's credential. The database has only the
 * placeholder's hash. A placeholder is valid only while its task's agent runs.
 */
import {
  type BudgetCheck,
  type ModelOutcome,
  type ModelCall,
  REPORT_MS,
  type UpstreamError,
} from "../container/model-calls.ts";
import { type UsedByDay, dayOf } from "../shared/days.ts";
import { base64url } from "../shared/link-token.ts";
import { sha256 } from "../shared/sha256.ts";
import type { TraceContext } from "../shared/trace.ts";
import { MODEL_CALL_TEXTS } from "./texts.ts";

export const MAX_REQUESTS = 5000;

/**
 * The most concurrent requests of one task. A request's tokens are known only at its end, so a task can exceed its budget by
 * this many requests. Claude Code runs up to ten subagents, and also makes small requests.
 */
export const MAX_IN_FLIGHT = 12;

/** How long a request counts as pending after its Worker's last report, in milliseconds: an evicted Worker does not report its end. */
export const IN_FLIGHT_MS = 6 * REPORT_MS;

export interface Spending {
  requests: number;
  tokens: number;
  isExhausted: boolean;
  isDaySpent?: boolean;
  upstream?: UpstreamError;
}

/** Stored reasons for refusing a task's requests. */
const TASK_REFUSED = 1;
const DAY_REFUSED = 2;

type Row = {
  run: string;
  requests: number;
  tokens: number;
  max_tokens: number;
  refused: number;
  status: number | null;
  message: string | null;
  traceparent: string | null;
  tracestate: string | null;
};

export class TaskBudgets {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  async open(run: string, maxTokens: number, trace?: TraceContext): Promise<string> {
    const random = crypto.getRandomValues(new Uint8Array(32));
    // Agents check the prefix of their key, so the placeholder needs this prefix. The rest is random.
    const key = `sk-ant-placeholder-${base64url(random)}`;
    this.#sql.exec(
      "INSERT OR REPLACE INTO task_budgets (run, key_hash, requests, tokens, max_tokens, refused, traceparent, tracestate) VALUES (?, ?, 0, 0, ?, 0, ?, ?)",
      run,
      await hashOf(key),
      maxTokens,
      trace?.traceparent ?? null,
      trace?.tracestate ?? null,
    );
    return key;
  }

  async admit(key: string): Promise<BudgetCheck> {
    const hash = await hashOf(key);
    const [row] = this.#sql.exec<Row>("SELECT * FROM task_budgets WHERE key_hash = ?", hash).toArray();
    if (!row) return { refused: MODEL_CALL_TEXTS.unknownKey };
    const spent =
      row.tokens >= row.max_tokens
        ? `${row.max_tokens} tokens`
        : row.requests >= MAX_REQUESTS
          ? `${MAX_REQUESTS} requests to the model`
          : undefined;
    if (spent) {
      this.#sql.exec("UPDATE task_budgets SET refused = ? WHERE run = ?", TASK_REFUSED, row.run);
      return { refused: MODEL_CALL_TEXTS.usedUp(spent) };
    }
    if (this.#countInFlight(row.run) >= MAX_IN_FLIGHT)
      return { refused: MODEL_CALL_TEXTS.busy(MAX_IN_FLIGHT), busy: true };
    const call = { run: row.run, number: row.requests + 1 };
    this.#sql.exec("UPDATE task_budgets SET requests = ? WHERE run = ?", call.number, call.run);
    this.#sql.exec("INSERT INTO model_calls VALUES (?, ?, ?)", call.run, call.number, Date.now());
    const { traceparent, tracestate } = row;
    const trace =
      traceparent === null ? undefined : { traceparent, ...(tracestate !== null && { tracestate }) };
    return { call, trace };
  }

  renewRequest({ run, number }: ModelCall): void {
    this.#sql.exec(
      "UPDATE model_calls SET began_at = ? WHERE run = ? AND number = ?",
      Date.now(),
      run,
      number,
    );
  }

  /** While the task is open, a repeated report changes nothing. */
  finishRequest({ run, number }: ModelCall, { tokens, error, cut }: ModelOutcome): void {
    const [ended] = this.#sql
      .exec("DELETE FROM model_calls WHERE run = ? AND number = ? RETURNING number", run, number)
      .toArray();
    // The tokens count for the day even if the task has ended.
    if (ended || !this.#isOpen(run)) this.putBack(new Map([[dayOf(Date.now()), tokens]]));
    if (!ended) return;
    this.#sql.exec("UPDATE task_budgets SET tokens = tokens + ? WHERE run = ?", tokens, run);
    if (cut) return;
    this.#sql.exec(
      "UPDATE task_budgets SET status = ?, message = ? WHERE run = ?",
      error?.status ?? null,
      error?.message ?? null,
      run,
    );
  }

  refuseForToday({ run, number }: ModelCall): void {
    this.#sql.exec("DELETE FROM model_calls WHERE run = ? AND number = ?", run, number);
    this.#sql.exec("UPDATE task_budgets SET refused = ? WHERE run = ?", DAY_REFUSED, run);
  }

  /** Removes and returns the tokens that were not reported yet, by day. The caller reports them, or calls `putBack`. */
  takeUnreported(): Map<number, number> {
    const rows = this.#sql.exec<{ day: number; tokens: number }>("DELETE FROM unreported_tokens RETURNING *");
    return new Map(rows.toArray().map(({ day, tokens }) => [day, tokens]));
  }

  putBack(unreported: UsedByDay): void {
    for (const [day, tokens] of unreported)
      this.#sql.exec(
        "INSERT INTO unreported_tokens VALUES (?1, ?2) ON CONFLICT (day) DO UPDATE SET tokens = tokens + ?2",
        day,
        tokens,
      );
  }

  spending(run: string): Spending {
    const [row] = this.#sql.exec<Row>("SELECT * FROM task_budgets WHERE run = ?", run).toArray();
    if (!row) return { requests: 0, tokens: 0, isExhausted: false };
    const { requests, tokens, refused, status, message } = row;
    const upstream = status === null ? undefined : { status, message: message ?? "" };
    const isDaySpent = refused === DAY_REFUSED || undefined;
    return { requests, tokens, isExhausted: refused === TASK_REFUSED, isDaySpent, upstream };
  }

  close(run: string): void {
    this.#sql.exec("DELETE FROM task_budgets WHERE run = ?", run);
    this.#sql.exec("DELETE FROM model_calls WHERE run = ?", run);
  }

  #isOpen(run: string): boolean {
    return this.#sql.exec("SELECT 1 FROM task_budgets WHERE run = ?", run).toArray().length > 0;
  }

  #countInFlight(run: string): number {
    return this.#sql
      .exec<{ calls: number }>(
        "SELECT COUNT(*) AS calls FROM model_calls WHERE run = ? AND began_at > ?",
        run,
        Date.now() - IN_FLIGHT_MS,
      )
      .one().calls;
  }
}

async function hashOf(key: string): Promise<string> {
  return (await sha256(key)).toHex();
}
