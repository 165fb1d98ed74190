/**
 * What the actor of a sandbox and sandboxd inside it say to each other: over one WebSocket about commands, in plain HTTP
 * requests to the same port about files. Both ends import this file and check what they get: user code is root in a sandbox
 * and can take sandboxd's place, so an actor believes none of it beyond these bounds.
 *
 * On the WebSocket, calls go to sandboxd and events come back, each a text message of JSON. Output comes in binary messages:
 *
 *   byte 0      1, the kind of message
 *   byte 1      the stream: 0 stdout, 1 stderr
 *   byte 2      length of the run's id, then the id in ASCII
 *   8 bytes     offset of the data in its stream, a big-endian double
 *   the rest    the data
 *
 * An offset beyond the end of the data before says that the bytes between were dropped, because the log is full.
 */
import * as z from "zod/mini";

/** Where sandboxd listens in the image. No preview may lead here. */
export const SANDBOXD_PORT = 8671;

/**
 * On every request: the token that the sandbox's actor gave sandboxd when the container was started, in TOKEN_VARIABLE. Other
 * sandboxes may reach the port, as on a bridge of Docker's. One that was started without a token takes every request.
 */
export const TOKEN_HEADER = "x-sandboxd-token";
export const TOKEN_VARIABLE = "SANDBOXD_TOKEN";

/** What sandboxd asks, by POST, before the container ends: that the sandbox's actor save the workspace. 204 when it has. */
export const SERVER_HOST = "sandbox-mcp.internal";
export const ENDING_PATH = "/ending";

/** On a request: the port of the sandbox whose server it is for. */
export const PREVIEW_PORT = "x-sandboxd-port";

/**
 * On an answer of sandboxd's own to such a request: `refused` where nobody listens, `broken` where the answer broke off, `tls`
 * and `foreign` where whoever listens speaks TLS, or something else that is not HTTP.
 */
export const PREVIEW_ERROR = "x-sandboxd-error";
export type PreviewError = "refused" | "broken" | "tls" | "foreign";

/** On an answer about sandboxd itself: how many requests and WebSockets for ports are under way. */
export const OPEN_PREVIEWS = "x-sandboxd-previews";

/** Bytes of output in one message at most: the platform takes WebSocket messages of up to 1 MiB. */
export const PIECE_BYTES = 256 * 1024;

/** Bytes of one stream that may be on their way or waiting in the actor, which has 128 MB for everything. */
export const WINDOW_BYTES = 4 * 1024 * 1024;

/** Characters of a text message to the actor at most. */
export const EVENT_CHARS = 16 * 1024;

/** Bytes of each end of a stream that callers are shown, and of its last one that are sent where the rest is dropped. */
export const SHOWN_END_BYTES = 16 * 1024;

export const idSchema = () => z.string().check(z.regex(/^[0-9a-z]{1,64}$/));
export const sessionName = () => z.string().check(z.regex(/^[a-z0-9_-][a-z0-9._-]{0,63}$/));
export const size = () => z.number().check(z.int(), z.nonnegative());

/** Rows, or columns, of a terminal at most. */
export const MAX_CELLS = 1000;

/** Names of the sandbox's variables with a value at most, and bytes of all names and values together. */
export const MAX_VARIABLES = 100;
export const VARIABLES_BYTES = 64 * 1024;

/**
 * The variables of a whole sandbox. Each has the version that set it, or removed it where the value is null: a session or a
 * kernel takes those that are newer than what it took before, so that what it has set itself since stays.
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

/** Starts a command, or follows the one of this id if it was started before: a command is never started twice. */
const start = z.object({
  type: z.literal("start"),
  id: idSchema(),
  session: sessionName(),
  command: z.string(),
  /** For this command only. */
  cwd: z.optional(z.string()),
  env: z.optional(z.record(z.string(), z.string())),
  /** Of the sandbox. */
  variables: z.optional(variables),
  /** What standard input holds; it is empty without. */
  stdin: z.optional(z.string()),
  /** In a pseudo terminal, with `input` to type into it. Its size is what `env` has as LINES and COLUMNS. */
  interactive: z.optional(z.boolean()),
  /** Milliseconds after which sandboxd ends the command by itself, in case the actor does not. */
  timeoutMs: size(),
});

/** Asks for the output of a run from these offsets on, and for its end. */
const follow = z.object({ type: z.literal("follow"), id: idSchema(), stdout: size(), stderr: size() });

/**
 * Asks for the output of code from these offsets on, which its kernel puts into files once it is long, and for the end of
 * the kernel's process. With the time of its start, in clock ticks since boot, no reused pid is taken for it.
 */
const code = z.object({
  type: z.literal("code"),
  id: idSchema(),
  pid: z.number().check(z.int(), z.positive()),
  started: size(),
  stdout: size(),
  stderr: size(),
});

/** The kernel has answered: the output of the code ends with what is in its files. */
const finish = z.object({ type: z.literal("finish"), id: idSchema() });

/** Bytes of each stream that are safe in the actor: the sandbox need not keep them. */
const stored = z.object({ type: z.literal("stored"), id: idSchema(), stdout: size(), stderr: size() });

