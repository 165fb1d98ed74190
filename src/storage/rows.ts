/** Typed queries of a Durable Object's tables. Times in columns are milliseconds since the epoch. */
export class Rows {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** Returns the number of rows written. */
  write(query: string, ...values: SqlStorageValue[]): number {
    return this.#sql.exec(query, ...values).rowsWritten;
  }

  all<Row extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): Row[] {
    return this.#sql.exec<Row>(query, ...values).toArray();
  }

  /** @throws Error if the query does not return exactly one row */
  one<Row extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): Row {
    return this.#sql.exec<Row>(query, ...values).one();
  }
}
