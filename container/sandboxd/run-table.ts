/**
 * All runs in this sandbox, and a ready shell for each recently used session. Starting a shell takes longer than most commands, so
 * there is also a spare shell, which any session can use after reading the session's state.
 */
import { rmSync, statSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { CodeRun } from "./code-run.ts";
import type { FollowedRun, Listener } from "./followed-run.ts";
import {
  KERNEL_OUTPUT,
  RUNS,
  SCRIPTS,
  SESSIONS,
  SLOTS,
  WORKSPACE,
  entriesOf,
  makePlaces,
  textOf,
} from "./directories.ts";
import { attempt, codeOf } from "./file-error.ts";
import type { Call, Event, Signal, StartCall } from "./protocol.ts";
import { NO_ENV } from "./run-processes.ts";
import { directoryOf } from "./session-directories.ts";
import { taskDirectory } from "./shapes.ts";
import { CommandRun, type RunHost, stopSlot } from "./command-run.ts";
import { Slot, Slots } from "./slot.ts";
import { expectPortsOf } from "./listening.ts";

const MAX_READY = 4;
/** How many shells are tried for a command if each of them ends before it has read the command. */
const MAX_STARTS = 3;
const ENDING_MS = 5000;
const ENDING_POLL_MS = 50;
/** Runs a command in a pseudo terminal. Part of util-linux, which every Debian and Ubuntu has. */
const SCRIPT_PROGRAM = "/usr/bin/script";
const SCRIPT_FILES = ["keeper.sh", "shell.sh", "command.sh", "state.sh", "sourced/bash"];

interface RequestedCommand {
  call: StartCall;
  listener: Listener;
  starts: number;
  /** Settles when a shell has received the command, or the command was refused. */
  started?: Promise<void>;
  isWithdrawn?: boolean;
}

interface Ready {
  slot: Slot;
  state: string;
  run?: CommandRun;
  /** Whether the shell was killed while it was waiting. */
  hasEnded?: boolean;
}

export class RunTable implements RunHost {
  readonly #env: NodeJS.ProcessEnv;
  readonly #slots = new Slots();
  readonly #runs = new Map<string, CommandRun>();
  readonly #code = new Map<string, CodeRun>();
  /** Ready shells by session, least recently used first. */
  readonly #ready = new Map<string, Promise<Ready>>();
  #spare: Promise<Ready> | undefined;
  readonly #requested = new Map<string, RequestedCommand>();
  #isEnding = false;

  constructor(env: NodeJS.ProcessEnv) {
    this.#env = env;
  }

  begin(): void {
    makePlaces();
    const adopted = new Set<string>();
    for (const name of directoriesIn(RUNS)) {
      if (!/^[0-9a-z]{1,64}$/.test(name)) continue;
      const run = CommandRun.adopt(name, this);
      if (run === undefined) continue;
      this.#runs.set(name, run);
      if (run.slotName !== undefined) adopted.add(run.slotName);
    }
    for (const name of directoriesIn(SLOTS)) if (!adopted.has(name)) discard(join(SLOTS, name));
    void this.#prepare("main").catch(() => undefined);
  }

  async call(call: Call, listener: Listener): Promise<void> {
    switch (call.type) {
      case "ping":
        return listener.onEvent({ type: "pong" });
      case "start":
        return await this.#start(call, listener);
      case "follow": {
        const run = this.#runs.get(call.id);
        const requested = this.#requested.get(call.id);
        if (requested !== undefined) requested.listener = listener;
        else if (run === undefined) listener.onEvent({ type: "unknown", id: call.id });
        return run?.follow(listener, call.stdout, call.stderr);
      }
      case "code": {
        let code = this.#code.get(call.id);
        if (!code?.isIn(call)) {
          code?.close();
          this.#code.set(call.id, (code = new CodeRun(call.id, call)));
        }
        return code.follow(listener, call.stdout, call.stderr);
      }
      case "finish":
        return this.#code.get(call.id)?.finish();
      case "stored":
        return this.#followed(call.id)?.acknowledge(call.stdout, call.stderr);
      case "full":
        return this.#followed(call.id)?.keepOnlyTail(call.stream);
      case "kill":
        return this.#kill(call.id, call.signal);
      case "expect":
        return expectPortsOf(call.id);
      case "forget":
        for (const id of call.ids) this.#forget(id);
        return;
      case "input":
        await this.#requested.get(call.id)?.started;
        return listener.onEvent({
          type: "typed",
          id: call.id,
          key: call.key,
          bytes: (await this.#runs.get(call.id)?.input(call.text, call.size)) ?? 0,
        });
    }
  }

  get isEnding(): boolean {
    return this.#isEnding;
  }

  refuse(): void {
    this.#isEnding = true;
  }

  /** Ends all commands. Resolves after ENDING_MS at the latest. Returns whether any command was running. */
  async end(): Promise<boolean> {
    const running = () => [...this.#runs.values()].filter((run) => run.isRunning);
    const wasRunning = running().length > 0;
    for (const run of running()) run.kill("TERM");
    const until = Date.now() + ENDING_MS;
    while (running().length > 0 && Date.now() < until) await pause(ENDING_POLL_MS);
    return wasRunning;
  }

  unfollow(listener: Listener): void {
    for (const run of this.#runs.values()) run.unfollow(listener);
    for (const code of this.#code.values()) code.unfollow(listener);
  }

  #followed(id: string): FollowedRun | undefined {
    return this.#runs.get(id) ?? this.#code.get(id);
  }

  onEnd(run: CommandRun): void {
    this.#requested.delete(run.id);
    // The session may have a shell ready that was prepared while a run of the previous sandboxd continued. Such a shell lacks the
    // state that this run leaves.
    const stale = this.#ready.get(run.session);
    if (stale) release(stale);
    this.#ready.delete(run.session);
    // Deferred, so that the response is sent first.
    setImmediate(() => void this.#prepare(run.session).catch(() => undefined));
  }

  onNeverBegun(run: CommandRun): void {
    const requested = this.#requested.get(run.id);
    this.#runs.delete(run.id);
    run.discard();
    rmSync(run.directory, { recursive: true, force: true });
    if (requested === undefined) return;
    if (++requested.starts < MAX_STARTS) return void this.#tryToStart(requested);
    this.#refuse(run.id, requested.listener, "exhausted", "no shell could start");
  }

  onRelease(slot: Slot, isClean: boolean): void {
    if (isClean) this.#slots.release(slot);
    else slot.remove();
  }

  async #start(call: StartCall, listener: Listener): Promise<void> {
    const earlier = this.#requested.get(call.id);
    // Its shell may still be starting, or end without having read the command.
    if (earlier) earlier.listener = listener;
    const known = this.#runs.get(call.id);
    if (known) return known.follow(listener, 0, 0);
    if (earlier) return;
    return await this.#tryToStart({ call, listener, starts: 0 });
  }

  async #tryToStart(requested: RequestedCommand): Promise<void> {
    const { call, listener } = requested;
    if (this.#isEnding)
      return this.#refuse(call.id, listener, "ending", "the platform is replacing the container");
    if (!SCRIPT_FILES.every((file) => isThere(join(SCRIPTS, file))))
      return this.#refuse(call.id, listener, "damaged", `files are missing or empty in ${SCRIPTS}`);
    if (call.interactive && !isThere(SCRIPT_PROGRAM))
      return this.#refuse(call.id, listener, "no_terminal", `there is no ${SCRIPT_PROGRAM}`);
    const missing = missingDirectory(call);
    if (missing !== undefined) return this.#refuse(call.id, listener, "no_directory", missing);
    this.#requested.set(call.id, requested);
    requested.started = this.#startInShell(requested);
    return requested.started;
  }

  async #startInShell(requested: RequestedCommand): Promise<void> {
    const { call } = requested;
    let ready: Ready | undefined;
    try {
      const found = this.#ready.get(call.session);
      this.#ready.delete(call.session);
      if (call.interactive && found) release(found);
      else ready = await found;
      if (!ready || ready.hasEnded) ready = await this.#makeReady(call.session, call.interactive);
    } catch (error) {
      return this.#refuse(call.id, requested.listener, reasonOf(error), systemMessage(error));
    }
    if (requested.isWithdrawn) {
      this.#requested.delete(call.id);
      this.#putBack(call, ready);
      return requested.listener.onEvent({ type: "ended", id: call.id, status: 143, stdout: 0, stderr: 0 });
    }
    try {
      const run = startIn(ready, call, this);
      this.#runs.set(call.id, run);
      run.listen(requested.listener);
    } catch (error) {
      this.#putBack(call, ready);
      this.#refuse(call.id, requested.listener, "unwritable", systemMessage(error));
    }
  }

  #putBack(call: StartCall, ready: Ready): void {
    if (call.interactive || this.#ready.has(call.session)) release(Promise.resolve(ready));
    else this.#ready.set(call.session, Promise.resolve(ready));
  }

  #kill(id: string, signal: Signal): void {
    const run = this.#runs.get(id);
    const requested = this.#requested.get(id);
    const code = this.#code.get(id);
    if (code) code.kill(signal);
    else if (run) run.kill(signal);
    else if (requested) requested.isWithdrawn = true;
  }

  #refuse(id: string, listener: Listener, reason: RefusalReason, message: string): void {
    this.#requested.delete(id);
    listener.onEvent({ type: "refused", id, reason, message: message.slice(0, 1000) });
  }

  /**
   * Prepares a shell for the session's next command. If there are more than MAX_READY shells, ends the shell of the least
   * recently used session.
   */
  #prepare(session: string): Promise<Ready> {
    const found = this.#ready.get(session);
    if (found) return found;
    const made = this.#makeReady(session);
    this.#ready.set(session, made);
    made.catch(() => this.#ready.get(session) === made && this.#ready.delete(session));
    for (const [other, ready] of this.#ready) {
      if (this.#ready.size <= MAX_READY) break;
      if (other === session) continue;
      this.#ready.delete(other);
      release(ready);
    }
    return made;
  }

  async #makeReady(session: string, isTerminal = false): Promise<Ready> {
    const path = join(SESSIONS, session);
    const state = textOf(path);
    // The state has all variables of the session. A variable that the session has unset must not come back from the environment.
    const env = state === undefined ? this.#env : NO_ENV;
    const isSpare = state !== undefined && !isTerminal;
    let ready = isSpare ? await this.#takeSpare() : undefined;
    if (!ready || ready.hasEnded) ready = await this.#startShell(env, isTerminal);
    ready.state = state ?? "";
    ready.slot.sendPath(path);
    if (isSpare) this.#keepSpare();
    return ready;
  }

  #takeSpare(): Promise<Ready> | undefined {
    const spare = this.#spare;
    this.#spare = undefined;
    return spare;
  }

  #keepSpare(): void {
    if (this.#spare) return;
    const spare = this.#startShell(NO_ENV);
    this.#spare = spare;
    spare.catch(() => this.#spare === spare && (this.#spare = undefined));
  }

  async #startShell(env: NodeJS.ProcessEnv, isTerminal = false): Promise<Ready> {
    const slot = await this.#slots.take();
    const ready: Ready = { slot, state: "" };
    const onKeeperExit = (status: number | undefined) => {
      if (ready.run) return ready.run.onKeeperEnd(status);
      ready.hasEnded = true;
      void slot.waitForEnd().then(() => ready.run ?? slot.remove());
    };
    try {
      slot.begin(env, isTerminal, onKeeperExit);
    } catch (error) {
      slot.remove();
      throw error;
    }
    return ready;
  }

  #forget(id: string): void {
    const run = this.#runs.get(id);
    if (run?.isRunning) return;
    run?.close();
    this.#runs.delete(id);
    rmSync(join(RUNS, id), { recursive: true, force: true });
    // Not at once, because a task may have many files.
    void rm(taskDirectory(id), { recursive: true, force: true }).catch(() => undefined);
    this.#code.get(id)?.close();
    this.#code.delete(id);
    for (const name of ["out", "err"]) rmSync(join(KERNEL_OUTPUT, `${id}.${name}`), { force: true });
  }
}

