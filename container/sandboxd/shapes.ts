/** The data that operations take and answer, and its bounds. What sandboxd answers is believed within them only. */
import * as z from "zod/mini";
import { size } from "./protocol.ts";

/** Bytes of a JSON answer at most: of one that lists files, or the ranges of a restore; of a plan and the end of a save; of the others. */
export const RESPONSE_BYTES = 8 * 1024 * 1024;
export const SAVE_RESPONSE_BYTES = 2 * 1024 * 1024;
export const SMALL_RESPONSE_BYTES = 256 * 1024;

/** Bytes that one append may add, and of a file that is edited: they are kept in memory. */
export const APPEND_BYTES = 16 * 1024 * 1024;
export const EDITED_BYTES = 16 * 1024 * 1024;

/** Characters of a diff in an answer. */
export const DIFF_CHARS = 32 * 1024;

/** How many places of a text that is there more than once are named, and how much is shown of the line that is nearest to one that is not there. */
export const MAX_PLACES = 20;
export const NEAREST_CHARS = 300;

/**
 * A list of at most so many items. Other than `z.array` it looks at no item behind one that is wrong, and at none where there are
 * too many: a schema makes some issues for each wrong item, which cost far more than the item did.
 */
export const listOf = <Item extends z.ZodMiniType>(item: Item, most: number) =>
  z.pipe(
    z.array(z.unknown()).check(z.maxLength(most)),
    z.transform((items, context) => {
      const checked: z.infer<Item>[] = [];
      for (const one of items) {
        const { success, data } = item.safeParse(one);
        if (success) checked.push(data);
        else {
          context.issues.push({ code: "custom", input: one });
          break;
        }
      }
      return checked;
    }),
  );

/** What paths are relative to. */
export const WORKSPACE = "/workspace";

