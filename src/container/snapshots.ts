/** Saves and restores of a sandbox's workspace, and of what was installed beside it, by requests to sandboxd. What it answers is checked and bounded. */
import * as z from "zod/mini";
import { type FileFailure, SAVE_ANSWER_BYTES } from "../../container/sandboxd/protocol.ts";
import {
  type Done,
  type Place,
  type Plan,
  type Read,
  SNAPSHOT_ENTRIES,
  doneSchema,
  placeSchema,
  planSchema,
  readsSchema,
  systemSchema,
} from "../../container/sandboxd/snapshots/calls.ts";
import { ToolError } from "../shared/errors.ts";
import type { Connection } from "./connection.ts";
import { readAnswer, jsonOf, misanswered } from "./sandboxd-answer.ts";

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
    return this.#ask("GET", "/snapshot", {}, signal, placeSchema);
  }

  /** What the outcome of an installation in this container depends on, as a hash. */
  async system(signal: AbortSignal): Promise<string> {
    return (await this.#ask("GET", "/snapshot/system", {}, signal, systemSchema)).system;
  }

  /** Has the sandbox note its system as it is: a later plan of that has the changes. */
  async noteSystem(signal: AbortSignal): Promise<void> {
    await this.#ask("POST", "/snapshot/system", {}, signal, z.object({}));
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
    const call = { id: save, base, max, repack, isArchive: archive !== undefined, ...archive };
    const body = JSON.stringify(call);
    return this.#ask("POST", "/snapshot", {}, signal, planSchema, body);
  }

  /** Reads the new content of a save. */
  pack<T>(
    save: string,
    signal: AbortSignal,
    read: (body: ReadableStream<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return this.#stream("/snapshot/pack", save, signal, read);
  }

  /** Reads its manifest, after the pack. */
  manifest<T>(
    save: string,
    signal: AbortSignal,
    read: (body: ReadableStream<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    return this.#stream("/snapshot/manifest", save, signal, read);
  }

  done(save: string, signal: AbortSignal): Promise<Done> {
    return this.#ask("POST", "/snapshot/done", { id: save }, signal, doneSchema);
  }

  /** The account has the save: the next one is compared with it. */
  async commit(save: string, signal: AbortSignal): Promise<void> {
    await this.#ask("POST", "/snapshot/commit", { id: save }, signal, z.object({}));
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
    const { reads } = await this.#ask(
      "PUT",
      "/snapshot/restore",
      { id: snapshot, ...to },
      signal,
      readsSchema,
      manifest,
    );
    return reads;
  }

  /** Sends what the restore asked for, one range after the other. */
  async data(snapshot: string, body: ReadableStream, signal: AbortSignal): Promise<void> {
    await this.#ask("PUT", "/snapshot/data", { id: snapshot }, signal, z.object({}), body);
  }

  /** A body that breaks off, or cannot be kept, is not asked for again: the save begins anew. */
  async #stream<T>(
    path: string,
    save: string,
    signal: AbortSignal,
    read: (body: ReadableStream<Uint8Array>) => Promise<T>,
  ): Promise<T> {
    const outcome = await this.#send("GET", path, { id: save }, signal, undefined, async ({ body }) => {
      if (body === null) throw misanswered();
      return await read(body).then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      );
    });
    if ("error" in outcome) throw outcome.error;
    return outcome.value;
  }

  #ask<Schema extends z.ZodMiniType>(
    method: string,
    path: string,
    query: Record<string, string>,
    signal: AbortSignal,
    schema: Schema,
    body?: string | ReadableStream,
  ): Promise<z.infer<Schema>> {
    return this.#send(method, path, query, signal, body, (response) =>
      jsonOf(response, schema, SAVE_ANSWER_BYTES),
    );
  }

  #send<T>(
    method: string,
    path: string,
    query: Record<string, string>,
    signal: AbortSignal,
    body: string | ReadableStream | undefined,
    read: (response: Response) => Promise<T>,
  ): Promise<T> {
    return this.#connection.request(
      `${path}?${new URLSearchParams(query)}`,
      { method, body },
      signal,
      (response) => readAnswer(response, read, refusal),
    );
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
