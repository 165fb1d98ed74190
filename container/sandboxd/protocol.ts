/**
 * The protocol between a sandbox's actor (its Durable Object) and sandboxd: one WebSocket for runs, and plain HTTP requests to the
 * same port for files. Both ends import this file and check every message. User code is root in a sandbox and can replace sandboxd,
 * so the actor accepts only messages within these bounds.
 *
 * On the WebSocket, calls go to sandboxd and events come back, each a text message of JSON. Output comes in binary messages:
 *
 *   byte 0      1, the kind of message
 *   byte 1      the stream: 0 stdout, 1 stderr
 *   byte 2      length of the run's id, then the id in ASCII
 *   8 bytes     offset of the data in its stream, a big-endian double
 *   the rest    the data
 *
 * A gap between offsets means that the bytes in between were dropped, because the log is full.
 */
import * as z from "zod/mini";

/** sandboxd's port in the image. Previews must not use it. */
export const SANDBOXD_PORT = 8671;

/**
 * The header with the token that the actor gave sandboxd. There is a token because other sandboxes may reach the port. A
 * sandboxd without a token accepts all requests.
 */
export const TOKEN_HEADER = "x-sandboxd-token";
export const TOKEN_VARIABLE = "SANDBOXD_TOKEN";
/**
 * sandboxd sends a POST to this host before the container ends, so that the actor saves the workspace. The response 204 means
 * that the workspace is saved.
 */
export const SERVER_HOST = "sandbox-mcp.internal";
export const ENDING_PATH = "/ending";
export const PREVIEW_PORT = "x-sandboxd-port";
/**
 * How long a program behind a preview may take to begin its response after the last part of the request, in milliseconds: browsers
 * wait about as long. Without this limit, 192 visitors who disconnected before could end a preview for everybody: the actor's
 * request continues without its visitor until the response begins.
 */
export const PREVIEW_RESPONSE_MS = 300_000;

/**
 * The header of sandboxd's error responses to previews: `refused` (nothing listens), `broken` (cut off), `tls`, or `foreign` (not
 * HTTP).
 */
export const PREVIEW_ERROR = "x-sandboxd-error";
export type PreviewError = "refused" | "broken" | "tls" | "foreign";
/** A header of sandboxd's response to `GET /`: the number of open requests and WebSockets of previews. */
export const OPEN_PREVIEWS = "x-sandboxd-previews";
/** A header of sandboxd's response to `GET /`: whether it is stopping with its container. */
export const IS_ENDING = "x-sandboxd-ending";
/** A header of `GET /` with a port, and of its response: whether a program listens there. */
export const IS_LISTENING = "x-sandboxd-listening";
/** The most output bytes in one message: the platform limits WebSocket messages to 1 MiB. */
export const PIECE_BYTES = 256 * 1024;
/**
 * The most bytes of one stream that sandboxd has sent and the actor has not stored. The actor has 128 MB of memory for
 * everything.
 */
export const WINDOW_BYTES = 4 * 1024 * 1024;
/** The same for all streams of a sandbox together. At this limit, each stream still sends LEAST_WINDOW_BYTES ahead. */
export const SHARED_WINDOW_BYTES = 2 * WINDOW_BYTES;
export const LEAST_WINDOW_BYTES = 64 * 1024;
/** The longest event that the actor accepts. */
export const EVENT_CHARS = 16 * 1024;
/** How many bytes callers see of a stream's beginning and end. sandboxd sends the last bytes even if the log is full. */
export const SHOWN_END_BYTES = 16 * 1024;

export const idSchema = () => z.string().check(z.regex(/^[0-9a-z]{1,64}$/));
export const sessionName = () => z.string().check(z.regex(/^[a-z0-9_-][a-z0-9._-]{0,63}$/));
export const size = () => z.number().check(z.int(), z.nonnegative());

export const MAX_CELLS = 1000;
/** The most variables of a sandbox, and bytes of all names and values together. */
export const MAX_VARIABLES = 100;
export const VARIABLES_BYTES = 64 * 1024;

