/** A sandbox's kernels by language and context: in SQLite, and cached in memory. */
import * as z from "zod";
import { LANGUAGES, type Language } from "../../shared/languages.ts";

export const kernelSchema = z.object({
  /** `<language>/<context>`. */
  key: z.string(),
  contextID: z.string(),
  language: z.enum(LANGUAGES),
  pid: z.number(),
  started: z.number(),
});

export type Kernel = z.infer<typeof kernelSchema>;

export class KernelRegistry {
  readonly #sql: SqlStorage;
  readonly #cache = new Map<string, Kernel>();

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  get(key: string): Kernel | undefined {
    const cached = this.#cache.get(key);
    if (cached) return cached;
    const row = this.#sql
      .exec<{ context_id: string; language: Language; pid: number; started: number }>(
        "SELECT context_id, language, pid, started FROM kernels WHERE key = ?",
        key,
      )
      .toArray()[0];
    if (!row) return undefined;
    const { context_id: contextID, language, pid, started } = row;
    const kernel = { key, contextID, language, pid, started };
    this.#cache.set(key, kernel);
    return kernel;
  }

  put(kernel: Kernel): void {
    const { key, contextID, language, pid, started } = kernel;
    this.#cache.set(key, kernel);
    this.#sql.exec(
      "INSERT OR REPLACE INTO kernels (key, context_id, language, pid, started) VALUES (?, ?, ?, ?, ?)",
      key,
      contextID,
      language,
      pid,
      started,
    );
  }

  /** Removes this kernel, but not its replacement. */
  delete(kernel: Kernel): void {
    if (this.#cache.get(kernel.key)?.contextID === kernel.contextID) this.#cache.delete(kernel.key);
    this.#sql.exec("DELETE FROM kernels WHERE key = ? AND context_id = ?", kernel.key, kernel.contextID);
  }

  clear(): void {
    this.#sql.exec("DELETE FROM kernels");
    this.#cache.clear();
  }
}
