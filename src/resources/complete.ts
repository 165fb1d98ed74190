/** Completion of the variables of resource templates, out of what the caller may read. It starts no container. */
import { retryOnce } from "../actors/actor-errors.ts";
import { accountOf } from "../actors/account-of.ts";
import { isTaskID, sandboxOf } from "../runs/id.ts";
import { ToolError } from "../shared/errors.ts";
import { SANDBOX_NAME } from "../shared/names.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { RUNS } from "../shared/resource-uri.ts";
import { operation, reading } from "./context.ts";
import { namesOf } from "./read.ts";

/** Entries of a directory that are looked through, and runs of a sandbox. */
const MAX_ENTRIES = 2000;
const MAX_RUNS = 100;

/** Names of sandboxes that have addresses. */
export async function completeSandbox(caller: CallerContext, value: string): Promise<string[]> {
  return (await names(caller)).filter((name) => name.startsWith(value) && name !== RUNS);
}

/** Paths as addresses have them: relative to /workspace, or absolute. A directory's ends with a slash. */
export async function completePath(caller: CallerContext, sandbox: string, value: string): Promise<string[]> {
  if (!(await names(caller)).includes(sandbox) || value.includes("\0")) return [];
  const start = value.slice(0, value.lastIndexOf("/") + 1);
  const entries = await orNothing(
    operation(caller, sandbox, "list", { path: start, depth: 1, limit: MAX_ENTRIES }).then(
      (listing) => listing.entries,
    ),
  );
  return entries
    .map(({ path, type }) => `${start}${path}${type === "directory" ? "/" : ""}`)
    .filter((path) => path.startsWith(value));
}

/** Ids of runs: first the names of sandboxes that have some, then the latest of one. */
export async function completeRun(caller: CallerContext, value: string): Promise<string[]> {
  const { scopes } = caller.principal;
  // Names hold dots too: what ends with one can be the beginning of a name, and all of another.
  const sandbox = value.slice(0, Math.max(0, value.lastIndexOf(".")));
  const tasks = scopes.includes("tasks:run")
    ? await retryOnce(() => accountOf(caller.env, caller.principal.id).listTasks(MAX_RUNS))
    : [];
  const ids = tasks.map(({ id }) => id);
  ids.push(...(await names(caller)).map((name) => `${name}.`).filter((start) => start !== value));
  if (scopes.includes("sandbox:read") && SANDBOX_NAME.test(sandbox)) {
    const runs = await orNothing(reading(caller, sandbox, (actor, owner) => actor.listRuns(owner, MAX_RUNS)));
    ids.push(...runs.map(({ id }) => id).filter((id) => !isTaskID(id)));
  }
  return ids.filter((id) => id.startsWith(value));
}

/** The log and the artifacts of a run. */
export async function completeName(
  caller: CallerContext,
  id: string | undefined,
  value: string,
): Promise<string[]> {
  const sandbox = id === undefined ? undefined : sandboxOf(id);
  if (id === undefined || sandbox === undefined) return [];
  if (!caller.principal.scopes.includes(isTaskID(id) ? "tasks:run" : "sandbox:read")) return [];
  const found = await orNothing(
    reading(caller, sandbox, (actor, owner) => actor.readRun(owner, { id, waitMs: 0 })).then(({ run }) =>
      namesOf(run),
    ),
  );
  return found.map(({ name }) => name).filter((name) => name.startsWith(value));
}

async function names(caller: CallerContext): Promise<string[]> {
  if (!caller.principal.scopes.includes("sandbox:read")) return [];
  const sandboxes = await retryOnce(() => accountOf(caller.env, caller.principal.id).sandboxes());
  return sandboxes.map(({ name }) => name);
}

/** What is not there, does not run or cannot be read completes nothing. */
async function orNothing<T>(found: Promise<T[]>): Promise<T[]> {
  try {
    return await found;
  } catch (error) {
    if (error instanceof ToolError) return [];
    throw error;
  }
}