/** `path` as an absolute one: relative to /workspace, with `.` and `..` resolved. */
export function absolute(path: string): string {
  const parts: string[] = [];
  for (const part of (path.startsWith("/") ? path : `${WORKSPACE}/${path}`).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** A path, which becomes absolute. */
export const path = () => z.pipe(z.string().check(z.regex(/^[^\0]*$/)), z.transform(absolute));
const digest = () => z.string().check(z.regex(/^[0-9a-f]{64}$/));
/** The path of an entry, whose bytes are percent-encoded but for letters, digits and `-._~/`. A path has 4,096 bytes at most. */
export const listCursor = () =>
  z.string().check(z.maxLength(3 * 4096), z.regex(/^(?:[\w.~/-]|%[0-9a-f]{2})+$/));

/** Bytes of an image that is to be made smaller at most. */
export const IMAGE_BYTES = 8 * 1024 * 1024;

/**
 * The largest image in a result: its longest side and its pixels, the most that providers of models take without shrinking it
 * themselves, and its bytes. Base64 adds a third, and some clients take 1 MB at most.
 */
export const SHOWN_IMAGE = { side: 8000, pixels: 1_150_000, max: 700 * 1024 } as const;

/** What became of an image that was to be made smaller. */
export const imageMade = z.enum(["made", "no_pillow", "undecodable", "too_large"]);
export type ImageMade = z.infer<typeof imageMade>;

export const failureSchema = z.object({
  problem: z.enum([
    "missing",
    "directory",
    "not_directory",
    /** A device, a socket or a pipe. */
    "special",
    /** Confined, and not below /workspace or /tmp: `path` says where it leads. */
    "outside",
    "too_large",
    /** The body broke off. */
    "cut",
    /** The body is a form, and does not hold one file. */
    "form",
    /** The container ends. */
    "ending",
    /** It is edited, and is no UTF-8. */
    "not_text",
    /** What edit number `edit`, counted from 1, is to replace is not there, or `count` times. */
    "absent",
    "repeated",
    /** It is there, but with the other line breaks: the file has `code`, CRLF or LF. */
    "line_breaks",
    /** The system refused: `code` says with which error. */
    "system",
  ]),
  code: z.optional(z.string().check(z.regex(/^[A-Z0-9_]{1,40}$/))),
  path: z.optional(z.string().check(z.maxLength(8192))),
  edit: z.optional(size()),
  count: z.optional(size()),
  /** The lines, counted from 1, that the text is on; of one that is not there the one that is nearest to it. */
  lines: z.optional(z.array(size()).check(z.maxLength(MAX_PLACES))),
  /** What is on the nearest line. */
  nearest: z.optional(z.string().check(z.maxLength(NEAREST_CHARS))),
  /** Of a missing path: the nearest directory above it, and the path of the same name below the directory of a session. */
  directory: z.optional(z.string().check(z.maxLength(8192))),
  elsewhere: z.optional(z.string().check(z.maxLength(8192))),
});

export type FileFailure = z.infer<typeof failureSchema>;

/** What to replace in a file, one after the other, each in what the one before has made. */
export const editsSchema = z.array(
  z.object({
    old_text: z.string().check(z.minLength(1)),
    new_text: z.string(),
    /** Wherever it is; without, it must be there once. */
    all: z.boolean(),
  }),
);

export type Edit = z.infer<typeof editsSchema>[number];

export const writtenSchema = z.object({
  /** Bytes of the file now. */
  size: size(),
  sha256: z.optional(digest()),
  /** Of an edit: how many places were replaced, and the change as a unified diff, which may be cut off. */
  replaced: z.optional(size()),
  diff: z.optional(z.string().check(z.maxLength(DIFF_CHARS))),
});

export const statSchema = z.object({
  type: z.enum(["file", "directory"]),
  /** Bytes. */
  size: size(),
  /** Milliseconds since the epoch. */
  modified: z.number().check(z.gte(-8.64e15), z.lte(8.64e15)),
  sha256: z.optional(digest()),
});

export type FileStat = z.infer<typeof statSchema>;

export type Written = z.infer<typeof writtenSchema>;

/** Entries of a listing at most. */
export const MAX_LISTED = 5000;

const entrySchema = z.object({
  /** Relative to what is listed. */
  path: z.string(),
  type: z.enum(["file", "directory", "symlink", "other"]),
  /** Bytes. */
  size: size(),
  /** Milliseconds since the epoch on the way; ISO 8601 for the caller. */
  modified: z.pipe(
    z.number().check(z.gte(-8.64e15), z.lte(8.64e15)),
    z.transform((ms) => new Date(ms).toISOString()),
  ),
});

export const listSchema = z.object({
  /** In the order of the bytes of their paths. */
  entries: listOf(entrySchema, MAX_LISTED),
  /** Where there is more: the cursor of the last entry. */
  next: z.optional(listCursor()),
});

export type FileEntry = z.output<typeof entrySchema>;

/** An entry and a listing as sandboxd makes them. */
export type Listed = z.input<typeof entrySchema>;

export interface Listing {
  entries: Listed[];
  next?: string;
}

/** Nothing where counting takes too long. */
export const usageSchema = z.object({ bytes: z.optional(size()) });

/** What programs did since the last look: processor time and the time between, milliseconds, and connections that are open now. */
export const workSchema = z.object({ cpuMs: size(), overMs: size(), connections: size() });

/** The directory of a task's own files in the sandbox. */
export function taskDirectory(id: string): string {
  return `/var/lib/sandbox-mcp/tasks/${id}`;
}

/** Files in it: a diff of what the task changed, and a line for each file. */
export const CHANGES_DIFF = "changes.diff";
export const CHANGES_LIST = "changes.list";

/** A directory in it: the conversation that the task goes on with, as it lies in the home directory. */
export const CONVERSATION = "conversation";

/** Characters of a changed path: where it is escaped, each byte takes four. */
const CHANGED_CHARS = 4 * 4096 + 2;

/** Nothing where what there was at the start is not known, or the end cannot be compared with it. */
export const changesSchema = z.object({
  changes: z.optional(
    z.object({
      /** How many there are, and the bytes of `CHANGES_DIFF` and `CHANGES_LIST`. */
      count: size(),
      diffBytes: size(),
      listBytes: size(),
      files: listOf(
        z.object({
          /** Relative to the directory. One that is no UTF-8 is escaped as git does it. */
          path: z.string().check(z.maxLength(CHANGED_CHARS)),
          change: z.enum(["created", "changed", "deleted"]),
          /** `unnamed`: its name is no UTF-8. */
          type: z.enum(["file", "link", "unnamed"]),
          /** Bytes; 0 for a deleted one. */
          size: size(),
        }),
        MAX_LISTED,
      ),
    }),
  ),
});

export type FoundChanges = NonNullable<z.infer<typeof changesSchema>["changes"]>;
