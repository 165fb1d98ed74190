/** Scales images down. A child process decodes them (image.py), because hostile files attack decoders. */
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { type Exchange, abortOnClose, bytesOfBody } from "./serve-operation.ts";
import type { FileRequests } from "./operations.ts";
import { SCRIPTS } from "./directories.ts";
import { startProgram } from "./task-changes.ts";
import { IMAGE_BYTES, type ShrinkOutcome, SHOWN_IMAGE } from "./shapes.ts";

const IMAGE_MS = 20_000;
const PROBLEMS: Record<number, ShrinkOutcome> = { 3: "no_pillow", 4: "undecodable", 5: "too_large" };
/** Images are scaled one at a time, so that their memory does not add up. */
let before: Promise<unknown> = Promise.resolve();

export async function sendSmaller(
  _call: object,
  { request, response, begin }: Exchange<FileRequests["shrink"]>,
): Promise<void> {
  const turn = before.then(async () => {
    // The client may have disconnected while the image waited.
    if (response.destroyed) return undefined;
    return await shrink(await bytesOfBody(request, IMAGE_BYTES), response);
  });
  before = turn.catch(() => undefined);
  const made = await turn;
  if (!made) return;
  if (typeof made === "string") begin({ image: made }, 0).end();
  else begin({ image: "made" }, made.length).end(made);
}

async function shrink(image: Buffer, response: ServerResponse): Promise<Buffer | ShrinkOutcome> {
  const { side, pixels, max } = SHOWN_IMAGE;
  const args = ["-I", join(SCRIPTS, "image.py"), ...[side, pixels, max].map(String)];
  const signal = abortOnClose(response, IMAGE_MS);
  // This PATH finds the Python that user code runs. Perhaps only that Python has Pillow.
  const env = { PATH: process.env.PATH };
  const options = { hasInput: true, cwd: "/", env, signal };
  const { input, output, ended, kill } = startProgram("python3", args, options);
  // The process may end without reading everything.
  input?.on("error", () => undefined).end(image);
  const chunks: Buffer[] = [];
  let bytes = 0;
  output.on("data", (chunk: Buffer) => {
    bytes += chunk.length;
    if (bytes > max) kill();
    else chunks.push(chunk);
  });
  try {
    const status = await ended;
    return status === 0 ? Buffer.concat(chunks) : (PROBLEMS[status ?? 5] ?? "undecodable");
  } catch {
    // There is no Python.
    return "no_pillow";
  }
}
