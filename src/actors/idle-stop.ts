/**
 * When the container of a sandbox is stopped for want of use: after its idle minutes. A preview puts that off while it is open, and so do
 * background processes that are at work, where the operator allows it (`KEEP_BUSY`). What the sandbox says of them is believed for that
 * alone, and for `KEEP_BUSY` hours after its last use.
 */
import type { FileOperations } from "../container/file-operations.ts";
import { ToolError } from "../shared/errors.ts";
import type { AccountLink } from "./account-link.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { ContainerPlatform } from "./platform/platform.ts";
import type { Previews } from "./previews.ts";

/** Storage key of the minutes that `configure_sandbox` has set. */
const KEY = "idle_minutes";

const MINUTE_MS = 60_000;
const HOUR_MS = 3_600_000;

/** The pause between two looks at processes that hold their sandbox, milliseconds. */
const LOOK_MS = 60_000;

/** The share of a processor from which on processes are at work: an idle server that looks at files or clocks uses less. */
const BUSY_SHARE = 0.01;

export interface IdleStopHost {
  kv: Pick<SyncKvStorage, "get" | "put" | "delete">;
  platform: Pick<ContainerPlatform, "used">;
  account: Pick<AccountLink, "unusedMs">;
  lifecycle: Pick<Lifecycle, "isInUse" | "stopIfUnused">;
  previews: Pick<Previews, "isInUse">;
  /** Asks without being a use of the sandbox. */
  files: FileOperations;
  limits: { minutes: number; maxMinutes: number; busyHours: number };
}

export class IdleStop {
  readonly #host: IdleStopHost;
  /** Until when processes hold the sandbox, milliseconds since the epoch. */
  #heldUntil = 0;

  constructor(host: IdleStopHost) {
    this.#host = host;
  }

  /** What was set; undefined for the operator's default. */
  get choice(): number | undefined {
    return this.#host.kv.get<number>(KEY);
  }

  /** What holds, also where the operator has lowered the limit since. */
  get minutes(): number {
    const { minutes, maxMinutes } = this.#host.limits;
    return Math.min(this.choice ?? minutes, maxMinutes);
  }

  /** @throws {ToolError} `permission_denied` for more than the operator allows */
  check(minutes: number): void {
    const { maxMinutes } = this.#host.limits;
    if (minutes <= maxMinutes) return;
    throw new ToolError(
      "permission_denied",
      `idle_minutes ${minutes} is more than this server allows; nothing was changed.`,
      `Give ${maxMinutes} at most. The operator can raise MAX_IDLE_MINUTES.`,
    );
  }

  put(minutes: number | undefined): void {
    if (minutes === undefined) this.#host.kv.delete(KEY);
    else this.#host.kv.put(KEY, minutes);
    this.#host.platform.used();
  }

  /** How long the sandbox may go on without being used, milliseconds. */
  leftMs(): number {
    const idleMs = this.minutes * MINUTE_MS;
    if (this.#host.lifecycle.isInUse) return idleMs;
    return Math.max(0, idleMs - this.#host.account.unusedMs, this.#heldUntil - Date.now());
  }

  /** That time is over: stops the container, unless something holds it. */
  async expired(): Promise<void> {
    if (await this.#host.previews.isInUse()) return;
    const { account, limits, lifecycle } = this.#host;
    const mayHold = account.unusedMs < this.minutes * MINUTE_MS + limits.busyHours * HOUR_MS;
    if (mayHold && (await this.isBusy())) this.#heldUntil = Date.now() + LOOK_MS;
    else await lifecycle.stopIfUnused();
  }

  /** Whether processes were at work since the last look. The first one of a container has nothing to compare with. */
  async isBusy(): Promise<boolean> {
    if (this.#host.limits.busyHours === 0) return false;
    // A container of an earlier version does not answer.
    const found = await this.#host.files.call("work", {}).catch(() => undefined);
    if (!found) return false;
    const { cpuMs, overMs, connections } = found;
    return connections > 0 || (overMs > 0 && cpuMs / overMs >= BUSY_SHARE);
  }
}
