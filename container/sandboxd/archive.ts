/** Sends a directory as an archive while a program packs it. */
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { SCRIPTS } from "./directories.ts";
import { FileError } from "./file-error.ts";
import type { Call, FileRequests } from "./operations.ts";
import { statOf } from "./reading.ts";
import type { Exchange } from "./serve-operation.ts";
import { type Program, startProgram } from "./task-changes.ts";

interface Packer {
  start(path: string): Program;
  /** The highest exit status with which the program reports a complete archive. */
  lastGoodStatus: number;
}

const PACKERS: Record<Call<FileRequests["archive"]>["format"], Packer> = {
  "tar.gz": {
    start: (path) =>
      // Set-id bits would apply to the user who unpacks the archive, perhaps root.
      startProgram("tar", ["--create", "--gzip", "--mode=u-s,g-s", "--file=-", "--directory", path, "."]),
    // tar exits with status 1 if a file changed while tar read it.
    lastGoodStatus: 1,
  },
  zip: {
    start: (path) => {
      const args = ["-I", "-X", "utf8", join(SCRIPTS, "zip.py"), path];
      return startProgram("python3", args, { cwd: "/", env: { PATH: process.env.PATH } });
    },
    lastGoodStatus: 0,
  },
};

export async function sendArchive(
  { path, format }: Call<FileRequests["archive"]>,
  { begin, isClientWaiting }: Exchange<FileRequests["archive"]>,
): Promise<void> {
  if ((await statOf({ path }, isClientWaiting)).type !== "directory")
    throw new FileError({ problem: "not_directory" });
  const { start, lastGoodStatus } = PACKERS[format];
  const { output, started, ended, kill } = start(path);
  try {
    await started;
  } catch {
    throw new FileError({ problem: "no_program" });
  }
  const response = begin({});
  try {
    await pipeline(output, response, { end: false });
    const status = await ended;
    if (status !== null && status <= lastGoodStatus) response.end();
    else response.destroy();
  } finally {
    kill();
  }
}