/**
 * The variables of a sandbox. Each has the version that set it, or removed it (null). A session or kernel applies only versions
 * newer than the last one that it applied, so that its own later changes stay.
 */
const variables = z.object({
  version: size(),
  entries: z.array(
    z.object({
      name: z.string().check(z.regex(/^[A-Za-z_][A-Za-z0-9_]*$/)),
      value: z.nullable(z.string()),
      version: size(),
    }),
  ),
});

export type Variables = z.infer<typeof variables>;

/** Starts a command, or follows it if it was started before: a command never starts twice. */
const start = z.object({
  type: z.literal("start"),
  id: idSchema(),
  session: sessionName(),
  command: z.string(),
  cwd: z.optional(z.string()),
  env: z.optional(z.record(z.string(), z.string())),
  variables: z.optional(variables),
  stdin: z.optional(z.string()),
  /** Whether the command runs in a pseudo terminal that accepts `input`. `env` has the terminal's size as LINES and COLUMNS. */
  interactive: z.optional(z.boolean()),
  /** Milliseconds after which sandboxd itself ends the command, in case the actor does not. */
  timeoutMs: size(),
});

const follow = z.object({ type: z.literal("follow"), id: idSchema(), stdout: size(), stderr: size() });

/** A process by its pid and its start time, because pids are reused. The start time is in clock ticks since boot. */
export interface KernelProcess {
  pid: number;
  started: number;
}

/** Requests the output of code from these offsets on, and an event when the kernel's process ends. */
const code = z.object({
  type: z.literal("code"),
  id: idSchema(),
  pid: z.number().check(z.int(), z.positive()),
  started: size(),
  stdout: size(),
  stderr: size(),
});

/** The kernel has responded: the files of the code's output are complete. */
const finish = z.object({ type: z.literal("finish"), id: idSchema() });
/** How many bytes of each stream the actor has stored. The sandbox may delete these bytes. */
const stored = z.object({ type: z.literal("stored"), id: idSchema(), stdout: size(), stderr: size() });
/** The actor stores no more of this stream: it needs only the last bytes. */
const full = z.object({ type: z.literal("full"), id: idSchema(), stream: z.enum(["stdout", "stderr"]) });

/**
 * For a command, TERM sends SIGTERM to all its processes, and SIGKILL two seconds later; KILL sends SIGKILL at once. For code, INT
 * interrupts the kernel, TERM ends the code's processes, and KILL ends the kernel too.
 */
const kill = z.object({ type: z.literal("kill"), id: idSchema(), signal: z.enum(["INT", "TERM", "KILL"]) });

const cells = () => z.number().check(z.int(), z.gte(1), z.lte(MAX_CELLS));
const terminalSize = z.object({ rows: cells(), columns: cells() });

/** Resizes an interactive run's terminal, then types into it; confirmed by `typed`. `key` is unique per call. */
const input = z.object({
  type: z.literal("input"),
  id: idSchema(),
  key: z.string(),
  text: z.string(),
  size: z.optional(terminalSize),
});

const forget = z.object({ type: z.literal("forget"), ids: z.array(idSchema()) });
/**
 * Tells sandboxd that code has ended that sandboxd did not follow. If child processes of this code listen on a port later, the next
 * run that finds the port reports it.
 */
const expect = z.object({ type: z.literal("expect"), id: idSchema() });
const ping = z.object({ type: z.literal("ping") });

export const callSchema = z.discriminatedUnion("type", [
  start,
  follow,
  code,
  finish,
  stored,
  full,
  kill,
  input,
  forget,
  expect,
  ping,
]);

export type Call = z.infer<typeof callSchema>;
export type StartCall = z.infer<typeof start>;
export type TerminalSize = z.infer<typeof terminalSize>;
export type Signal = z.infer<typeof kill>["signal"];
export const MAX_PORTS = 20;

