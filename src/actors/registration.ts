/**
 * A sandbox is registered with its account before its container starts, and the registration is withdrawn where none came
 * up: the account counts neither too few containers nor one that nobody has.
 */
import { ToolError } from "../shared/errors.ts";
import type { Owner } from "./account-calls.ts";
import type { AccountLink } from "./account-link.ts";
import type { ContainerStarts } from "./container-starts.ts";
import type { Lease } from "./lease.ts";

export interface RegistrationHost {
  accountLink: Pick<AccountLink, "register" | "isKnown" | "isRegistered" | "isUnstarted" | "withdraw">;
  starts: ContainerStarts;
  lease: Pick<Lease, "release">;
  running(): boolean;
  /** Whether a call or a run is under way, which may still start the container. */
  isInUse(): boolean;
  /** Ends what must not go on in the next container. */
  prepare(): Promise<void>;
}

export class Registration {
  readonly #host: RegistrationHost;

  constructor(host: RegistrationHost) {
    this.#host = host;
  }

  /** Whether the account counts the container that runs, or the next one that may start. */
  get holds(): boolean {
    const { starts, accountLink, running } = this.#host;
    return accountLink.isRegistered && !starts.isDestroying && (running() || starts.isOpen);
  }

  /**
   * Registers the sandbox, whose container may start from then on. Waits while it is being destroyed: what started then would
   * not be counted by the account.
   * @throws {ToolError} `quota_exceeded`, and `not_found` for an owner who may start no container where none runs
   */
  async make(owner: Owner): Promise<void> {
    const { accountLink, starts, running, prepare } = this.#host;
    const isKnown = (owner.mayStart ?? true) === true || running() || (await accountLink.isKnown(owner));
    const mayStart = owner.mayStart === "again" ? isKnown : owner.mayStart !== false;
    const refuseStart = () => {
      if (!mayStart && !running()) throw notRunning(owner.sandbox, isKnown);
    };
    refuseStart();
    const register = async () => {
      // Before the registration: the end of the previous container must not be reported after it.
      await prepare();
      await accountLink.register(owner);
    };
    await starts.undisturbed(register, () => {
      // Its container may have ended meanwhile, and what comes next would start another.
      refuseStart();
      starts.open();
    });
  }

  /** Withdraws the registration of a sandbox whose container never started: its calls were refused or failed. */
  async withdrawUnstarted(): Promise<void> {
    const { accountLink, starts, lease, running, isInUse } = this.#host;
    if (!accountLink.isUnstarted || starts.isStarting || starts.isDestroying || running() || isInUse())
      return;
    starts.close();
    // If this fails, the account lists the sandbox and removes it later as idle.
    await accountLink.withdraw(lease.release()).catch(() => undefined);
  }
}

/** @param isKnown whether it was used before */
function notRunning(sandbox: string, isKnown: boolean): ToolError {
  return isKnown
    ? new ToolError(
        "not_found",
        `Sandbox ${sandbox} is not running, and what may only read does not start it. What was saved of its /workspace is kept.`,
        "A call that may run or write starts it with that: run_command, say.",
      )
    : new ToolError(
        "not_found",
        `Sandbox ${sandbox} is not running and was never used, so it holds no files; what only reads or removes them makes none.`,
        "list_sandboxes shows those that there are.",
      );
}
