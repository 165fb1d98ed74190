/** The data of operations, and its limits. The actor accepts sandboxd's results only within these limits. */
import * as z from "zod/mini";
import { size } from "./protocol.ts";

/** The largest JSON response with a list of files or a task's changes, in bytes. */
export const RESPONSE_BYTES = 8 * 1024 * 1024;
/** The largest JSON response about a save or a restore, in bytes. */
export const SAVE_RESPONSE_BYTES = 2 * 1024 * 1024;
/** The largest other JSON response, in bytes. */
export const SMALL_RESPONSE_BYTES = 256 * 1024;
/** The most bytes of an append, and of an edited file. sandboxd keeps these bytes in memory. */
export const APPEND_BYTES = 16 * 1024 * 1024;
export const EDITED_BYTES = 16 * 1024 * 1024;
export const DIFF_CHARS = 32 * 1024;
/** Limits of an edit's error: listed places of a repeated text, and characters of the nearest line. */
export const MAX_PLACES = 20;
export const NEAREST_CHARS = 300;

/** The largest size that the actor accepts. A file with holes can be larger: on a tmpfs, up to 2 ** 63 - 1 bytes. */
export const MAX_SIZE = 2 ** 50;

export function boundedSize(bytes: number): number {
  return Math.min(MAX_SIZE, bytes);
}

/**
 * A list. Unlike `z.array`, it does not check the items of a list that is too long, and stops at the first invalid item. Creating
 * zod's issues takes much more time than checking.
 */
export const listOf = <Item extends z.ZodMiniType>(item: Item, most: number) =>
  z.pipe(
    z.array(z.unknown()).check(z.maxLength(most)),
    z.transform((items, context) => {
      const checked: z.infer<Item>[] = [];
      for (const candidate of items) {
        const { success, data } = item.safeParse(candidate);
        if (success) checked.push(data);
        else {
          context.issues.push({ code: "custom", input: candidate });
          break;
        }
      }
      return checked;
    }),
  );

export const WORKSPACE = "/workspace";

export function absolute(path: string): string {
  const parts: string[] = [];
  for (const part of (path.startsWith("/") ? path : `${WORKSPACE}/${path}`).split("/")) {
    if (part === "..") parts.pop();
    else if (part !== "" && part !== ".") parts.push(part);
  }
  return `/${parts.join("/")}`;
}

declare const ofPath: unique symbol;
/** The mark lets the compiler tell paths from other texts. */
interface PathSchema extends z.ZodMiniPipe<z.ZodMiniString<string>, z.ZodMiniTransform<string, string>> {
  readonly [ofPath]: true;
}
const pathSchema = z.pipe(z.string().check(z.regex(/^[^\0]*$/)), z.transform(absolute)) as PathSchema;
export const path = (): PathSchema => pathSchema;
/** The names of the parameters that are paths, which may be optional. */
export type PathField<Shape> = {
  [Name in keyof Shape & string]: Shape[Name] extends PathSchema | z.ZodMiniOptional<PathSchema>
    ? Name
    : never;
}[keyof Shape & string];
export const isPath = (schema: unknown): boolean =>
  schema === pathSchema || (schema instanceof z.ZodMiniOptional && isPath(schema.def.innerType));
const digest = () => z.string().check(z.regex(/^[0-9a-f]{64}$/));
/** An entry's path, percent-encoded except for letters, digits and `-._~/`. Paths have at most 4,096 bytes. */
export const listCursor = () =>
  z.string().check(z.maxLength(3 * 4096), z.regex(/^(?:[\w.~/-]|%[0-9a-f]{2})+$/));

/** The largest image file that can be shown, if necessary scaled down, in bytes. */
export const IMAGE_BYTES = 8 * 1024 * 1024;
/** The most pixels of an image that is scaled. For each pixel, scaling takes up to four bytes of the sandbox's memory. */
export const IMAGE_PIXELS = 100_000_000;

/**
 * The largest image in a result. Model providers accept images of this side length and number of pixels without scaling. Base64
 * adds a third to the bytes, and some clients accept at most 1 MB.
 */
export const SHOWN_IMAGE = { side: 8000, pixels: 1_150_000, max: 700 * 1024 } as const;
export const shrinkOutcome = z.enum(["made", "no_pillow", "undecodable", "too_large"]);
export type ShrinkOutcome = z.infer<typeof shrinkOutcome>;
/** `unchanged`: the file itself can be shown. `unreadable`: the file is not a complete image. */
export const imageOutcome = z.enum([...shrinkOutcome.options, "unchanged", "unreadable"]);
export type ImageOutcome = z.infer<typeof imageOutcome>;