function startIn(ready: Ready, call: StartCall, host: RunHost): CommandRun {
  const start = () => CommandRun.start(call, ready.state, ready.slot, host);
  try {
    return (ready.run = start());
  } catch (error) {
    // User code may have removed the directory of runs.
    if (codeOf(error) !== "ENOENT") throw error;
    makePlaces();
    return (ready.run = start());
  }
}

function release(ready: Promise<Ready>): void {
  void ready
    .then(({ slot }) => (stopSlot(slot), slot.waitForEnd()).then(() => slot.remove()))
    .catch(() => undefined);
}

type RefusalReason = Extract<Event, { type: "refused" }>["reason"];

function systemMessage(error: unknown): string {
  const [, words = String(error)] =
    /^[A-Z]+: (.+?), /.exec(error instanceof Error ? error.message : "") ?? [];
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** An error of `mkfifo` has no system error code. `mkfifo` fails if the sandbox has too few resources. */
function reasonOf(error: unknown): RefusalReason {
  const code = codeOf(error);
  const isExhausted = code === undefined || ["EAGAIN", "ENOMEM", "EMFILE", "ENFILE"].includes(code);
  return isExhausted ? "exhausted" : "unwritable";
}

function directoriesIn(directory: string): string[] {
  return entriesOf(directory).flatMap((entry) => (entry.isDirectory() ? entry.name : []));
}

/** The directory in which a command cannot run, because it does not exist. */
function missingDirectory({ cwd = "", session }: StartCall): string | undefined {
  // For bash, `-` is the previous directory.
  if (cwd === "" || cwd === "-") return undefined;
  const path = resolve(directoryOf(session) ?? WORKSPACE, cwd);
  const stats = attempt(() => statSync(path, { throwIfNoEntry: false }), undefined);
  return stats?.isDirectory() ? undefined : path;
}

function isThere(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;
}

function discard(directory: string): void {
  try {
    const slot = new Slot(directory);
    stopSlot(slot);
    slot.remove();
  } catch {
    rmSync(directory, { recursive: true, force: true });
  }
}
