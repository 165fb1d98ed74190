/** A sandbox's kernels by language and context: in SQLite, and cached in memory. */
import * as z from "zod";
import { LANGUAGES } from "../../shared/languages.ts";
import { Rows } from "../../storage/rows.ts";

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
  readonly #rows: Rows;
  readonly #cache = new Map<string, Kernel>();

  constructor(sql: SqlStorage) {
    this.#rows = new Rows(sql);
  }

  get(key: string): Kernel | undefined {
    const cached = this.#cache.get(key);
    if (cached) return cached;
    const columns = "key, context_id AS contextID, language, pid, started";
    const [kernel] = this.#rows.all<Kernel>(`SELECT ${columns} FROM kernels WHERE key = ?`, key);
    if (kernel) this.#cache.set(key, kernel);
    return kernel;
  }

  put(kernel: Kernel): void {
    const { key, contextID, language, pid, started } = kernel;
    this.#cache.set(key, kernel);
    const query =
      "INSERT OR REPLACE INTO kernels (key, context_id, language, pid, started) VALUES (?, ?, ?, ?, ?)";
    this.#rows.write(query, key, contextID, language, pid, started);
  }

  /** Removes this kernel, but not its replacement. */
  delete(kernel: Kernel): void {
    if (this.#cache.get(kernel.key)?.contextID === kernel.contextID) this.#cache.delete(kernel.key);
    this.#rows.write("DELETE FROM kernels WHERE key = ? AND context_id = ?", kernel.key, kernel.contextID);
  }

  clear(): void {
    this.#rows.write("DELETE FROM kernels");
    this.#cache.clear();
  }
}
