/** An engine's sandboxes, and how its latest sandboxes ended. */
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { remember } from "../../container/sandboxd/remember.ts";
import type { ExitReport, StartRequest } from "../platform/engine-protocol.ts";
import { EngineSandbox, type SharedSettings, type SandboxPlace } from "./engine-sandbox.ts";
import { PreparedSandbox } from "./prepared-sandbox.ts";
import { messageOf } from "../../src/shared/text.ts";
import { MACHINE } from "./texts.ts";

const maxRemembered = 1000;

export class SandboxRegistry {
  readonly #common: SharedSettings;
  readonly #directory: string;
  readonly #boot: string;
  readonly #alive = new Map<string, EngineSandbox>();
  readonly #starting = new Map<string, Promise<void>>();
  readonly #ended = new Map<string, ExitReport>();
  readonly #prepared: PreparedSandbox;
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
    await this.#starting.get(id)?.catch(() => undefined);
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
      starting = this.#start(id, request).finally(() => this.#starting.delete(id));
      this.#starting.set(id, starting);
    }
    await starting;
  }

  async #start(id: string, request: StartRequest): Promise<void> {
    // Ends an earlier sandbox of the actor: if the actor lost its state, it does not know that sandbox any more.
    for (const other of this.#alive.values()) if (other.actor === request.actor) await other.destroy();
    let sandbox: EngineSandbox | undefined;
    try {
      sandbox =
        (await this.#prepared.take(request)) ??
        (await EngineSandbox.start(this.#common, this.#placeFor(id), request));
      await sandbox.assign(id, request);
    } catch (error) {
      await sandbox?.destroy();
      this.#remember(id, { exitCode: 1, reason: messageOf(error) });
      throw error;
    }
    this.#alive.set(id, sandbox);
    void this.#forget(id, sandbox);
    if (this.#isClosed) await sandbox.destroy();
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
    await Promise.allSettled([...this.#starting.values(), this.#prepared.close()]);
    await Promise.all(this.list().map(async (sandbox) => await sandbox.destroy()));
  }

  #remember(id: string, report: ExitReport): void {
    remember(this.#ended, id, report, maxRemembered);
  }
}
