/** Scales images down. A child process decodes them (image.py), because hostile files attack decoders. */
import { spawn } from "node:child_process";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { type Exchange, bytesOfBody } from "./serve-operation.ts";
import type { FileRequests } from "./operations.ts";
import { SCRIPTS } from "./directories.ts";
import { send } from "./run-processes.ts";
import { IMAGE_BYTES, type ImageMade, SHOWN_IMAGE } from "./shapes.ts";

const IMAGE_MS = 20_000;
const PROBLEMS: Record<number, ImageMade> = { 3: "no_pillow", 4: "undecodable", 5: "too_large" };
/** One image at a time, so that their memory does not add up. */
let before: Promise<unknown> = Promise.resolve();

export async function sendSmaller(
  _call: object,
  { request, response, begin }: Exchange<FileRequests["shrink"]>,
): Promise<void> {
  const turn = before.then(async () => {
    // The client may have disconnected while the image waited.
    if (response.destroyed) return undefined;
    return await madeSmaller(await bytesOfBody(request, IMAGE_BYTES), response);
  });
  before = turn.catch(() => undefined);
  const made = await turn;
  if (!made) return;
  if (typeof made === "string") begin({ image: made }, 0).end();
  else begin({ image: "made" }, made.length).end(made);
}

/** @param response cancels the work when closed */
async function madeSmaller(image: Buffer, response: ServerResponse): Promise<Buffer | ImageMade> {
  const { side, pixels, max } = SHOWN_IMAGE;
  const args = ["-I", join(SCRIPTS, "image.py"), ...[side, pixels, max].map(String)];
  const child = spawn("python3", args, { cwd: "/", stdio: ["pipe", "pipe", "ignore"], detached: true });
  const kill = () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null)
      send(-child.pid, "SIGKILL");
  };
  const timer = setTimeout(kill, IMAGE_MS);
  response.once("close", kill);
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  // It may end without reading everything.
  child.stdin.on("error", () => undefined).end(image);
  const chunks: Buffer[] = [];
  let bytes = 0;
  child.stdout.on("data", (chunk: Buffer) => {
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
  } finally {
    clearTimeout(timer);
    response.off("close", kill);
  }
}
