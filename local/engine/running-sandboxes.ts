/** An engine's sandboxes, and how its latest sandboxes ended. */
import { randomUUID } from "node:crypto";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { remember } from "../../container/sandboxd/remember.ts";
import type { ExitReport, StartRequest } from "../platform/engine-protocol.ts";
import { EngineSandbox, type SharedSettings, type SandboxPlace } from "./engine-sandbox.ts";
import { PreparedSandbox } from "./prepared-sandbox.ts";
import { messageOf } from "../../src/shared/text.ts";
import { Turns, TurnsByID } from "../../src/shared/turns.ts";
import { MACHINE, START_PROBLEMS } from "./texts.ts";

const maxRemembered = 1000;

/** The SDK waits this long for a container that starts. */
const MAX_WAIT_MS = 120_000;

export class SandboxRegistry {
  readonly #common: SharedSettings;
  readonly #directory: string;
  readonly #boot: string;
  readonly #alive = new Map<string, EngineSandbox>();
  readonly #starting = new Map<string, { started: Promise<void>; principal: string | undefined }>();
  readonly #ended = new Map<string, ExitReport>();
  readonly #prepared: PreparedSandbox;
  /** Each start occupies a core. More starts of a principal at once would delay those of others, and all would fail together. */
  readonly #turns = new TurnsByID(() => new Turns(availableParallelism()), MAX_WAIT_MS);
  #isClosed = false;

  constructor(common: SharedSettings, directory: string, boot: string) {
    this.#common = common;
    this.#directory = directory;
    this.#boot = boot;
    const place = () => this.#placeFor(randomUUID());
    this.#prepared = new PreparedSandbox(common, place, () => this.#starting.size > 0);
  }

  /** Keeps one sandbox prepared. Call it again after the mounted files of sandboxes have changed. */
  prepareSandbox(): void {
    if (!this.#isClosed) this.#prepared.start();
  }

  list(): EngineSandbox[] {
    return [...this.#alive.values()];
  }

  get count(): number {
    return this.#alive.size + this.#starting.size;
  }

  findByActor(actor: string): EngineSandbox | undefined {
    return this.list().find((sandbox) => sandbox.actor === actor);
  }

  listActors(): string[] {
    return this.list().flatMap(({ actor }) => actor ?? []);
  }

  /** Waits for the start of a sandbox that is starting: a restarted Worker does not know whether its sandbox has started. */
  async find(id: string): Promise<EngineSandbox | undefined> {
    await this.#starting.get(id)?.started.catch(() => undefined);
    return this.#alive.get(id);
  }

  /** Resolves when the sandbox has ended; undefined for an unknown id. */
  async waitForEnd(id: string): Promise<ExitReport | undefined> {
    return (await (await this.find(id))?.ended) ?? this.#ended.get(id);
  }

  /** Starts a sandbox; repeated calls for the same one share a result. @throws Error with a message for the user */
  async start(id: string, request: StartRequest): Promise<void> {
    if (this.#isClosed) throw new Error(MACHINE.stopping);
    const ended = this.#ended.get(id);
    if (ended) throw new Error(ended.reason);
    if (this.#alive.has(id)) return;
    let starting = this.#starting.get(id);
    if (!starting) {
      const started = this.#start(id, request).finally(() => this.#starting.delete(id));
      starting = { started, principal: request.principal };
      this.#starting.set(id, starting);
    }
    await starting.started;
  }

  async #start(id: string, request: StartRequest): Promise<void> {
    // Ends an earlier sandbox of the actor: if the actor lost its state, it does not know that sandbox any more.
    for (const other of this.#alive.values()) if (other.actor === request.actor) await other.destroy();
    let sandbox: EngineSandbox | undefined;
    try {
      sandbox = (await this.#prepared.take(request)) ?? (await this.#startInTurn(id, request));
      await sandbox.assign(id, request);
      if (request.principal !== undefined && this.#hasOther(id, request.principal))
        await sandbox.joinPrincipal(request.principal);
    } catch (error) {
      await sandbox?.destroy();
      this.#remember(id, { exitCode: 1, reason: messageOf(error) });
      throw error;
    }
    this.#alive.set(id, sandbox);
    void this.#forget(id, sandbox);
    if (this.#isClosed) await sandbox.destroy();
  }

  async #startInTurn(id: string, request: StartRequest): Promise<EngineSandbox> {
    const endTurn = await this.#turns.take(request.principal ?? "", MAX_WAIT_MS);
    if (endTurn === undefined) throw new Error(MACHINE.notStarted(START_PROBLEMS.tooMany));
    try {
      if (this.#isClosed) throw new Error(MACHINE.stopping);
      return await EngineSandbox.start(this.#common, this.#placeFor(id), request);
    } finally {
      endTurn();
    }
  }

  /** Whether another sandbox of the principal runs or starts. */
  #hasOther(id: string, principal: string): boolean {
    const starting = [...this.#starting].some(
      ([other, { principal: its }]) => other !== id && its === principal,
    );
    return starting || this.list().some((sandbox) => sandbox.principal === principal);
  }

  #placeFor(id: string): SandboxPlace {
    return { id, directory: join(this.#directory, id), group: `${this.#boot}/${id}` };
  }

  async #forget(id: string, sandbox: EngineSandbox): Promise<void> {
    this.#remember(id, await sandbox.ended);
    this.#alive.delete(id);
  }

  async destroy(id: string): Promise<void> {
    await (await this.find(id))?.destroy();
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const starting = [...this.#starting.values()].map(({ started }) => started);
    await Promise.allSettled([...starting, this.#prepared.close()]);
    await Promise.all(this.list().map(async (sandbox) => await sandbox.destroy()));
  }

  #remember(id: string, report: ExitReport): void {
    remember(this.#ended, id, report, maxRemembered);
  }
}
