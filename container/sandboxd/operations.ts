/**
 * The operations on a sandbox's files: one row for each. The actor's `operate` and its client of sandboxd follow the rows, and
 * sandboxd has a handler for each route. A row that says nothing of retries, saves or confinement does not compile.
 *
 * The routes and parameters stay: a container may be older than the deployment that talks to it, and must still be saved.
 */
import * as z from "zod/mini";
import { idSchema } from "./protocol.ts";
import {
  RESPONSE_BYTES,
  SHOWN_IMAGE,
  SMALL_RESPONSE_BYTES,
  changesSchema,
  editsSchema,
  imageMade,
  listCursor,
  listSchema,
  path,
  statSchema,
  usageSchema,
  workSchema,
  writtenSchema,
} from "./shapes.ts";

/** How sandboxd is asked, and answers. */
export interface Row {
  /** Method and path. A route may serve several rows, which then have the same input and result. */
  route: `${"GET" | "PUT" | "POST" | "DELETE"} /${string}`;
  /** The parameters of the query. The client itself adds `id` and `confined`. */
  input: z.ZodMiniObject;
  /** What the body of the request is: JSON of a schema, bytes, or a stream, for which there is no time limit. */
  up: "none" | "bytes" | "stream" | z.ZodMiniType;
  /** The answer. Where the body is something else, each field is a header `sandboxd-<field>`. */
  result: z.ZodMiniObject;
  down: "none" | "bytes" | "stream";
  /** Bytes of the answer at most, counted as they arrive; of a stream its reader counts them. */
  maxBytes: number | ((call: never) => number);
  /** Whether the result is within what was asked for, where the schema alone cannot say. */
  fits?(result: never, call: never): boolean;
  /** Parameters that the row itself gives. */
  always?: Readonly<Record<string, boolean>>;
}

/** A row about files. */
export interface FileRow extends Row {
  /** What it does, for "<doing> <path> failed". */
  doing: string;
  /** How long the answer may take, milliseconds. The bytes of a request have more, and a stream has no limit. */
  timeoutMs: number;
}

/** What the actor does about an operation that a caller asks for. */
export interface Policy {
  /** The scope that the owner must have; undefined for work that touches nothing of the sandbox. */
  scope: "sandbox:read" | "sandbox:write" | undefined;
  /** Whether the workspace is saved afterwards. */
  changesState: boolean;
  /** Whether it stays below /workspace and /tmp for an owner without `sandbox:exec`, because others may run what lies elsewhere. */
  confined: boolean;
  /**
   * Whether it is repeated: `always` in the next container where this one is gone, and in the next actor where this one was reset;
   * `in_container` where the container is gone only; `never`.
   */
  retry: "always" | "in_container" | "never";
  /**
   * What it may start: `new` also a sandbox that was never used, `known` only one that was, `none` no container. A `glance` starts none,
   * waits for none and is no use of the sandbox. An owner's `mayStart` can only lower it.
   */
  start: "new" | "known" | "none" | "glance";
}

/** A row as it is, with its own types. */
export const row = <const One extends Row>(one: One): One => one;
const operation = <const One extends FileRow & Policy & Confinement>(one: One): One => one;

/** What is confined takes that as a parameter: a row that forgets it does not compile. */
type Confinement =
  | { confined: false; changesState: false }
  | { confined: true; input: z.ZodMiniObject<{ confined: ReturnType<typeof flag> }> };

const count = () => z.coerce.number().check(z.int(), z.nonnegative());
const flag = () =>
  z.optional(
    z.pipe(
      z.literal("1"),
      z.transform((): boolean => true),
    ),
  );
const writeID = () => z.string().check(z.regex(/^[0-9a-f-]{1,64}$/));

/** A whole number in a header. No sandbox has more bytes or lines than 2 ** 50. */
const headerCount = () =>
  z.pipe(
    z.pipe(z.string().check(z.regex(/^\d{1,16}$/)), z.transform(Number)),
    z.number().check(z.lte(2 ** 50)),
  );
/** Milliseconds since the epoch, before which files can have been changed too. */
const headerTime = () => z.pipe(z.string().check(z.regex(/^-?\d{1,16}$/)), z.transform(Number));

/** How long an answer may take, milliseconds: common clients give up after 60 s. */
const CALL_MS = 40_000;

/** How long making an image smaller may take, milliseconds: others may be before it, and each has 20 s. */
const IMAGE_MS = 30_000;

