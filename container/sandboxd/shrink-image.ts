/** Scales images down. A child process decodes them (image.py), because hostile files attack decoders. */
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { type Exchange, abortOnClose, bytesOfBody } from "./serve-operation.ts";
import type { Call, FileRequests } from "./operations.ts";
import { SCRIPTS } from "./directories.ts";
import { FileError } from "./file-error.ts";
import { canBeShown, type ImageHeader, imageHeader, imageType } from "./image-header.ts";
import { openFile, readRange } from "./reading.ts";
import { startProgram } from "./task-changes.ts";
import { IMAGE_BYTES, IMAGE_PIXELS, type ImageOutcome, type ShrinkOutcome, SHOWN_IMAGE } from "./shapes.ts";

const IMAGE_MS = 20_000;
const PROBLEMS: Record<number, ShrinkOutcome> = { 3: "no_pillow", 4: "undecodable", 5: "too_large" };
/** Images are scaled one at a time, so that their memory does not add up. */
let before: Promise<unknown> = Promise.resolve();

export async function sendSmaller(
  _call: object,
  { request, response, begin }: Exchange<FileRequests["shrink"]>,
): Promise<void> {
  await inTurn(response, async () => {
    const made = await shrink(await bytesOfBody(request, IMAGE_BYTES), response);
    if (typeof made === "string") begin({ image: made }, 0).end();
    else begin({ image: "made" }, made.length).end(made);
  });
}

export async function sendScaledFile(
  { path }: Call<FileRequests["image"]>,
  { response, begin }: Exchange<FileRequests["image"]>,
): Promise<void> {
  await inTurn(response, async () => {
    const image = await readImage(path);
    const header = headerOf(image);
    const { width, height, frames } = header ?? { width: 0, height: 0, frames: 0 };
    const original = { size: image.length, width, height, frames };
    let made: Buffer | ImageOutcome = "unreadable";
    if (header && canBeShown(header, image)) made = image;
    else if (header) made = width * height > IMAGE_PIXELS ? "too_large" : await shrink(image, response);
    if (typeof made === "string") begin({ image: made, ...original }, 0).end();
    else begin({ image: made === image ? "unchanged" : "made", ...original }, made.length).end(made);
  });
}

async function inTurn(response: ServerResponse, work: () => Promise<void>): Promise<void> {
  const start = async (previous: Promise<unknown>) => {
    await previous;
    // The client may have disconnected while the image waited.
    if (!response.destroyed) await work();
  };
  const turn = start(before);
  before = turn.catch(() => undefined);
  await turn;
}

/** @throws FileError `too_large`, or because it is not a regular file */
async function readImage(path: string): Promise<Buffer> {
  const opened = await openFile(path);
  try {
    const { size } = opened.stats;
    if (size > IMAGE_BYTES) throw new FileError({ problem: "too_large" });
    return await readRange(opened, 0, size);
  } finally {
    await opened.handle.close();
  }
}

function headerOf(image: Buffer): ImageHeader | undefined {
  const type = imageType(image);
  try {
    return type && imageHeader(image, type);
  } catch {
    return undefined;
  }
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
