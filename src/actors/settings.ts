/**
 * A sandbox's settings: variables, network, set-up, idle time and service. A call changes all settings that it names; a call that
 * fails changes none.
 */
import type { Variables } from "../../container/sandboxd/protocol.ts";
import type { NetworkPolicy } from "../shared/network-policy.ts";
import type { Region } from "../shared/principal.ts";
import { SerialQueue } from "../shared/queue.ts";
import type { CheckpointSettings, Destroyed, Owner } from "./account-calls.ts";
import type { AccountLink } from "./account-link.ts";
import type { IdleStop } from "./idle-stop.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { NetworkChoice, SandboxNetwork } from "./network.ts";
import type { RestartNotice } from "./restart-notice.ts";
import { type SandboxVariables, namesOf } from "./sandbox-variables.ts";
import type { Service, ServiceState } from "./service.ts";
import type { SetUp, SetUpState } from "./set-up.ts";
import { networkRestricted, otherRegion, sandboxExists } from "./texts.ts";

export interface SettingsChange {
  /** An empty value removes the variable. */
  env?: Readonly<Record<string, string>> | undefined;
  network?: NetworkChoice | undefined;
  /** Whether no person was asked, because the network change gave no more access. It must not, also if the policy has changed since. */
  isWithin?: boolean | undefined;
  /** The script of the set-up; an empty one removes it. */
  setup?: string | undefined;
  idleMinutes?: number | undefined;
  /** The script of the sandbox's service; an empty one ends the service. */
  start?: string | undefined;
}

interface CurrentSettings {
  variables: string[];
  setup: SetUpState;
  network: NetworkPolicy;
  idleMinutes: number;
  service: { state: ServiceState; run?: string | undefined };
}

/** A sandbox's settings, and its actor's region; undefined if the platform chose it. */
type Configured = CurrentSettings & { region: Region | undefined };

/** The settings after a change; undefined for those that stay. */
interface AppliedChange {
  variables: Variables | undefined;
  choice: NetworkChoice | undefined;
  script: string | undefined;
}

interface SettingsHost {
  variables: SandboxVariables;
  network: SandboxNetwork;
  setUp: SetUp;
  idle: IdleStop;
  service: Service;
  lifecycle: Pick<Lifecycle, "unlessDestroyed" | "enforceNetwork">;
  account: Pick<AccountLink, "recordSettings" | "isAccepted" | "owner" | "keepSandbox">;
  restartNotice: Pick<RestartNotice, "forget">;
}

export class SandboxSettings {
  readonly #host: SettingsHost;
  readonly #changes = new SerialQueue();

  constructor(host: SettingsHost) {
    this.#host = host;
  }

  get current(): CurrentSettings {
    const { variables, network, setUp, idle, service } = this.#host;
    return {
      variables: variables.names,
      setup: setUp.state,
      network: network.policy,
      idleMinutes: idle.minutes,
      service: service.state,
    };
  }

  /**
   * @param region where to create the sandbox's actor
   * @throws {ToolError} as `change` does, and if the actor is in another region
   */
  async configure(owner: Owner, change: SettingsChange, region?: Region): Promise<Configured> {
    const { account, lifecycle } = this.#host;
    const { region: current } = account.owner;
    if (region !== undefined && region !== current) throw otherRegion(owner.sandbox, region, current);
    await this.change(owner, change);
    if (change.network !== undefined) await lifecycle.enforceNetwork();
    return { ...this.current, region: current };
  }

  /**
   * Applies the whole change, or nothing if it fails. Changes are applied one after another. If the sandbox is destroyed during a
   * change, the change is applied after that, to a sandbox without settings.
   * @throws {ToolError} `too_large`, `permission_denied`, `quota_exceeded`
   */
  change(owner: Owner, { env, network, isWithin, setup, idleMinutes, start }: SettingsChange): Promise<void> {
    return this.#changes.run(() => {
      const host = this.#host;
      const applyAll = async (): Promise<AppliedChange> => {
        const script = setup !== undefined && !host.setUp.has(setup) ? setup : undefined;
        const variables =
          Object.keys(env ?? {}).length > 0 ? host.variables.applyChanges(env ?? {}) : undefined;
        const choice = network && host.network.choiceAfter(network);
        if (isWithin && choice && host.network.addedHosts(choice)) throw networkRestricted(owner.sandbox);
        if (idleMinutes !== undefined) host.idle.check(idleMinutes);
        if (variables || choice || script || start || idleMinutes !== undefined) {
          const before = await host.account.recordSettings(owner, {
            variables: variables ? namesOf(variables) : host.variables.names,
            network: choice ?? host.network.choice,
          });
          if (before === "nothing") {
            const hadSettings = this.forCheckpoint !== undefined;
            this.onNewSandbox();
            if (hadSettings) return await applyAll();
          }
        }
        return { variables, choice, script };
      };
      return host.lifecycle.unlessDestroyed(applyAll, ({ variables, choice, script }) => {
        if (variables) host.variables.put(variables);
        if (choice) host.network.put(choice);
        if (script !== undefined) host.setUp.put(script);
        if (idleMinutes !== undefined) host.idle.put(idleMinutes);
        if (start !== undefined) host.service.put(start);
      });
    });
  }

  get forCheckpoint(): CheckpointSettings | undefined {
    const { variables, network, setUp, idle, service } = this.#host;
    const settings = {
      env: variables.values,
      network: network.choice,
      setup: setUp.settings,
      idleMinutes: idle.choice,
      start: service.script,
    };
    const { env, network: choice, ...others } = settings;
    const isNone =
      Object.values(others).every((value) => value === undefined) &&
      Object.keys({ ...env, ...choice }).length === 0;
    return isNone ? undefined : settings;
  }

  /**
   * Replaces the settings with the settings of the checkpoint from which the sandbox is created. Waits until an earlier sandbox of
   * this name is destroyed, because that removes settings.
   * @throws {ToolError} if a call has used or configured this sandbox since the account allowed the fork
   */
  inherit({ env, network, setup, idleMinutes, start }: CheckpointSettings): Promise<void> {
    const { variables, setUp, idle, service, lifecycle, account, restartNotice } = this.#host;
    const replace = () => {
      if (account.isAccepted) throw sandboxExists(account.owner.sandbox);
      account.keepSandbox();
      restartNotice.forget();
      variables.put(undefined);
      variables.put(variables.applyChanges(env));
      this.#host.network.put(network);
      setUp.forget();
      if (setup) setUp.inherit(setup);
      idle.put(idleMinutes);
      service.forget();
      if (start !== undefined) service.inherit(start);
    };
    return lifecycle.unlessDestroyed(async () => undefined, replace);
  }

  onDestroy({ isKept }: Pick<Destroyed, "isKept">): void {
    if (!isKept) this.onNewSandbox();
  }

  onNewSandbox(): void {
    this.#host.variables.put(undefined);
    this.#host.network.forget();
    this.#host.setUp.forget();
    this.#host.idle.put(undefined);
    this.#host.service.forget();
    this.#host.restartNotice.forget();
  }
}