export const failureSchema = z.object({
  problem: z.enum([
    "missing",
    "directory",
    "not_directory",
    "special",
    /** The caller is confined, and the path leads out of /workspace and /tmp. `path` is its resolved form. */
    "outside",
    "too_large",
    /** The data of an upload or a restore ended early, or does not match its hash. */
    "cut",
    /** A form does not contain exactly one file. */
    "form",
    /** The platform is ending the container, so files do not change any more. */
    "ending",
    "not_text",
    /** The text of edit number `edit` (from 1) is missing, or occurs `count` times. */
    "absent",
    "repeated",
    /** The text exists, but with other line breaks: `code` is the file's kind, CRLF or LF. */
    "line_breaks",
    /** The program that the operation needs is missing. */
    "no_program",
    "system",
  ]),
  code: z.optional(z.string().check(z.regex(/^[A-Z0-9_]{1,40}$/))),
  path: z.optional(z.string().check(z.maxLength(8192))),
  /** The parameter whose path is the reason. Without it, the reason is the operation's first path. */
  field: z.optional(z.string().check(z.maxLength(40))),
  edit: z.optional(size()),
  count: z.optional(size()),
  /** The lines (from 1) with the text; for a missing text, the nearest line. */
  lines: z.optional(z.array(size()).check(z.maxLength(MAX_PLACES))),
  nearest: z.optional(z.string().check(z.maxLength(NEAREST_CHARS))),
  /**
   * For a missing path: the nearest existing parent directory; and the path that exists if the given path is resolved from a
   * session's directory instead of /workspace.
   */
  directory: z.optional(z.string().check(z.maxLength(8192))),
  elsewhere: z.optional(z.string().check(z.maxLength(8192))),
});

export type FileFailure = z.infer<typeof failureSchema>;

export const editsSchema = z.array(
  z.object({
    old_text: z.string().check(z.minLength(1)),
    new_text: z.string(),
    /** Whether to replace every occurrence. Otherwise there must be exactly one. */
    all: z.boolean(),
  }),
);

export type Edit = z.infer<typeof editsSchema>[number];

export const writtenSchema = z.object({
  size: size(),
  sha256: z.optional(digest()),
  /** For an edit: the number of replacements, and the change as a unified diff, possibly cut. */
  replaced: z.optional(size()),
  diff: z.optional(z.string().check(z.maxLength(DIFF_CHARS))),
});

export const statSchema = z.object({
  type: z.enum(["file", "directory"]),
  size: size(),
  /** Milliseconds since the epoch. */
  modified: z.number().check(z.gte(-8.64e15), z.lte(8.64e15)),
  sha256: z.optional(digest()),
});

export type FileStat = z.infer<typeof statSchema>;
export type WriteResult = z.infer<typeof writtenSchema>;
/** The most entries of one listing, and of the changes of a task. */
export const MAX_LISTED = 5000;

const entrySchema = z.object({
  path: z.string(),
  type: z.enum(["file", "directory", "symlink", "other"]),
  size: size(),
  /** Milliseconds since the epoch in transit; ISO 8601 for the caller. */
  modified: z.pipe(
    z.number().check(z.gte(-8.64e15), z.lte(8.64e15)),
    z.transform((ms) => new Date(ms).toISOString()),
  ),
});

export const listSchema = z.object({
  /** Sorted by the bytes of their paths. */
  entries: listOf(entrySchema, MAX_LISTED),
  /** The cursor of the last entry, if there are more entries. */
  next: z.optional(listCursor()),
});

export type ListedEntry = z.input<typeof entrySchema>;

/** The object is empty if measuring takes too long. */
export const usageSchema = z.object({ bytes: z.optional(size()) });
/** Background activity: processor time (`cpuMs`) within the time since the last measurement (`overMs`), and open connections. */
export const workSchema = z.object({ cpuMs: size(), overMs: size(), connections: size() });

export function taskDirectory(id: string): string {
  return `/var/lib/sandbox-mcp/tasks/${id}`;
}

export const CHANGES_DIFF = "changes.diff";
export const CHANGES_LIST = "changes.list";
/**
 * The subdirectory of a task's directory for the files of a continued conversation. `task.sh` copies them to the same paths in
 * the home directory.
 */
export const CONVERSATION = "conversation";
/** The longest changed path in characters. git's escape of a byte takes four characters. */
const CHANGED_CHARS = 4 * 4096 + 2;

/** The object is empty if the initial or final state cannot be determined. */
export const changesSchema = z.object({
  changes: z.optional(
    z.object({
      count: size(),
      diffBytes: size(),
      listBytes: size(),
      files: listOf(
        z.object({
          /** Relative to the scanned directory. Escaped as by git if it is not UTF-8. */
          path: z.string().check(z.maxLength(CHANGED_CHARS)),
          change: z.enum(["created", "changed", "deleted"]),
          /** `unnamed`: a file whose name is not UTF-8. */
          type: z.enum(["file", "link", "unnamed"]),
          size: size(),
        }),
        MAX_LISTED,
      ),
    }),
  ),
});

export type FoundChanges = NonNullable<z.infer<typeof changesSchema>["changes"]>;
