/** The actor of one sandbox: its container, shells, kernels and files. Our methods sit on the SDK's own class. */
import { Sandbox as BaseSandbox } from "@cloudflare/sandbox";
import { Commands, type CommandOutcome, type CommandSpec } from "../runs/command.ts";
import { newRunID } from "../runs/id.ts";
import type { Env } from "../server/config.ts";
import type { Account } from "./account.ts";
import { Boots } from "./boots.ts";
import { type Outcome, platformFailure } from "./errors.ts";
import { type FileEntry, type FileRange, Files } from "./files.ts";
import { type CodeOutcome, type CodeSpec, Kernels } from "./kernels.ts";
import { Shell } from "./shell.ts";

/** Whose sandbox this is. The actor's own name already holds both, hashed; this is what it shows and registers. */
export interface Owner {
  principalID: string;
  /** The sandbox's name as the principal knows it. */
  sandbox: string;
}

/** A run's answer, with what is common to all kinds. */
export type Ran<T> = T & { runID: string; durationMs: number };

/** What an actor's method answers: the outcome, and what the caller must be told about state that was lost. */
export type Answer<T> = Outcome<T> & { notice?: string };

/** How long the registration in `Account` may lag behind, milliseconds. */
const REGISTER_EVERY = 60_000;

export class Sandbox extends BaseSandbox<Env> {
  override sleepAfter = "10m";

  readonly #boots: Boots;
  readonly #commands: Commands;
  readonly #files: Files;
  readonly #kernels: Kernels;
  #owner: Owner | undefined;
  #registeredAt = 0;

  constructor(ctx: DurableObjectState<{}>, env: Env) {
    super(ctx, env);
    const shell = new Shell(this);
    this.#boots = new Boots(ctx.storage.kv);
    this.#commands = new Commands(shell);
    this.#files = new Files(shell, this);
    this.#kernels = new Kernels(this, ctx.storage.sql);
  }

  executeCode(owner: Owner, spec: Omit<CodeSpec, "runID">): Promise<Answer<Ran<CodeOutcome>>> {
    return this.#serve(owner, () => this.#run(owner, (runID) => this.#kernels.run({ ...spec, runID })));
  }

  executeCommand(owner: Owner, spec: Omit<CommandSpec, "runID">): Promise<Answer<Ran<CommandOutcome>>> {
    return this.#serve(owner, () => this.#run(owner, (runID) => this.#commands.run({ ...spec, runID })));
  }

  /** Answers the file's size afterwards, in bytes. */
  putFile(owner: Owner, path: string, content: Uint8Array, append: boolean): Promise<Answer<number>> {
    return this.#serve(owner, () => this.#files.write(path, content, append));
  }

  getFile(owner: Owner, ...range: Parameters<Files["read"]>): Promise<Answer<FileRange>> {
    return this.#serve(owner, () => this.#files.read(...range));
  }

  listDirectory(owner: Owner, ...what: Parameters<Files["list"]>): Promise<Answer<FileEntry[]>> {
    return this.#serve(owner, () => this.#files.list(...what));
  }

  /** Ends the container with every process and file in it. Answers whether there was anything to end. */
  async destroySandbox(owner: Owner): Promise<Answer<boolean>> {
    this.#owner = undefined;
    const known = await this.#account(owner).sandboxDestroyed(owner.sandbox);
    await this.destroy();
    this.#boots.forget();
    this.#kernels.forget();
    return { ok: true, value: known };
  }

  /** Every run of code or of a command goes through here. */
  async #run<T>(owner: Owner, work: (runID: string) => Promise<T>): Promise<Ran<T>> {
    const runID = newRunID(owner.sandbox);
    const startedAt = Date.now();
    const outcome = await work(runID);
    this.ctx.waitUntil(this.#commands.clean());
    return { ...outcome, runID, durationMs: Date.now() - startedAt };
  }

  /** Does the work of one call; what the caller should hear of becomes data, the rest is thrown for the log. */
  async #serve<T>(owner: Owner, work: () => Promise<T>): Promise<Answer<T>> {
    this.#owner = owner;
    await this.setSandboxName(owner.sandbox);
    let outcome: Outcome<T>;
    try {
      outcome = { ok: true, value: await work() };
    } catch (error) {
      const failure = platformFailure(error);
      if (!failure) throw error;
      outcome = { ok: false, failure };
    }
    this.#register("running");
    return { ...outcome, notice: this.#boots.takeNotice() };
  }

  override async onStart(): Promise<void> {
    await super.onStart();
    this.#boots.started();
    this.#kernels.forget();
  }

  override async onStop(params?: Parameters<BaseSandbox<Env>["onStop"]>[0]): Promise<void> {
    await super.onStop(params);
    this.#register("stopped");
  }

  override async onActivityExpired(): Promise<void> {
    this.#boots.idle();
    await super.onActivityExpired();
  }

  /** Tells the principal's account, in the background and rarely. */
  #register(state: "running" | "stopped"): void {
    const owner = this.#owner;
    if (!owner) return;
    const now = Date.now();
    if (state === "running" && now - this.#registeredAt < REGISTER_EVERY) return;
    this.#registeredAt = state === "running" ? now : 0;
    const account = this.#account(owner);
    this.ctx.waitUntil(
      state === "running" ? account.sandboxSeen(owner.sandbox, state, now) : account.sandboxStopped(owner.sandbox),
    );
  }

  #account(owner: Owner): DurableObjectStub<Account> {
    const accounts = this.env.Account as DurableObjectNamespace<Account>;
    return accounts.getByName(owner.principalID);
  }
}