export const endSchema = z.object({
  /** Exit status, or 128 + the signal that ended the command. */
  status: z.number().check(z.int(), z.gte(0), z.lte(255)),
  stdout: size(),
  stderr: size(),
  timedOut: z.optional(z.boolean()),
  /** Some output may be missing: a copier was killed or stopped, user code changed the file, or the disk was full (`noSpace`). */
  cut: z.optional(z.boolean()),
  noSpace: z.optional(z.boolean()),
  /** The exit status is unknown, because the command's keeper (keeper.sh) was killed. `status` is a substitute. */
  lost: z.optional(z.boolean()),
  /** The session's current directory, unless it is /workspace. */
  cwd: z.optional(z.string().check(z.maxLength(4096))),
});

export const eventSchema = z.discriminatedUnion("type", [
  z.object({ type: z.literal("running"), id: idSchema() }),
  /** The end of a run. All output is sent before it. */
  z.extend(endSchema, { type: z.literal("ended"), id: idSchema() }),
  /** All ports that the run's programs listen on. Replaces earlier reports. */
  z.object({
    type: z.literal("listening"),
    id: idSchema(),
    ports: z.array(z.number().check(z.int(), z.gte(1), z.lte(65_535))).check(z.maxLength(MAX_PORTS)),
  }),
  /** The end of code. All output is sent before it, and the processes that a `kill` message ends are gone. */
  z.object({
    type: z.literal("settled"),
    id: idSchema(),
    isKernelGone: z.boolean(),
    /** How the kernel died, if that is known. */
    cause: z.optional(z.string().check(z.maxLength(100))),
  }),
  /** The run is unknown: it never started, or its files are gone. */
  z.object({ type: z.literal("unknown"), id: idSchema() }),
  z.object({
    type: z.literal("refused"),
    id: idSchema(),
    reason: z.enum(["exhausted", "unwritable", "damaged", "no_terminal", "no_directory", "ending"]),
    message: z.string().check(z.maxLength(1000)),
  }),
  /** The number of accepted bytes of an `input`; 0 if nothing can read them. */
  z.object({
    type: z.literal("typed"),
    id: idSchema(),
    key: z.string().check(z.maxLength(64)),
    bytes: size(),
  }),
  z.object({ type: z.literal("pong") }),
]);

export type Event = z.infer<typeof eventSchema>;

/**
 * The mark of a run's processes. It is their limit of file locks, which Linux stores but does not enforce. Child processes
 * inherit it, and unlike environment variables and process groups, programs do not change it by accident.
 */
export function markOf(id: string): bigint {
  let mark = 0n;
  for (const digit of id.replace(/t$/, "").slice(-12)) mark = mark * 36n + BigInt(Number.parseInt(digit, 36));
  return mark;
}

export const STREAMS = ["stdout", "stderr"] as const;
export type Stream = (typeof STREAMS)[number];

export interface Piece {
  id: string;
  stream: Stream;
  offset: number;
  bytes: Uint8Array;
}

const KIND_OUTPUT = 1;

export function headerBytes(id: string): number {
  return 3 + id.length + 8;
}

export function writeHeader(into: Uint8Array, id: string, stream: Stream, offset: number): void {
  into[0] = KIND_OUTPUT;
  into[1] = STREAMS.indexOf(stream);
  into[2] = id.length;
  for (let at = 0; at < id.length; at++) into[3 + at] = id.charCodeAt(at);
  new DataView(into.buffer, into.byteOffset).setFloat64(3 + id.length, offset);
}

/** @throws Error if the message is malformed */
export function readPiece(message: ArrayBuffer): Piece {
  const bytes = new Uint8Array(message);
  const [kind, streamNumber = 2, length = 0] = bytes;
  const stream = STREAMS[streamNumber];
  const from = 3 + length + 8;
  if (
    kind !== KIND_OUTPUT ||
    stream === undefined ||
    bytes.length < from ||
    bytes.length > from + PIECE_BYTES
  )
    throw new Error("not an output message");
  const name = String.fromCharCode(...bytes.subarray(3, 3 + length));
  const offset = new DataView(message).getFloat64(3 + length);
  if (!/^[0-9a-z]{1,64}$/.test(name) || !Number.isSafeInteger(offset) || offset < 0)
    throw new Error("not an output message");
  return { id: name, stream, offset, bytes: bytes.subarray(from) };
}
