/** The requests about saved states of the workspace: the part of sandboxd's protocol that saves and restores. */
import * as z from "zod/mini";
import { row } from "../operations.ts";
import { idSchema } from "../protocol.ts";
import { SAVE_RESPONSE_BYTES, listOf, path } from "../shapes.ts";

/** How many files that are left out of a snapshot are named. */
export const MAX_LEFT = 20;

/** Files, directories and links that a snapshot holds at most. */
export const SNAPSHOT_ENTRIES = 200_000;

/** Bytes of the content of a file that are stored together. */
export const SNAPSHOT_BLOB_BYTES = 4 * 1024 * 1024;

const snapshotID = () => z.string().check(z.regex(/^[0-9a-f-]{1,64}$/));
const count = () => z.number().check(z.int(), z.gte(0), z.lte(2 ** 50));

const emptyCall = { up: "none", down: "none", maxBytes: SAVE_RESPONSE_BYTES } as const;
const ofSnapshot = { ...emptyCall, input: z.object({ id: snapshotID() }), result: z.object({}) } as const;

export const markSchema = z.object({ snapshot: z.optional(snapshotID()), isRestoring: z.boolean() });

export type Mark = z.infer<typeof markSchema>;

/** Whether it is empty a sandboxd of an earlier version does not say. */
export const workspaceStateSchema = z.extend(markSchema, { isEmpty: z.optional(z.boolean()) });

export type WorkspaceState = z.infer<typeof workspaceStateSchema>;

/** SHA-256 of the kind and the versions of what the container started with; user code can change it. */
export const systemSchema = z.object({ system: z.string().check(z.regex(/^[0-9a-f]{64}$/)) });

export const planCallSchema = z.object({
  id: snapshotID(),
  /** What the actor takes the workspace to have come from. */
  base: z.optional(snapshotID()),
  /** Bytes of files at most. */
  max: count(),
  /** Packs whose contents are sent again. */
  repack: z.array(snapshotID()),
  /** Of what a task leaves: no save follows it, and where the sandbox came from something else, all of it is new. */
  isArchive: z.optional(z.boolean()),
  /** Instead of the sandbox's state, what lies below `below` in the home directory and has `id` in its path. */
  conversation: z.optional(z.object({ below: path(), id: z.string().check(z.minLength(1)) })),
  /** Whether to look at every file of the image, too, as before an end; without, that is done now and then. */
  isThorough: z.optional(z.boolean()),
  /** Nobody has changed anything that the actor knows of: where no process has worked since the last look, none is taken. */
  isAtRest: z.optional(z.boolean()),
});

export type PlanCall = z.infer<typeof planCallSchema>;

/** Some things, of which the first are named. */
const namedSchema = z.object({
  count: count(),
  names: listOf(z.string().check(z.maxLength(4096)), MAX_LEFT),
});

export type NamedFiles = z.infer<typeof namedSchema>;

export const planSchema = z.object({
  /** `conflict`: the workspace came from something else than `base`. */
  state: z.enum(["unchanged", "changed", "conflict"]),
  files: count(),
  bytes: count(),
  left: z.object({
    /** Of the files that `max` does not hold. */
    count: count(),
    bytes: count(),
    largest: listOf(z.object({ path: z.string().check(z.maxLength(4096)), size: count() }), MAX_LEFT),
    /** What cannot be read, and sockets, pipes and devices. A sandboxd of an earlier version does not say. */
    unreadable: z.optional(namedSchema),
    special: z.optional(namedSchema),
    /** Directories that can be made again, whose files are too many. */
    crowded: z.optional(namedSchema),
  }),
});

export type Plan = z.infer<typeof planSchema>;

export const doneSchema = z.object({
  /** The packs that the snapshot refers to: their bytes, where they are new, and those that it needs. */
  packs: listOf(z.object({ id: snapshotID(), length: count(), live: count() }), 1000),
  manifestBytes: count(),
  files: count(),
  bytes: count(),
  /** As in the plan, with what turned out to be so when it was to be read. */
  unreadable: z.optional(namedSchema),
});

export type SavedSnapshot = z.infer<typeof doneSchema>;

/** Ranges of packs that a restore asks for at most: the answer is bounded, and each costs a request to R2. */
export const MAX_READS = 10_000;

export const readsSchema = z.object({
  reads: listOf(z.object({ pack: snapshotID(), from: count(), to: count() }), MAX_READS),
  /** What of the state is not restored, because the image is another. A sandboxd of an earlier version does not say. */
  dropped: z.optional(namedSchema),
});

export type Read = z.infer<typeof readsSchema>["reads"][number];

/** The requests about saved states of the workspace, as `operations.ts` has those about files. */
export const snapshotRequests = {
  /** What the workspace came from, or was last saved as, and whether it is empty. */
  mark: row({ ...emptyCall, route: "GET /snapshot", input: z.object({}), result: workspaceStateSchema }),
  /** What the outcome of an installation depends on. */
  system: row({ ...emptyCall, route: "GET /snapshot/system", input: z.object({}), result: systemSchema }),
  plan: row({
    ...emptyCall,
    route: "POST /snapshot",
    input: z.object({}),
    up: planCallSchema,
    result: planSchema,
  }),
  /** The contents that no pack of the base holds, one after the other. */
  pack: row({ ...ofSnapshot, route: "GET /snapshot/pack", down: "stream" }),
  /** The manifest, once the pack was read. */
  manifest: row({ ...ofSnapshot, route: "GET /snapshot/manifest", down: "stream" }),
  done: row({ ...ofSnapshot, route: "POST /snapshot/done", result: doneSchema }),
  /** The account has the save: the next one is compared with it. It may be told again. */
  commit: row({ ...ofSnapshot, route: "POST /snapshot/commit" }),
  /**
   * Begins a restore by the manifest in the body: of the sandbox's state, or of the conversation that a task goes on with, to
   * `CONVERSATION` in the task's directory.
   */
  restore: row({
    ...emptyCall,
    route: "PUT /snapshot/restore",
    input: z.object({ id: snapshotID(), task: z.optional(idSchema()) }),
    up: "stream",
    result: readsSchema,
  }),
  /** Takes what the restore asked for, one range after the other, and ends the restore. */
  data: row({ ...ofSnapshot, route: "PUT /snapshot/data", up: "stream" }),
};

export type SnapshotRequests = typeof snapshotRequests;
