/**
 * The engine as a program. It reads its settings as one line of JSON from stdin, so that the secret is in no argument or
 * environment, and prints one line of JSON when ready. It ends with all sandboxes when stdin closes, or on SIGTERM or SIGINT.
 */
import { createInterface } from "node:readline";
import * as z from "zod";
import { startEngine, type Engine } from "./engine.ts";

const settingsSchema = z.strictObject({
  secret: z.string(),
  port: z.int().min(0).max(65_535).optional(),
  network: z.enum(["internet", "none"]),
  isolation: z.enum(["bubblewrap", "none"]),
  runDir: z.string().startsWith("/"),
  limits: z
    .strictObject({
      diskBytes: z.int(),
      memoryBytes: z.int(),
      allMemoryBytes: z.int(),
      diskReadBytes: z.int(),
      processes: z.int(),
      openFiles: z.int(),
      openFilesOfMachine: z.number(),
      tcpBytesOfMachine: z.number(),
    })
    .partial()
    .optional(),
  python: z.string().nullable().optional(),
  agents: z.string().startsWith("/").optional(),
  pythonPackages: z.string().startsWith("/").optional(),
  directories: z
    .array(z.strictObject({ name: z.string(), from: z.string(), to: z.string(), writable: z.boolean() }))
    .optional(),
  readOnly: z.array(z.strictObject({ from: z.string(), to: z.string() })).optional(),
  authority: z.string().startsWith("/").optional(),
  allowAddresses: z.array(z.string()).optional(),
  trusted: z.string().optional(),
  control: z.string().optional(),
  startAhead: z.boolean().optional(),
  verbose: z.boolean().optional(),
});

let engine: Promise<Engine> | undefined;
let ending = false;

async function end(status: number): Promise<void> {
  if (ending) return;
  ending = true;
  await (await engine?.catch(() => undefined))?.close();
  process.exit(status);
}

process.on("SIGTERM", () => void end(0));
process.on("SIGINT", () => void end(0));

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  if (engine !== undefined) return void change(engine, line);
  engine = start(line);
  engine.then(
    ({ url, boot, report }) =>
      process.stdout.write(`${JSON.stringify({ ready: true, url, boot, report })}\n`),
    (error: unknown) => {
      const text = error instanceof Error ? error.message : String(error);
      process.stdout.write(`${JSON.stringify({ ready: false, error: text })}\n`, () => process.exit(1));
    },
  );
});
lines.once("close", () => void end(0));

/** Every further line changes settings. */
async function change(running: Promise<Engine>, line: string): Promise<void> {
  try {
    const { python } = z.strictObject({ python: z.string() }).parse(JSON.parse(line));
    await (await running).usePython(python);
  } catch (error) {
    process.stderr.write(`engine: ${error instanceof Error ? error.message : String(error)}\n`);
  }
}

async function start(line: string): Promise<Engine> {
  return await startEngine(settingsSchema.parse(JSON.parse(line)));
}