/** How long looking through what a task has left may take, milliseconds: a workspace can be large. */
const CHANGES_MS = 600_000;

/** The depth of a listing of all that is below a directory. */
export const ANY_DEPTH = 1000;

/** A question without a body, and a short answer as JSON: rows say what is otherwise. */
const smallCall = { up: "none", down: "none", maxBytes: SMALL_RESPONSE_BYTES, timeoutMs: CALL_MS } as const;

const reads = { scope: "sandbox:read", changesState: false, confined: false } as const;
const changes = { scope: "sandbox:write", changesState: true, confined: true } as const;

/** A range of a file. Files below /proc and /sys report a size of 0, whatever they hold. */
const range = {
  ...smallCall,
  ...reads,
  route: "GET /files",
  input: z.object({ path: path(), offset: count(), limit: count() }),
  /** Of the whole file: bytes, and milliseconds since the epoch. */
  result: z.object({ size: headerCount(), modified: headerTime() }),
  doing: "Reading",
} as const;

/** Writes the body to a file, atomically; a call of the same id is carried out once. */
const put = {
  ...smallCall,
  ...changes,
  route: "PUT /files",
  input: z.object({
    path: path(),
    id: writeID(),
    append: flag(),
    confined: flag(),
    /** Bytes at most. */
    max: z.optional(count()),
    /** The answer has the SHA-256 of the body. */
    digest: flag(),
    /**
     * How the end of a body is told from where it broke off, which looks the same behind some streams: by its length in
     * bytes, or by these bytes behind it, in hexadecimal.
     */
    length: z.optional(count()),
    mark: z.optional(z.string().check(z.regex(/^[0-9a-f]{32}$/))),
    /** The body is a form of this content type, and its one file is written. Its end shows by itself. */
    form: z.optional(z.string()),
  }),
  result: writtenSchema,
  doing: "Writing",
  start: "new",
} as const;

/** The entries of a directory after that of a cursor, from the first on without one. */
const list = {
  ...smallCall,
  ...reads,
  route: "GET /list",
  input: z.object({ path: path(), depth: count(), limit: count(), after: z.optional(listCursor()) }),
  result: listSchema,
  maxBytes: RESPONSE_BYTES,
  fits: ({ entries }: { entries: unknown[] }, { limit }: { limit: number }) => entries.length <= limit,
  doing: "Listing",
  retry: "always",
} as const;

export const operations = {
  read: operation({
    ...range,
    down: "bytes",
    maxBytes: ({ limit }: { limit: number }) => limit,
    retry: "always",
    start: "new",
  }),
  /** Lines from `offset` on, counted from 1, cut at `max` bytes. */
  readLines: operation({
    ...smallCall,
    ...reads,
    route: "GET /lines",
    input: z.object({ path: path(), offset: count(), limit: count(), max: count() }),
    /** Of the whole file: bytes, and lines with a last one without a line break. */
    result: z.object({ size: headerCount(), lines: headerCount() }),
    down: "bytes",
    maxBytes: ({ max }: { max: number }) => max,
    doing: "Reading",
    retry: "always",
    start: "new",
  }),
  /** As `read`, as a stream, which fails where the file turns out to be shorter. */
  open: operation({ ...range, down: "stream", retry: "never", start: "known" }),
  /** A directory as an archive that is made while it is sent. */
  archive: operation({
    ...smallCall,
    ...reads,
    route: "GET /archive",
    input: z.object({ path: path(), format: z.enum(["tar.gz", "zip"]) }),
    result: z.object({}),
    down: "stream",
    doing: "Packing",
    retry: "never",
    start: "known",
  }),
  list: operation({ ...list, start: "new" }),
  glance: operation({ ...list, start: "glance" }),
  /** What a path leads to; with `digest` also the SHA-256 of a file, unless that takes too long. */
  stat: operation({
    ...smallCall,
    ...reads,
    route: "GET /stat",
    input: z.object({ path: path(), digest: flag() }),
    result: statSchema,
    doing: "Reading",
    retry: "always",
    start: "known",
  }),
  write: operation({ ...put, up: "bytes", retry: "in_container" }),
  /** In another container, one that is repeated would make a file of this piece alone. */
  append: operation({ ...put, up: "bytes", always: { append: true }, retry: "never" }),
  store: operation({ ...put, up: "stream", always: { digest: true }, retry: "never" }),
  /** Replaces parts of a text file, all of them or none; else as `write`. */
  edit: operation({
    ...smallCall,
    ...changes,
    route: "POST /edit",
    input: z.object({ path: path(), id: writeID(), confined: flag() }),
    up: editsSchema,
    result: writtenSchema,
    doing: "Editing",
    retry: "never",
    start: "new",
  }),
  /** Removes a file, a symbolic link or, `recursive`, a directory. */
  remove: operation({
    ...smallCall,
    ...changes,
    route: "DELETE /files",
    input: z.object({ path: path(), recursive: flag(), confined: flag() }),
    result: z.object({}),
    doing: "Removing",
    retry: "never",
    start: "known",
  }),
  /** Makes the image in the body smaller, to within `SHOWN_IMAGE`: the answer is a PNG or JPEG where it is `made`. */
  shrink: operation({
    ...smallCall,
    route: "POST /image",
    input: z.object({}),
    up: "bytes",
    result: z.object({ image: imageMade }),
    down: "bytes",
    maxBytes: SHOWN_IMAGE.max,
    timeoutMs: IMAGE_MS,
    doing: "Making an image smaller",
    scope: undefined,
    changesState: false,
    confined: false,
    retry: "always",
    start: "none",
  }),
};