/** No more of a stream is wanted but its size and its end. */
const full = z.object({ type: z.literal("full"), id: idSchema(), stream: z.enum(["stdout", "stderr"]) });

/**
 * Ends a command with everything it started: asks, and makes it two seconds later (TERM), or at once (KILL). Of code,
 * interrupts the kernel (INT), ends everything that the code has started (TERM), or that and the kernel (KILL).
 */
const kill = z.object({ type: z.literal("kill"), id: idSchema(), signal: z.enum(["INT", "TERM", "KILL"]) });

/** Rows or columns of a terminal. */
const cells = () => z.number().check(z.int(), z.gte(1), z.lte(MAX_CELLS));
const terminalSize = z.object({ rows: cells(), columns: cells() });

/** Types into an interactive run, whose terminal is given another size before; answered by `typed`. `key` is one that no other call has. */
const input = z.object({
  type: z.literal("input"),
  id: idSchema(),
  key: z.string(),
  text: z.string(),
  size: z.optional(terminalSize),
});

/** Removes what there is of ended runs. */
const forget = z.object({ type: z.literal("forget"), ids: z.array(idSchema()) });

/** Code that was not followed has ended, and what it has started may listen soon: the next run that finds the port tells of it. */
const expect = z.object({ type: z.literal("expect"), id: idSchema() });

/** Asks for a sign of life. */
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

/** Ports that are told of one run at most. */
export const MAX_PORTS = 20;

export const eventSchema = z.discriminatedUnion("type", [
  /** The run goes on, and what it prints will come. */
  z.object({ type: z.literal("running"), id: idSchema() }),
  /** All output has come before this. */
  z.object({
    type: z.literal("ended"),
    id: idSchema(),
    /** Exit status, 128 and the number of the signal that ended it. */
    status: z.number().check(z.int(), z.gte(0), z.lte(255)),
    stdout: size(),
    stderr: size(),
    /** It was ended by sandboxd because its time was over. */
    timedOut: z.optional(z.boolean()),
    /** Some of its output may be missing: a process of sandboxd's was killed while it took it. */
    cut: z.optional(z.boolean()),
    /** That is because the disk was full. */
    noSpace: z.optional(z.boolean()),
    /** Its exit status is not known, and this one stands for it: the keeper was killed, which alone would have been told. */
    lost: z.optional(z.boolean()),
    /** The directory that its session is in now, where that is not /workspace. */
    cwd: z.optional(z.string().check(z.maxLength(4096))),
  }),
  /** Programs of the run listen on these ports, and not on others that were told before. */
  z.object({
    type: z.literal("listening"),
    id: idSchema(),
    ports: z.array(z.number().check(z.int(), z.gte(1), z.lte(65_535))).check(z.maxLength(MAX_PORTS)),
  }),
  /** Of code: all of its output has come before this, and nothing of it is left that was to be ended. */
  z.object({ type: z.literal("settled"), id: idSchema(), isKernelGone: z.boolean() }),
  /** Nothing of this run is known: it was never started, or its files are gone. */
  z.object({ type: z.literal("unknown"), id: idSchema() }),
  /** It was not started. */
  z.object({
    type: z.literal("refused"),
    id: idSchema(),
    reason: z.enum(["exhausted", "unwritable", "damaged", "no_terminal", "ending"]),
    /** The system's own words. */
    message: z.string().check(z.maxLength(1000)),
  }),
  /** So many bytes of an `input` were taken: all, or as many as there was room for. None where nobody can read them. */
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
 * The mark of a run's processes: their limit of file locks, which Linux keeps and does not apply. Unlike a variable it
 * stays with whatever they start, in any environment, and unlike a group no process leaves it by the way.
 */
export function markOf(id: string): bigint {
  let mark = 0n;
  for (const digit of id.replace(/t$/, "").slice(-12)) mark = mark * 36n + BigInt(Number.parseInt(digit, 36));
  return mark;
}

export const STREAMS = ["stdout", "stderr"] as const;
export type Stream = (typeof STREAMS)[number];

/** A piece of output as it travels. */
export interface Piece {
  id: string;
  stream: Stream;
  offset: number;
  bytes: Uint8Array;
}

const KIND_OUTPUT = 1;

/** Bytes of a message before its data. */
export function headerBytes(id: string): number {
  return 3 + id.length + 8;
}

/** Writes the header of an output message into `into`, whose data begins at `headerBytes(id)`. */
export function writeHeader(into: Uint8Array, id: string, stream: Stream, offset: number): void {
  into[0] = KIND_OUTPUT;
  into[1] = STREAMS.indexOf(stream);
  into[2] = id.length;
  for (let at = 0; at < id.length; at++) into[3 + at] = id.charCodeAt(at);
  new DataView(into.buffer, into.byteOffset).setFloat64(3 + id.length, offset);
}

/** @throws Error when the message is none of these */
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
    throw new Error("no output message");
  const name = String.fromCharCode(...bytes.subarray(3, 3 + length));
  const offset = new DataView(message).getFloat64(3 + length);
  if (!/^[0-9a-z]{1,64}$/.test(name) || !Number.isSafeInteger(offset) || offset < 0)
    throw new Error("no output message");
  return { id: name, stream, offset, bytes: bytes.subarray(from) };
}
