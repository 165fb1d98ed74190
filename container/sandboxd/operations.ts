/**
 * The operations on a sandbox's files, one row each. The sandbox's actor calls them by these rows, and sandboxd has a handler for
 * each route. A row without `retry`, `changesState` or `confined` does not compile.
 *
 * Routes and parameters never change: a container may be older than the deployment, and must still be saved.
 */
import * as z from "zod/mini";
import { idSchema } from "./protocol.ts";
import {
  MAX_SIZE,
  RESPONSE_BYTES,
  SHOWN_IMAGE,
  SMALL_RESPONSE_BYTES,
  changesSchema,
  editsSchema,
  isPath,
  listCursor,
  listSchema,
  path,
  statSchema,
  usageSchema,
  workSchema,
  writtenSchema,
  imageOutcome,
  shrinkOutcome,
} from "./shapes.ts";

export interface Row {
  /** Method and path. Rows may share a route if they have the same input and result. */
  route: `${"GET" | "PUT" | "POST" | "DELETE"} /${string}`;
  /** The query's parameters. The client itself adds `id` and `confined`. */
  input: z.ZodMiniObject;
  /** The request's body: JSON of a schema, bytes, or a stream, which may take a day. */
  up: "none" | "bytes" | "stream" | z.ZodMiniType;
  /** The result, as the response's body. If the body has other content (`down`), each field is a header `sandboxd-<field>`. */
  result: z.ZodMiniObject;
  down: "none" | "bytes" | "stream";
  /** The most bytes of the response, counted as they arrive. The reader of a stream counts its bytes. */
  maxBytes: number | ((call: never) => number);
  /** Whether the result matches the call. The schema cannot check this, because it does not know the call. */
  fits?(result: never, call: never): boolean;
  /** Parameters that the client adds to every call. */
  always?: Readonly<Record<string, boolean>>;
}

export interface FileRow extends Row {
  /** What the operation does, for the message "<doing> <path> failed". */
  doing: string;
  /** The time limit of the response, in milliseconds. A request with a body has more time, and a stream a day. */
  timeoutMs: number;
}

export interface Policy {
  /** The required scope; undefined for work that does not touch the sandbox. */
  scope: "sandbox:read" | "sandbox:write" | undefined;
  changesState: boolean;
  /** Whether callers without `sandbox:exec` must stay below /workspace and /tmp: files elsewhere may be executed. */
  confined: boolean;
  /**
   * When a failed call is retried. `in_container`: in the next container, if the first one has ended. `always`: also after a
   * reset of the actor.
   */
  retry: "always" | "in_container" | "never";
  /**
   * `new`: starts any sandbox. `known`: starts only a sandbox that was used or configured before. `none`: fails if no container
   * runs. `glance`: like `none`, but does not wait, and does not count as use. An `Owner`'s `mayStart` can forbid starts that this
   * property allows.
   */
  start: "new" | "known" | "none" | "glance";
  /**
   * Limits the results for callers who may write but not read, because a result can reveal a file's content. These callers get
   * only these fields. After a failure, they get `reason` instead of the exact reason. False if results reveal nothing, or if the
   * scope is `sandbox:read`.
   */
  withoutReading: false | { fields: readonly string[]; reason: string };
}

export const row = <const One extends Row>(values: One): One => values;
const operation = <const One extends FileRow & Policy & Changing>(values: One): One => values;

/**
 * An operation that changes something needs `sandbox:write`, is confined, sets `changesState`, and is not retried after a reset of
 * the actor. It declares the parameters `confined` and `id`. A row that forgets one of these does not compile. The client repeats a
 * request after a broken connection, and sandboxd recognizes the repetition by its `id`.
 */
type Changing =
  | { scope: "sandbox:read" | undefined; confined: false; changesState: false }
  | {
      scope: "sandbox:write";
      confined: true;
      changesState: true;
      /** Each retry by the actor or the Worker has a new `id`, so a change whose actor was reset could take effect twice. */
      retry: "in_container" | "never";
      input: ChangeInput;
    };

type ChangeInput = z.ZodMiniObject<{
  confined: ReturnType<typeof flag>;
  id: ReturnType<typeof changeID>;
}>;

