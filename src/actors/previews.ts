/**
 * The previews of a sandbox: which ports are reachable from outside, with which token, and until when. A preview
 * outlives its container, because a service or the user starts the program again in the next container. A request to a
 * preview starts no container, because anybody can send one.
 */
import { PREVIEW_ERROR, PREVIEW_PORT } from "../../container/sandboxd/protocol.ts";
import type { Preview } from "./account-calls.ts";
import type { AccountLink } from "./account-link.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { EndReason } from "./lifecycle-state.ts";
import type { Sandboxd } from "../container/sandboxd.ts";
import { areEqual, PREVIEW_STATE, PREVIEW_TOKEN, type PreviewState } from "../shared/preview-address.ts";
import type { RestartNotice } from "./restart-notice.ts";
import { tooManyPreviews } from "./texts.ts";

interface PreviewsHost {
  sql: SqlStorage;
  sandboxd: Pick<Sandboxd, "isRunning" | "fetch" | "report" | "noteUse">;
  restartNotice: Pick<RestartNotice, "boot">;
  lifecycle: Pick<Lifecycle, "isAlive">;
  account: Pick<AccountLink, "noteUse">;
  background(work: Promise<unknown>): void;
}

const MAX_PREVIEWS = 20;

/** Ends the requests to a port when its preview expires or is closed. */
interface Cut {
  controller: AbortController;
  timer: ReturnType<typeof setTimeout>;
}

type Row = { port: number; token: string; boot: number; expires_at: number; answered: number };

export class Previews {
  readonly #host: PreviewsHost;
  readonly #cuts = new Map<number, Cut>();

  constructor(host: PreviewsHost) {
    this.#host = host;
  }

  /**
   * Opens a port until `expiresAt`. An open port keeps its token, unless its token is `invalid`.
   * @param token for a port that is not open
   * @returns also `before`: the port's previous expiry; 0 if it was not open
   * @throws {ToolError} `quota_exceeded`
   */
  open(port: number, token: string, expiresAt: number, invalid?: string): Preview & { before: number } {
    const open = this.list().filter((preview) => preview.token !== invalid);
    const earlier = open.find((preview) => preview.port === port);
    if (!earlier && open.length >= MAX_PREVIEWS) throw tooManyPreviews(open.length);
    const preview = { port, token: earlier?.token ?? token, expiresAt };
    this.#host.sql.exec("DELETE FROM previews WHERE expires_at <= ?", Date.now());
    this.#host.sql.exec(
      `INSERT INTO previews (port, token, boot, expires_at) VALUES (?1, ?2, ?3, ?4)
       ON CONFLICT (port) DO UPDATE SET token = ?2, boot = ?3, expires_at = ?4, answered = answered AND token = ?2 AND boot = ?3`,
      port,
      preview.token,
      this.#host.restartNotice.boot,
      expiresAt,
    );
    const cut = this.#cuts.get(port);
    if (cut && !earlier) this.#cut(port);
    else if (cut) {
      clearTimeout(cut.timer);
      cut.timer = this.#cutAt(port, expiresAt);
    }
    return { ...preview, before: earlier?.expiresAt ?? 0 };
  }

  async isSilent(port: number): Promise<boolean> {
    return (await this.#host.sandboxd.report(port))?.isSilent === true;
  }

  close(port: number): boolean {
    const wasOpen = this.list().some((preview) => preview.port === port);
    this.#host.sql.exec("DELETE FROM previews WHERE port = ?", port);
    this.#cut(port);
    return wasOpen;
  }

  /** Ends all requests. Keeps the rows of a stopped sandbox, so that responses can say that it has stopped. */
  onContainerEnd(end: EndReason): void {
    for (const port of this.#cuts.keys()) this.#cut(port);
    if (end === "destroy") this.#host.sql.exec("DELETE FROM previews");
  }

  list(): Preview[] {
    if (!this.#host.sandboxd.isRunning) return [];
    const query = "SELECT * FROM previews WHERE expires_at > ? ORDER BY port";
    const rows = this.#host.sql.exec<Row>(query, Date.now()).toArray();
    return rows.map(({ port, token, expires_at: expiresAt }) => ({ port, token, expiresAt }));
  }

  /** Serves a request to `http://localhost:<port>` with a preview's token. */
  async serve(request: Request): Promise<Response> {
    const port = Number(new URL(request.url).port);
    const headers = new Headers(request.headers);
    const token = headers.get(PREVIEW_TOKEN) ?? "";
    headers.delete(PREVIEW_TOKEN);
    headers.set(PREVIEW_PORT, String(port));
    const [row] = this.#host.sql.exec<Row>("SELECT * FROM previews WHERE port = ?", port).toArray();
    if (!row || !areEqual(row.token, token) || row.expires_at <= Date.now()) return refuseUnserved("ended");
    if (!this.#host.sandboxd.isRunning)
      return refuseUnserved(this.#host.lifecycle.isAlive ? "waiting" : "stopped");
    const boot = this.#host.restartNotice.boot;
    const hasResponded = row.answered > 0 && row.boot === boot;
    const cut = this.#signalOf(port, row.expires_at);
    const response = await this.#host.sandboxd
      .fetch(new Request(request, { headers, signal: cut, redirect: "manual" }))
      // sandboxd does not run; for example, user code killed it.
      .catch(() => undefined);
    if (cut.aborted) return refuseUnserved("ended");
    // Programs must not imitate the server's messages about previews.
    if (!response || response.headers.has(PREVIEW_ERROR) || response.headers.has(PREVIEW_STATE))
      return refuseUnserved(unservedState(response, hasResponded));
    if (!hasResponded)
      this.#host.sql.exec("UPDATE previews SET answered = 1, boot = ? WHERE port = ?", boot, port);
    this.#reportUse();
    return response;
  }

  /**
   * Whether a request or WebSocket is open, which counts as use. Only sandboxd knows this. The actor forwards WebSockets without
   * listening to them, because workerd applies back-pressure only then.
   */
  async isInUse(): Promise<boolean> {
    if (this.list().length === 0) return false;
    const report = await this.#host.sandboxd.report();
    const isInUse = report !== undefined && report.openPreviews > 0;
    if (isInUse) this.#reportUse();
    return isInUse;
  }

  #reportUse(): void {
    this.#host.background(this.#host.account.noteUse());
    this.#host.sandboxd.noteUse();
  }

  #signalOf(port: number, expiresAt: number): AbortSignal {
    const cut = this.#cuts.get(port) ?? {
      controller: new AbortController(),
      timer: this.#cutAt(port, expiresAt),
    };
    this.#cuts.set(port, cut);
    return cut.controller.signal;
  }

  #cutAt(port: number, expiresAt: number): Cut["timer"] {
    return setTimeout(() => this.#cut(port), Math.max(0, expiresAt - Date.now()));
  }

  #cut(port: number): void {
    const cut = this.#cuts.get(port);
    if (!cut) return;
    this.#cuts.delete(port);
    clearTimeout(cut.timer);
    cut.controller.abort();
  }
}

/** @param response from sandboxd, or from a user program that has taken its port */
function unservedState(response: Response | undefined, hasResponded: boolean): PreviewState {
  const problem = response?.headers.get(PREVIEW_ERROR);
  if (problem === "tls" || problem === "foreign") return problem;
  return hasResponded ? "silent" : "waiting";
}

function refuseUnserved(state: PreviewState): Response {
  return new Response(null, { status: 503, headers: { [PREVIEW_STATE]: state } });
}
