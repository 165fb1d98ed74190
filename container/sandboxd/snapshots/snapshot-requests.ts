/** The part of sandboxd's protocol that saves and restores state. */
import * as z from "zod/mini";
import { row } from "../operations.ts";
import { idSchema } from "../protocol.ts";
import { MAX_SIZE, SAVE_RESPONSE_BYTES, listOf, path } from "../shapes.ts";

export const MAX_LEFT = 20;
export const SNAPSHOT_ENTRIES = 200_000;
export const SNAPSHOT_BLOB_BYTES = 4 * 1024 * 1024;

const snapshotID = () => z.string().check(z.regex(/^[0-9a-f-]{1,64}$/));
/** How many files or bytes. */
export const count = () => z.number().check(z.int(), z.gte(0), z.lte(MAX_SIZE));

const emptyCall = { up: "none", down: "none", maxBytes: SAVE_RESPONSE_BYTES } as const;
/** Tells an attempt to restore a state from earlier attempts, whose requests may arrive late. */
const attemptID = snapshotID;
const ofSnapshot = { ...emptyCall, input: z.object({ id: snapshotID() }), result: z.object({}) } as const;
export const markSchema = z.object({ snapshot: z.optional(snapshotID()), isRestoring: z.boolean() });
export type Mark = z.infer<typeof markSchema>;
const workspaceStateSchema = z.extend(markSchema, { isEmpty: z.boolean() });
/** SHA-256 of the machine's kind and of the versions of the system that the container started with. User code can change it. */
const systemSchema = z.object({ system: z.string().check(z.regex(/^[0-9a-f]{64}$/)) });

const planCallSchema = z.object({
  id: snapshotID(),
  base: z.optional(snapshotID()),
  max: count(),
  repack: z.array(snapshotID()),
  /**
   * Whether this is a task's archive. No later save builds on an archive. If the sandbox did not start from `base`, everything
   * counts as new.
   */
  isArchive: z.optional(z.boolean()),
  /** If set, the save contains the files below `below` in the home directory whose path contains `id`, instead of the state. */
  conversation: z.optional(z.object({ below: path(), id: z.string().check(z.minLength(1)) })),
  /** Whether to check every file of the image, too, as before a stop. Otherwise a scan does so only every two minutes. */
  isThorough: z.optional(z.boolean()),
  /** Whether the actor knows of no changes. If no process was active since the last scan either, nothing is scanned. */
  isAtRest: z.optional(z.boolean()),
});

export type PlanCall = z.infer<typeof planCallSchema>;

const namedSchema = z.object({
  count: count(),
  names: listOf(z.string().check(z.maxLength(4096)), MAX_LEFT),
});

export type NamedFiles = z.infer<typeof namedSchema>;

const planSchema = z.object({
  /** `conflict`: the workspace was restored from another state than `base`. */
  state: z.enum(["unchanged", "changed", "conflict"]),
  files: count(),
  bytes: count(),
  /** Whether changes are left out because packages are being installed. */
  isIncomplete: z.optional(z.boolean()),
  left: z.object({
    count: count(),
    bytes: count(),
    largest: listOf(z.object({ path: z.string().check(z.maxLength(4096)), size: count() }), MAX_LEFT),
    /** Unreadable files, and sockets, pipes and devices. */
    unreadable: z.optional(namedSchema),
    special: z.optional(namedSchema),
    crowded: z.optional(namedSchema),
  }),
});

export type Plan = z.infer<typeof planSchema>;

const doneSchema = z.object({
  packs: listOf(z.object({ id: snapshotID(), length: count(), live: count() }), 1000),
  manifestBytes: count(),
  files: count(),
  bytes: count(),
  unreadable: z.optional(namedSchema),
  /** Whether the save may lack changes of an installation, or files of the last save that programs renamed all the time. */
  isIncomplete: z.optional(z.boolean()),
});

export type SavedSnapshot = z.infer<typeof doneSchema>;
/** The most pack ranges of a restore. */
const MAX_READS = 10_000;

const readsSchema = z.object({
  reads: listOf(z.object({ pack: snapshotID(), from: count(), to: count() }), MAX_READS),
  /** The paths that were not restored: `Restore.dropped`. */
  dropped: z.optional(namedSchema),
});

export type Read = z.infer<typeof readsSchema>["reads"][number];

export const snapshotRequests = {
  /** The server stops after the next saves, so programs yield the processors to these. */
  prioritize: row({
    ...emptyCall,
    route: "POST /snapshot/priority",
    input: z.object({}),
    result: z.object({}),
  }),
  mark: row({ ...emptyCall, route: "GET /snapshot", input: z.object({}), result: workspaceStateSchema }),
  system: row({ ...emptyCall, route: "GET /snapshot/system", input: z.object({}), result: systemSchema }),
  plan: row({
    ...emptyCall,
    route: "POST /snapshot",
    input: z.object({}),
    up: planCallSchema,
    result: planSchema,
  }),
  pack: row({ ...ofSnapshot, route: "GET /snapshot/pack", down: "stream" }),
  manifest: row({ ...ofSnapshot, route: "GET /snapshot/manifest", down: "stream" }),
  done: row({ ...ofSnapshot, route: "POST /snapshot/done", result: doneSchema }),
  /** The account has accepted the save, so the next save is compared with it. May be repeated. */
  commit: row({ ...ofSnapshot, route: "POST /snapshot/commit" }),
  /** Restores the manifest in the body: the sandbox's state, or with `task` that task's `CONVERSATION`. */
  restore: row({
    ...emptyCall,
    route: "PUT /snapshot/restore",
    input: z.object({ id: snapshotID(), attempt: attemptID(), task: z.optional(idSchema()) }),
    up: "stream",
    result: readsSchema,
  }),
  data: row({
    ...emptyCall,
    route: "PUT /snapshot/data",
    input: z.object({ id: snapshotID(), attempt: attemptID() }),
    up: "stream",
    result: z.object({}),
  }),
};

export type SnapshotRequests = typeof snapshotRequests;