/** What only the actor itself asks. */
const internal = {
  /** Bytes of the files below a directory. */
  usage: row({
    ...smallCall,
    route: "GET /usage",
    input: z.object({ path: path() }),
    result: usageSchema,
    doing: "Measuring",
  }),
  /** What programs do in the background, since it was asked last. */
  work: row({
    ...smallCall,
    route: "GET /work",
    input: z.object({}),
    result: workSchema,
    doing: "Looking at processes",
  }),
  /**
   * What a task changed in its directory: up to `limit` files, ordered by path. All of them are named in `CHANGES_LIST` of
   * the task's own directory, and `CHANGES_DIFF` there is the diff.
   */
  changes: row({
    ...smallCall,
    route: "POST /changes",
    input: z.object({ path: path(), task: idSchema(), limit: count() }),
    result: changesSchema,
    maxBytes: RESPONSE_BYTES,
    fits: (found: z.output<typeof changesSchema>, { limit }: { limit: number }) =>
      (found.changes?.files.length ?? 0) <= limit,
    timeoutMs: CHANGES_MS,
    doing: "Looking for changes in",
  }),
};

/** All that sandboxd is asked about files. */
export const fileRequests = { ...operations, ...internal };

export type OperationName = keyof typeof operations;
export type FileRequests = typeof fileRequests;
export type FileRequest = keyof FileRequests;

/** The type of an object without fields has none, other than zod's, which forbids all. */
type Fields<Shape> = string extends keyof Shape ? {} : Shape;

/** Parameters as both ends hold them. */
export type Call<One extends Row> = Fields<z.output<One["input"]>>;

/** What a caller gives and gets. The client adds `id` and `confined`. */
export type Input<Name extends FileRequest> = Omit<Call<FileRequests[Name]>, "id" | "confined"> &
  Content<FileRequests[Name]["up"]>;
export type Result<Name extends FileRequest> = ResultOf<FileRequests[Name]>;
export type ResultOf<One extends Row> = Fields<z.output<One["result"]>> & Payload<One["down"]>;

export type Content<Up> = Up extends z.ZodMiniType
  ? { body: z.input<Up> }
  : Up extends "bytes"
    ? { body: Uint8Array }
    : Up extends "stream"
      ? { body: ReadableStream }
      : {};
type Payload<Down> = Down extends "bytes"
  ? { bytes: Uint8Array }
  : Down extends "stream"
    ? /** `length` in bytes, where the answer says it. */
      { body: ReadableStream<Uint8Array>; length: number | undefined }
    : {};

/** The status of an answer that says why something failed: a `failureSchema`. */
export const FAILED = 422;

/** The header that carries a field of a result. */
export const headerOf = (field: string): string => `sandboxd-${field}`;

/** The query of a call: what its row has no parameter for is left out. */
export function queryOf({ input }: Row, call: Readonly<Record<string, unknown>>): URLSearchParams {
  const query = new URLSearchParams();
  for (const name of Object.keys(input.shape)) {
    const value = call[name];
    if (value !== undefined && value !== false) query.set(name, value === true ? "1" : String(value));
  }
  return query;
}
