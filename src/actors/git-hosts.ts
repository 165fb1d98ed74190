/** The git hosts that a principal has signed in to, and their tokens. Only the egress gets a token. */
import type { GitCredential } from "../shared/git-credential.ts";
import { Rows } from "../storage/rows.ts";
import { Waiters } from "../shared/waiters.ts";

/** The most hosts. A further sign-in drops the host with the oldest sign-in. */
const MAX_HOSTS = 20;

/** The most calls that wait for a sign-in. They continue when their clients disconnect. Further ones do not wait. */
const MAX_WAITING = 100;

export type GitHost = {
  host: string;
  /** Milliseconds since the epoch. */
  signedInAt: number;
};

export class GitHosts {
  readonly #rows: Rows;
  readonly #waiters = new Waiters();

  constructor(sql: SqlStorage) {
    this.#rows = new Rows(sql);
  }

  list(): GitHost[] {
    return this.#rows.all("SELECT host, signed_in_at AS signedInAt FROM git_hosts ORDER BY host");
  }

  get names(): string[] {
    return this.list().map(({ host }) => host);
  }

  credential(host: string): GitCredential | undefined {
    const [row] = this.#rows.all<{ user: string; token: string }>(
      "SELECT user_name AS user, token FROM git_hosts WHERE host = ?",
      host,
    );
    return row;
  }

  put(host: string, { user, token }: GitCredential): void {
    this.#rows.write("INSERT OR REPLACE INTO git_hosts VALUES (?, ?, ?, ?)", host, user, token, Date.now());
    this.#rows.write(
      "DELETE FROM git_hosts WHERE host NOT IN (SELECT host FROM git_hosts ORDER BY signed_in_at DESC, host LIMIT ?)",
      MAX_HOSTS,
    );
    this.#waiters.wakeAll();
  }

  remove(host: string): void {
    this.#rows.write("DELETE FROM git_hosts WHERE host = ?", host);
  }

  async waitForSignIn(host: string, since: number, ms: number): Promise<boolean> {
    const isSignedIn = () => this.list().some((signIn) => signIn.host === host && signIn.signedInAt >= since);
    await this.#waiters.until(() => isSignedIn() || this.#waiters.size >= MAX_WAITING, ms);
    return isSignedIn();
  }
}