const count = () => z.coerce.number().check(z.int(), z.nonnegative());
const flag = () =>
  z.optional(
    z.pipe(
      z.literal("1"),
      z.transform((): boolean => true),
    ),
  );
const changeID = () => z.string().check(z.regex(/^[0-9a-f-]{1,64}$/));

/** A whole number in a header. */
const headerCount = () =>
  z.pipe(
    z.pipe(z.string().check(z.regex(/^\d{1,16}$/)), z.transform(Number)),
    z.number().check(z.lte(MAX_SIZE)),
  );
/** Milliseconds since the epoch; negative before 1970. */
const headerTime = () => z.pipe(z.string().check(z.regex(/^-?\d{1,16}$/)), z.transform(Number));

/** The default time limit of a response, in milliseconds: common clients give up after 60 s. */
const CALL_MS = 40_000;
/** The time limit for scaling an image, in milliseconds. It includes the time in the queue; one image may take 20 s. */
const IMAGE_MS = 30_000;
/** The time limit for scanning a task's changes, in milliseconds: a workspace can be large. */
const CHANGES_MS = 600_000;
/** The depth of a recursive listing. */
export const ANY_DEPTH = 1000;
const smallCall = { up: "none", down: "none", maxBytes: SMALL_RESPONSE_BYTES, timeoutMs: CALL_MS } as const;
const reads = { scope: "sandbox:read", changesState: false, confined: false, withoutReading: false } as const;
const changes = { scope: "sandbox:write", changesState: true, confined: true } as const;

/** A range of a file. Files in /proc and /sys report size 0 whatever they contain. */
const range = {
  ...smallCall,
  ...reads,
  route: "GET /files",
  input: z.object({ path: path(), offset: count(), limit: count() }),
  result: z.object({ size: headerCount(), modified: headerTime() }),
  doing: "Reading",
} as const;

/** Writes the body to a file atomically. Of several calls with the same id, one takes effect. */
const put = {
  ...smallCall,
  ...changes,
  route: "PUT /files",
  input: z.object({
    path: path(),
    id: changeID(),
    append: flag(),
    confined: flag(),
    max: z.optional(count()),
    digest: flag(),
    /**
     * The body's length, or the hexadecimal form of a marker that ends the body. Both reveal a truncated body, which some streams
     * do not report.
     */
    length: z.optional(count()),
    mark: z.optional(z.string().check(z.regex(/^[0-9a-f]{32}$/))),
    /** If the body is a form: its content type. The form's only file is written. A form needs no marker at its end. */
    form: z.optional(z.string()),
  }),
  result: writtenSchema,
  doing: "Writing",
  start: "new",
  withoutReading: false,
} as const;

/** Limits of Linux, in bytes. */
const NAME_MAX = 255;
export const PATH_MAX = 4096;

