/** The engine's settings, which its parent process sends as one line of JSON. */
import * as z from "zod";
import { limitsSchema } from "./limits.ts";

const path = z.string().startsWith("/");

export const settingsSchema = z.strictObject({
  /** Every request must contain it. At least 16 characters. */
  secret: z.string(),
  /**
   * The path of a Unix socket to listen on. Without it, the engine listens on a free port of 127.0.0.1: for tests and measurements,
   * because every program of the machine can connect to a port, and delay all calls by a flood of requests without the secret.
   */
  socket: path.optional(),
  network: z.enum(["internet", "none"]),
  isolation: z.enum(["bubblewrap", "none"]),
  /** The result of `checkBubblewrap`, if the parent process has already called it. */
  bubblewrap: z.strictObject({ supported: z.array(z.string()), dropsRoot: z.boolean() }).optional(),
  /** The directory for sockets and generated files. The engine creates it, and removes the files that killed engines left in it. */
  runDir: path,
  /** The directory of the Worker's objects. Without it, objects may be lost if the machine crashes: for tests and measurements. */
  objects: path.optional(),
  limits: limitsSchema.partial().optional(),
  /** The sandboxes' python3 instead of the detected one; null for none. */
  python: z.string().nullable().optional(),
  /** The directory of installed coding agents. Without it, no agent is installed. */
  agents: path.optional(),
  /** The directory of the interpreters' packages. */
  pythonPackages: path.optional(),
  directories: z
    .array(z.strictObject({ name: z.string(), from: z.string(), to: z.string(), isWritable: z.boolean() }))
    .optional(),
  readOnly: z.array(z.strictObject({ from: z.string(), to: z.string() })).optional(),
  /** The directory of the certificate authority for hosts with a credential. Without it, there is no such authority. */
  authority: path.optional(),
  /** Tests only: `host:port=port` entries; sandboxes reach the host at that port of 127.0.0.1. */
  allowAddresses: z.array(z.string()).optional(),
  /** Tests only: PEM of an additional authority for internet hosts. */
  trusted: z.string().optional(),
  /** Tests only: another control server's bundle. */
  control: z.string().optional(),
  /** Tests only: false if a test does not need a prepared sandbox. True by default. */
  prepareSandbox: z.boolean().optional(),
  isVerbose: z.boolean().optional(),
});

export type EngineSettings = z.infer<typeof settingsSchema>;

/** `name` is the name of the sandbox's Durable Object, which only the sandbox's principal can reach. */
export type HostDirectory = NonNullable<EngineSettings["directories"]>[number];
