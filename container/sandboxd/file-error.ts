/** Why a file request failed, in the protocol's terms; and functions for errors of all kinds. */
import type { FileFailure } from "./shapes.ts";

export class FileError extends Error {
  readonly failure: FileFailure;

  constructor(failure: FileFailure) {
    super(failure.code ?? failure.problem);
    this.failure = failure;
  }
}

export function failureOf(error: unknown): FileFailure {
  return error instanceof FileError ? error.failure : { problem: "system", code: codeOf(error) ?? "UNKNOWN" };
}

export function toFileError(error: unknown): FileError {
  const code = codeOf(error);
  return new FileError(
    code === "ENOENT" || code === "ENOTDIR" ? { problem: "missing" } : { problem: "system", code },
  );
}

export async function withFileErrors<T>(result: Promise<T>): Promise<T> {
  try {
    return await result;
  } catch (error) {
    throw error instanceof FileError ? error : toFileError(error);
  }
}

export function codeOf(error: unknown): string | undefined {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : undefined;
}

export function succeeds(work: Promise<unknown>): Promise<boolean> {
  return work.then(
    () => true,
    () => false,
  );
}

export function attempt<T>(work: () => T, otherwise: T): T {
  try {
    return work();
  } catch {
    return otherwise;
  }
}
