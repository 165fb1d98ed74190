/** The file of a form (`multipart/form-data`), as it comes. */
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { Busboy } from "@fastify/busboy";
import { FileError } from "./file-error.ts";

/** Bytes of a form beside its file at most, and of each field. */
export const FORM_BYTES = 1024 * 1024;
const FIELD_BYTES = 1024;
const MAX_PARTS = 1000;

/**
 * The bytes of a form's one file. They are the file only once the last was taken: what breaks off fails there.
 * @throws FileError `form` where it is none or holds no file or several, `cut`
 */
export async function* fileOf(body: AsyncIterable<Buffer>, contentType: string): AsyncGenerator<Buffer> {
  const form = formOf(contentType);
  const { promise: found, resolve } = Promise.withResolvers<Readable | undefined>();
  let count = 0;
  form.on("file", (_field, file, name) => {
    // Where the form breaks off.
    file.on("error", () => undefined);
    // A browser sends an empty one without a name where none was chosen.
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
    const file = await found;
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

function formOf(contentType: string): Busboy {
  try {
    const limits = { parts: MAX_PARTS, fieldSize: FIELD_BYTES };
    return new Busboy({ headers: { "content-type": contentType }, limits });
  } catch {
    throw new FileError({ problem: "form" });
  }
}
