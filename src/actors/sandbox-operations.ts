/**
 * Does the operations of `container/sandboxd/operations.ts` in the actor: checks what the caller may, and follows the row's
 * policy.
 */
import {
  type FileRow,
  type Input,
  type OperationName,
  type Policy,
  operations,
} from "../../container/sandboxd/operations.ts";
import { type Written, absolute } from "../../container/sandboxd/shapes.ts";
import type { FileOperations } from "../container/file-operations.ts";
import { ToolError } from "../shared/errors.ts";
import type { Owner } from "./account-calls.ts";
import type { Scope } from "../shared/principal.ts";
import type { Activity } from "./activity.ts";
import type { Lifecycle } from "./lifecycle.ts";
import type { Workspace } from "./workspace.ts";
import { editRefused, stopped } from "./texts.ts";

export function policyOf(name: OperationName): FileRow & Policy {
  return operations[name];
}

interface OperationParts {
  files: FileOperations;
  /** The same, without counting as use. */
  glancing: FileOperations;
  activity: Activity;
  lifecycle: Pick<Lifecycle, "container" | "isRunning">;
  workspace: Pick<Workspace, "changed">;
}

export class SandboxOperations {
  readonly #parts: OperationParts;

  constructor(parts: OperationParts) {
    this.#parts = parts;
  }

  /** @throws {ToolError} `not_found` if it may not start a container and none runs; errors of `FileOperations.call` */
  async run(owner: Owner, name: OperationName, input: object): Promise<object> {
    const { files, glancing, activity, lifecycle, workspace } = this.#parts;
    const row = policyOf(name);
    const isGlance = row.start === "glance";
    if ((row.start === "none" && !lifecycle.isRunning) || (isGlance && !lifecycle.container))
      throw stopped(owner.sandbox);
    const isConfined = row.confined && !has(owner, "sandbox:exec");
    const call = (isGlance ? glancing : files).call(name, input as never, { isConfined });
    const done: Promise<object> = row.up === "stream" ? activity.transfer<object>(call) : call;
    try {
      if (name === "edit")
        return await edited(owner, (input as Input<"edit">).path, done as Promise<Written>);
      const result: { body?: ReadableStream<Uint8Array> } = await done;
      return result.body ? { ...result, body: activity.trackTransfer(result.body) } : result;
    } finally {
      // Also after a failure, because it may have changed something.
      if (row.changesState) workspace.changed();
    }
  }
}

/** Whether the owner may do an operation. */
export function hasScope(owner: Owner, { scope }: Policy): boolean {
  return scope === undefined || has(owner, scope);
}

function has({ scopes = [] }: Owner, scope: Scope): boolean {
  return scopes.includes(scope);
}

/** The result of an edit for an owner who may not read files. Callers who may run code can read them anyway. */
async function edited(owner: Owner, path: string, done: Promise<Written>): Promise<Written> {
  if (has(owner, "sandbox:read") || has(owner, "sandbox:exec")) return await done;
  const { size, replaced } = await done.catch((error: unknown) => {
    if (!(error instanceof ToolError) || error.code !== "invalid_argument") throw error;
    throw editRefused(absolute(path));
  });
  return { size, replaced };
}
