import { vi } from "vitest";

/** Does some work. Returns its value, how many rows its SQL statements read, and the steps of their query plans. */
export async function queriesOf<T>(sql: SqlStorage, work: () => T) {
  const exec = vi.spyOn(sql, "exec");
  const value = await work();
  const { calls, results } = exec.mock;
  exec.mockRestore();
  const planOf = ([query, ...values]: Parameters<SqlStorage["exec"]>) =>
    sql.exec<{ detail: string }>(`EXPLAIN QUERY PLAN ${query}`, ...values).toArray();
  return {
    value,
    rowsRead: results.reduce((sum, result) => sum + result.value.rowsRead, 0),
    plans: calls.flatMap(planOf).map(({ detail }) => detail),
  };
}
