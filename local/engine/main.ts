/**
 * The engine as a program. It reads its settings as one line of JSON from stdin, so that the secret is in no argument or
 * environment variable. When ready, it prints one line of JSON. It ends with all sandboxes when stdin closes, or on SIGTERM or
 * SIGINT.
 */
import { createInterface } from "node:readline";
import * as z from "zod";
import { Pace } from "../../container/sandboxd/pace.ts";
import { messageOf } from "../../src/shared/text.ts";
import { startEngine, type Engine } from "./engine.ts";
import { settingsSchema } from "./engine-settings.ts";
import { printable } from "./printable.ts";

let engine: Promise<Engine> | undefined;
let isEnding = false;

async function end(status: number): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  await (await engine?.catch(() => undefined))?.close();
  process.exit(status);
}

/** Limits how many errors are logged, so that a sandbox cannot fill the log. */
const logged = new Pace({ burst: 20, perSecond: 0.1 });

/** An error that no code expected belongs to one connection. Ending the engine would end every sandbox. */
const survive = (error: unknown) => {
  const text = (error instanceof Error && error.stack) || messageOf(error);
  if (logged.tryTake(1)) process.stderr.write(`engine: unexpected: ${printable(text)}\n`);
  // The error may be the reason why the engine would never end.
  if (isEnding) process.exit(1);
};
process.on("uncaughtException", survive);
process.on("unhandledRejection", survive);
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
      const report = JSON.stringify({ ready: false, error: messageOf(error) });
      process.stdout.write(`${report}\n`, () => process.exit(1));
    },
  );
});
lines.once("close", () => void end(0));

/** Every line after the first changes settings. */
async function change(running: Promise<Engine>, line: string): Promise<void> {
  try {
    const { python } = z.strictObject({ python: z.string() }).parse(JSON.parse(line));
    await (await running).usePython(python);
  } catch (error) {
    process.stderr.write(`engine: ${messageOf(error)}\n`);
  }
}

async function start(line: string): Promise<Engine> {
  return await startEngine(settingsSchema.parse(JSON.parse(line)));
}
