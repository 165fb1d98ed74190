/** The tables of a Durable Object, as typed rows. Times in columns are milliseconds since the epoch. */
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

  /** The only row of a query that always has one. */
  one<Row extends Record<string, SqlStorageValue>>(query: string, ...values: SqlStorageValue[]): Row {
    return this.#sql.exec<Row>(query, ...values).one();
  }
}
