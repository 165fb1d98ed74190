/** Saves and restores of a sandbox's workspace, and of what was installed beside it, by requests to sandboxd. What it answers is checked and bounded. */
import {
  type Call,
  type Content,
  type ResultOf,
  type Row,
  queryOf,
} from "../../container/sandboxd/operations.ts";
import type { FileFailure } from "../../container/sandboxd/shapes.ts";
import {
  type Done,
  type Place,
  type Plan,
  type Read,
  SNAPSHOT_ENTRIES,
  type SnapshotRequests,
  snapshotRequests,
} from "../../container/sandboxd/snapshots/calls.ts";
import { ToolError } from "../shared/errors.ts";
import type { Connection } from "./connection.ts";
import { readAnswer, resultOf } from "./sandboxd-answer.ts";

/** What an agent has said and was told: the files below a directory of the home that have its id in their path. */
export interface Conversation {
  /** As `/.agent/conversations`. */
  below: string;
  id: string;
}

/** What a restore is of, where that is not the workspace. */
export type Target = { task: string } | { system: "true" };

export class Snapshots {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** What this container's workspace came from or was last saved as, and whether it is empty. */
  mark(signal: AbortSignal): Promise<Place> {
    return this.#ask("mark", {}, signal);
  }

  /** What the outcome of an installation in this container depends on, as a hash. */
  async system(signal: AbortSignal): Promise<string> {
    return (await this.#ask("system", {}, signal)).system;
  }

  /** Has the sandbox note its system as it is: a later plan of that has the changes. */
  async noteSystem(signal: AbortSignal): Promise<void> {
    await this.#ask("noteSystem", {}, signal);
  }

  /**
   * Plans a save.
   * @param repack packs whose content counts as new
   * @param archive what a task or a set-up leaves: the workspace, which needs not come from the base, a conversation, or the
   *   changes in the system
   */
  plan(
    save: string,
    base: string | undefined,
    max: number,
    repack: readonly string[],
    signal: AbortSignal,
    archive?: { conversation?: Conversation; isSystem?: boolean },
  ): Promise<Plan> {
    const body = { id: save, base, max, repack: [...repack], isArchive: archive !== undefined, ...archive };
    return this.#ask("plan", { body }, signal);
  }

  /** Reads the new content of a save. */
  pack<T>(
    save: string,
    signal: AbortSignal,
    read: (body: ReadableStream<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return this.#stream("pack", save, signal, read);
  }

  /** Reads its manifest, after the pack. */
  manifest<T>(
    save: string,
    signal: AbortSignal,
    read: (body: ReadableStream<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return this.#stream("manifest", save, signal, read);
  }

  done(save: string, signal: AbortSignal): Promise<Done> {
    return this.#ask("done", { id: save }, signal);
  }

  /** The account has the save: the next one is compared with it. */
  async commit(save: string, signal: AbortSignal): Promise<void> {
    await this.#ask("commit", { id: save }, signal);
  }

  /**
   * Begins a restore by its manifest. Answers what of which packs to send.
   * @param to the task whose conversation it is, as the sandbox knows it, or the system; of the workspace without
   */
  async restore(
    snapshot: string,
    manifest: ReadableStream,
    signal: AbortSignal,
    to?: Target,
  ): Promise<Read[]> {
    return (await this.#ask("restore", { id: snapshot, ...to, body: manifest }, signal)).reads;
  }

  /** Sends what the restore asked for, one range after the other. */
  async data(snapshot: string, body: ReadableStream, signal: AbortSignal): Promise<void> {
    await this.#ask("data", { id: snapshot, body }, signal);
  }

  /** A body that breaks off, or cannot be kept, is not asked for again: the save begins anew. */
  async #stream<T>(
    name: "pack" | "manifest",
    save: string,
    signal: AbortSignal,
    read: (body: ReadableStream<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return await read((await this.#ask(name, { id: save }, signal)).body);
  }

  async #ask<Name extends keyof SnapshotRequests>(
    name: Name,
    input: Call<SnapshotRequests[Name]> & Content<SnapshotRequests[Name]["up"]>,
    signal: AbortSignal,
  ): Promise<ResultOf<SnapshotRequests[Name]>> {
    const row: Row = snapshotRequests[name];
    const { body, ...call }: Record<string, unknown> = input;
    const [method = "", pathname = ""] = row.route.split(" ");
    const content = body instanceof ReadableStream ? body : body && JSON.stringify(body);
    const result = await this.#connection.request(
      `${pathname}?${queryOf(row, call)}`,
      { method, body: content as BodyInit | undefined },
      signal,
      (response) => readAnswer(response, () => resultOf(response, row, call), refusal),
    );
    return result as ResultOf<SnapshotRequests[Name]>;
  }
}

function refusal({ code, problem }: FileFailure): ToolError {
  if (code === "ENOSPC") return new ToolError("no_space", "the disk of the sandbox is full");
  if (problem === "too_large")
    return new ToolError("too_large", `it has more than ${SNAPSHOT_ENTRIES} files and directories`);
  // Another sandboxd has answered than the one that had begun it.
  if (problem === "missing")
    return new ToolError("no_answer", "the sandbox has lost what it had begun", "", true);
  return new ToolError("file_system", `the sandbox says ${code ?? problem}`);
}
