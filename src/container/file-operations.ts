/**
 * Files of a sandbox, and results of tasks, by requests to sandboxd: `call` follows the rows of `operations.ts`. A user program
 * may respond in sandboxd's place, so responses are checked and bounded.
 */
import {
  type FileRequest,
  type FileRow,
  type Input,
  type Result,
  fileRequests,
  queryOf,
} from "../../container/sandboxd/operations.ts";
import { listCursor } from "../../container/sandboxd/shapes.ts";
import { withTimeout } from "../shared/errors.ts";
import type { Requesting } from "./requests.ts";
import { foreignListCursor, invalidParameters, refusal } from "./texts.ts";
import { type Body, requestOperation, partsOf } from "./sandboxd-request.ts";

/** The lowest accepted upload speed; large bodies get more time. */
const BYTES_PER_MS = 100;

export class FileOperations {
  readonly #fetch: Requesting;

  /** @param fetch how to reach sandboxd: `Requests.withWorkspace`, or `request`, which does not count as use */
  constructor(fetch: Requesting) {
    this.#fetch = fetch;
  }

  /**
   * A change happens once, even if a broken connection repeats the request. @param isConfined whether it must stay below
   * /workspace and /tmp, through symbolic links too @throws {ToolError} with what failed and why; `no_answer` after the row's
   * time limit
   */
  async call<Name extends FileRequest>(
    name: Name,
    input: Input<Name>,
    { isConfined = false } = {},
  ): Promise<Result<Name>> {
    const row: FileRow = fileRequests[name];
    const { call: given, body } = partsOf(row, input);
    const parameters = { id: crypto.randomUUID(), confined: isConfined, ...given, ...row.always };
    const { data: call } = row.input.safeParse(Object.fromEntries(queryOf(row, parameters)));
    if (!call) throw invalidParameters(row.doing);
    const path = "path" in call ? String(call.path) : "";
    const failed = `${[row.doing, path].filter(Boolean).join(" ")} failed`;
    const result = await inTime(row, body, (signal) =>
      requestOperation(this.#fetch, row, { call, body }, signal, (failure) => refusal(failed, path, failure)),
    );
    return result as Result<Name>;
  }
}

/** @throws {ToolError} `no_answer` after the row's time limit */
async function inTime<T>(
  { timeoutMs }: FileRow,
  body: Body,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const abort = new AbortController();
  if (body instanceof ReadableStream) return await work(abort.signal);
  try {
    return await withTimeout(timeoutMs + (body?.length ?? 0) / BYTES_PER_MS, work(abort.signal));
  } catch (error) {
    abort.abort();
    throw error;
  }
}

/** A caller's cursor. @throws {ToolError} if no result contained it */
export function checkedCursor(given: string | undefined): string | undefined {
  if (given === undefined || listCursor().safeParse(given).success) return given;
  throw foreignListCursor();
}
