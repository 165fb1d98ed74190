/** Streams the file of a form (`multipart/form-data`). */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Busboy, type BusboyInstance } from "@fastify/busboy";
import { FileError } from "./file-error.ts";

/** How many bytes a form may have besides its file. */
export const FORM_BYTES = 1024 * 1024;
const FIELD_BYTES = 1024;
const MAX_PARTS = 1000;

/** Yields the bytes of a form's only file, and fails after them if the form is broken. @throws FileError `form`, `cut` */
export async function* fileOf(body: AsyncIterable<Buffer>, contentType: string): AsyncGenerator<Buffer> {
  const form = formOf(contentType);
  const { promise: firstFile, resolve } = Promise.withResolvers<Readable | undefined>();
  let count = 0;
  form.on("file", (_field, file, name) => {
    // Ignored here, because `yield* file` throws the error of a truncated form.
    file.on("error", () => undefined);
    // Browsers send an empty, unnamed file if the user chose none.
    if (name) count++;
    if (name && count === 1) resolve(file);
    else file.resume();
  });
  const read = pipeline(body, form);
  read.then(
    () => resolve(undefined),
    () => resolve(undefined),
  );
  try {
    const file = await firstFile;
    if (file) {
      read.catch((error: unknown) => file.destroy(error as Error));
      yield* file;
    }
    await read;
    if (count !== 1) throw new FileError({ problem: "form" });
  } catch (error) {
    throw error instanceof FileError ? error : new FileError({ problem: "cut" });
  } finally {
    form.destroy();
  }
}

function formOf(contentType: string): BusboyInstance {
  try {
    const limits = { parts: MAX_PARTS, fieldSize: FIELD_BYTES };
    return new Busboy({ headers: { "content-type": contentType }, limits });
  } catch {
    throw new FileError({ problem: "form" });
  }
}
