/**
 * The placeholders that running tasks hold in place of a credential, and what each may still spend. Only hashes are
 * kept; a placeholder is good while its task's agent runs, and never again.
 */

/** Requests to the model in one task. */
export const MAX_REQUESTS = 5000;

/** What a request to the model is told. */
export type Admission = { run: string } | { refused: string };

/** Something the model's API said other than yes. */
export interface UpstreamError {
  status: number;
  message: string;
}

export interface Spending {
  requests: number;
  tokens: number;
  exhausted: boolean;
  /** The last answer that was an error, unless one that was none came after it. */
  upstream?: UpstreamError;
}

type Row = {
  run: string;
  requests: number;
  tokens: number;
  max_tokens: number;
  refused: number;
  status: number | null;
  message: string | null;
};

export class TaskBudgets {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
    sql.exec(`CREATE TABLE IF NOT EXISTS task_budgets (
      run TEXT PRIMARY KEY, key_hash TEXT NOT NULL UNIQUE, requests INTEGER NOT NULL, tokens INTEGER NOT NULL,
      max_tokens INTEGER NOT NULL, refused INTEGER NOT NULL, status INTEGER, message TEXT) WITHOUT ROWID`);
  }

  /** Opens a budget and answers its placeholder. */
  async open(run: string, maxTokens: number): Promise<string> {
    const random = crypto.getRandomValues(new Uint8Array(32));
    // Agents look at the prefix; everything behind it is random.
    const key = `sk-ant-placeholder-${random.toBase64({ alphabet: "base64url", omitPadding: true })}`;
    this.#sql.exec(
      "INSERT OR REPLACE INTO task_budgets (run, key_hash, requests, tokens, max_tokens, refused) VALUES (?, ?, 0, 0, ?, 0)",
      run,
      await hashOf(key),
      maxTokens,
    );
    return key;
  }

  /** Counts a request, if the placeholder is one of a task that runs here and has something left. */
  async admit(key: string): Promise<Admission> {
    const hash = await hashOf(key);
    const [row] = this.#sql.exec<Row>("SELECT * FROM task_budgets WHERE key_hash = ?", hash).toArray();
    if (!row) return { refused: "No task that runs in this sandbox has this key." };
    const spent =
      row.tokens >= row.max_tokens
        ? `its ${row.max_tokens} tokens`
        : row.requests >= MAX_REQUESTS
          ? `its ${MAX_REQUESTS} requests to the model`
          : undefined;
    if (spent) {
      this.#sql.exec("UPDATE task_budgets SET refused = 1 WHERE run = ?", row.run);
      return { refused: `This task has used up ${spent}.` };
    }
    this.#sql.exec("UPDATE task_budgets SET requests = requests + 1 WHERE run = ?", row.run);
    return { run: row.run };
  }

  /** A request has been answered. */
  answered(run: string, tokens: number, error: UpstreamError | undefined): void {
    this.#sql.exec(
      "UPDATE task_budgets SET tokens = tokens + ?, status = ?, message = ? WHERE run = ?",
      tokens,
      error?.status ?? null,
      error?.message ?? null,
      run,
    );
  }

  /** What a task has spent; nothing when it has no budget. */
  spending(run: string): Spending {
    const [row] = this.#sql.exec<Row>("SELECT * FROM task_budgets WHERE run = ?", run).toArray();
    if (!row) return { requests: 0, tokens: 0, exhausted: false };
    const { requests, tokens, refused, status, message } = row;
    const upstream = status === null ? undefined : { status, message: message ?? "" };
    return { requests, tokens, exhausted: refused === 1, upstream };
  }

  /** From here on the placeholder is worth nothing. */
  close(run: string): void {
    this.#sql.exec("DELETE FROM task_budgets WHERE run = ?", run);
  }
}

async function hashOf(key: string): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(key))).toHex();
}