const list = {
  ...smallCall,
  ...reads,
  route: "GET /list",
  input: z.object({ path: path(), depth: count(), limit: count(), after: z.optional(listCursor()) }),
  result: listSchema,
  maxBytes: RESPONSE_BYTES,
  fits: ({ entries }: { entries: { path: string }[] }, { limit, depth }: { limit: number; depth: number }) =>
    entries.length <= limit &&
    entries.every((entry) => entry.path.length <= (depth > 1 ? PATH_MAX : NAME_MAX)),
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
  /** Lines from `offset` on (counted from 1), cut at `max` bytes. */
  readLines: operation({
    ...smallCall,
    ...reads,
    route: "GET /lines",
    input: z.object({ path: path(), offset: count(), limit: count(), max: count() }),
    /** Bytes and lines of the whole file. A last line without a line break counts. */
    result: z.object({ size: headerCount(), lines: headerCount() }),
    down: "bytes",
    maxBytes: ({ max }: { max: number }) => max,
    doing: "Reading",
    retry: "always",
    start: "new",
  }),
  /** Like `read`, but as a stream. The stream fails if the file is shorter than the reported size. */
  open: operation({ ...range, down: "stream", retry: "never", start: "known" }),
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
  /** Describes the file or directory at a path. With `digest`, it also returns a file's SHA-256, unless that takes too long. */
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
  /** Not retried in another container: that would create a file with only this piece. */
  append: operation({ ...put, up: "bytes", always: { append: true }, retry: "never" }),
  store: operation({ ...put, up: "stream", always: { digest: true }, retry: "never" }),
  edit: operation({
    ...smallCall,
    ...changes,
    route: "POST /edit",
    input: z.object({ path: path(), id: changeID(), confined: flag() }),
    up: editsSchema,
    result: writtenSchema,
    doing: "Editing",
    retry: "never",
    start: "new",
    withoutReading: {
      fields: ["size", "replaced"],
      reason: "an old_text is not in it, or occurs more than once",
    },
  }),
  remove: operation({
    ...smallCall,
    ...changes,
    route: "DELETE /files",
    input: z.object({ path: path(), id: changeID(), recursive: flag(), confined: flag() }),
    result: z.object({}),
    doing: "Removing",
    retry: "never",
    start: "known",
    withoutReading: false,
  }),
  /** Scales the image in the body down to `SHOWN_IMAGE`. If `image` is `made`, the response's body is a PNG or JPEG. */
  shrink: operation({
    ...smallCall,
    route: "POST /image",
    input: z.object({}),
    up: "bytes",
    result: z.object({ image: shrinkOutcome }),
    down: "bytes",
    maxBytes: SHOWN_IMAGE.max,
    timeoutMs: IMAGE_MS,
    doing: "Making an image smaller",
    scope: undefined,
    changesState: false,
    confined: false,
    retry: "always",
    start: "none",
    withoutReading: false,
  }),
};

const internal = {
  /** An image file, if necessary scaled down as by `shrink`, and the file's size, its pixels and its frames. */
  image: row({
    ...smallCall,
    route: "GET /image",
    input: z.object({ path: path() }),
    result: z.object({
      image: imageOutcome,
      size: count(),
      width: count(),
      height: count(),
      frames: count(),
    }),
    down: "bytes",
    maxBytes: SHOWN_IMAGE.max,
    timeoutMs: IMAGE_MS,
    doing: "Making an image smaller:",
  }),
  usage: row({
    ...smallCall,
    route: "GET /usage",
    input: z.object({ path: path() }),
    result: usageSchema,
    doing: "Measuring",
  }),
  work: row({
    ...smallCall,
    route: "GET /work",
    input: z.object({}),
    result: workSchema,
    doing: "Looking at processes",
  }),
  /** A task's changes: up to `limit` files, sorted by path. The files `CHANGES_LIST` and `CHANGES_DIFF` have all changes. */
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

export const fileRequests = { ...operations, ...internal };
export type OperationName = keyof typeof operations;
export type FileRequests = typeof fileRequests;
export type FileRequest = keyof FileRequests;
/** zod's type of an empty object forbids all fields, also those that an intersection adds. */
type Fields<Shape> = string extends keyof Shape ? {} : Shape;
export type Call<One extends Row> = Fields<z.output<One["input"]>>;

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
    ? /** `length` in bytes, if the response has it. */
      { body: ReadableStream<Uint8Array>; length: number | undefined }
    : {};

/** The parameters of a call that are paths, in the order of the row. */
export function pathsOf({ input }: Row, call: object): Record<string, string> {
  const given: Readonly<Record<string, unknown>> = { ...call };
  const paths = Object.entries(input.shape).flatMap(([field, schema]) => {
    const value = given[field];
    return isPath(schema) && typeof value === "string" ? [[field, value] as const] : [];
  });
  return Object.fromEntries(paths);
}

/** The path that an error is about; undefined for an operation without paths. */
export function failedPath(
  operationRow: Row,
  call: object,
  { field = "" }: { field?: string } = {},
): string | undefined {
  const paths = pathsOf(operationRow, call);
  return paths[field] ?? Object.values(paths)[0];
}

export const FAILED = 422;

export const headerOf = (field: string): string => `sandboxd-${field}`;

export function queryOf({ input }: Row, call: Readonly<Record<string, unknown>>): URLSearchParams {
  const query = new URLSearchParams();
  for (const name of Object.keys(input.shape)) {
    const value = call[name];
    if (value !== undefined && value !== false) query.set(name, value === true ? "1" : String(value));
  }
  return query;
}
