/** Completes resource templates with names that the caller may read. Starts no container. */
import { retryOnce } from "../actors/sandbox-client.ts";
import { accountOf } from "../actors/account-of.ts";
import { isTaskID, sandboxOf } from "../runs/id.ts";
import { undefinedIfFailed } from "../shared/errors.ts";
import { SANDBOX_NAME } from "../shared/names.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { MAX_RESOURCE_URI, RUNS } from "../shared/resource-uri.ts";
import { operateWithoutNotice, readSandbox } from "./context.ts";
import { outputsOf, withinLimit } from "./read.ts";

const MAX_ENTRIES = 2000;
const MAX_RUNS = 100;

export async function completeSandbox(caller: CallerContext, value: string): Promise<string[]> {
  return (await names(caller)).filter((name) => name.startsWith(value) && name !== RUNS);
}

/** Completes paths, relative to /workspace or absolute. A directory's path ends with a slash. */
export async function completePath(caller: CallerContext, sandbox: string, value: string): Promise<string[]> {
  if (!(await names(caller)).includes(sandbox) || value.includes("\0")) return [];
  if (value.length > MAX_RESOURCE_URI) return [];
  const start = value.slice(0, value.lastIndexOf("/") + 1);
  const listing = await undefinedIfFailed(
    operateWithoutNotice(caller, sandbox, "list", { path: start, depth: 1, limit: MAX_ENTRIES }),
  );
  const typed = value.slice(start.length);
  const matching = (listing?.entries ?? []).filter(({ path }) => path.startsWith(typed));
  const wholePath = ({ path, type }: (typeof matching)[number]) =>
    `${start}${path}${type === "directory" ? "/" : ""}`;
  return withinLimit(matching, wholePath, (path) => path.length);
}

/** Completes run ids: first the names of sandboxes with runs, then the latest runs of one sandbox. */
export async function completeRun(caller: CallerContext, value: string): Promise<string[]> {
  const { scopes } = caller.principal;
  // Sandbox names may contain dots, so the text before a dot may be a whole name or only part of one.
  const sandbox = value.slice(0, Math.max(0, value.lastIndexOf(".")));
  const tasks = scopes.includes("tasks:run")
    ? await retryOnce(() => accountOf(caller.env, caller.principal.id).listTasks(MAX_RUNS))
    : [];
  const ids = tasks.map(({ id }) => id);
  ids.push(...(await names(caller)).map((name) => `${name}.`).filter((start) => start !== value));
  if (scopes.includes("sandbox:read") && SANDBOX_NAME.test(sandbox)) {
    const reader = readSandbox(caller, sandbox, (actor, owner) => actor.listRuns(owner, MAX_RUNS));
    const runs = (await undefinedIfFailed(reader)) ?? [];
    ids.push(...runs.map(({ id }) => id).filter((id) => !isTaskID(id)));
  }
  return ids.filter((id) => id.startsWith(value));
}

export async function completeName(caller: CallerContext, id: string | undefined, value: string) {
  const sandbox = id === undefined ? undefined : sandboxOf(id);
  if (id === undefined || sandbox === undefined) return [];
  if (!caller.principal.scopes.includes(isTaskID(id) ? "tasks:run" : "sandbox:read")) return [];
  const reader = readSandbox(caller, sandbox, (actor, owner) => actor.readRun(owner, { id, waitMs: 0 }));
  const found = await undefinedIfFailed(reader);
  const outputs = found ? outputsOf(found.run) : [];
  return outputs.map(({ name }) => name).filter((name) => name.startsWith(value));
}

async function names(caller: CallerContext): Promise<string[]> {
  if (!caller.principal.scopes.includes("sandbox:read")) return [];
  const sandboxes = await retryOnce(() => accountOf(caller.env, caller.principal.id).sandboxes());
  return sandboxes.map(({ name }) => name);
}
