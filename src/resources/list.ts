/** `resources/list`: workspaces, the top-level files of running sandboxes, the latest tasks, and skills. */
import { ProtocolError, ProtocolErrorCode, type Resource } from "@modelcontextprotocol/server";
import { WORKSPACE } from "../../container/sandboxd/shapes.ts";
import { retryOnce } from "../actors/sandbox-client.ts";
import { accountOf } from "../actors/account-of.ts";
import { SANDBOX_NAME } from "../shared/names.ts";
import type { CallerContext } from "../shared/request-context.ts";
import { RUNS, fileURI, runURI } from "../shared/resource-uri.ts";
import { makeVisible } from "../shared/shown.ts";
import { waitAtMost } from "../shared/timers.ts";
import { operateWithoutNotice } from "./context.ts";
import { entryURI, typeOf } from "./read.ts";
import { skillResources } from "./skills.ts";
import { NO_PAGE, aboutTask, aboutWorkspace } from "./texts.ts";

const PAGE_SANDBOXES = 10;
const TOP_ENTRIES = 100;
const MAX_TASKS = 20;

/** How long a sandbox may take to list its workspace, in milliseconds. A slower sandbox is listed without files. */
const LIST_MS = 3000;

/** One page of sandboxes by name. Listing starts no container and does not count as use. @param after the cursor */
export async function listResources(caller: CallerContext, after: string | undefined) {
  if (after !== undefined && !SANDBOX_NAME.test(after))
    throw new ProtocolError(ProtocolErrorCode.InvalidParams, NO_PAGE);
  const { id, scopes } = caller.principal;
  const account = () => accountOf(caller.env, id);
  const sandboxes = scopes.includes("sandbox:read") ? await retryOnce(() => account().sandboxes()) : [];
  const remaining = sandboxes.filter(({ name }) => name !== RUNS && name > (after ?? ""));
  const page = remaining.slice(0, PAGE_SANDBOXES);
  const workspaces = await Promise.all(
    page.map(({ name, isRunning }) => listWorkspace(caller, name, isRunning)),
  );
  if (remaining.length > page.length) return { resources: workspaces.flat(), nextCursor: page.at(-1)?.name };
  const tasks = scopes.includes("tasks:run") ? await retryOnce(() => account().listTasks(MAX_TASKS)) : [];
  const results = tasks.map((task): Resource => ({
    uri: runURI(task.id, ""),
    name: task.id,
    title: `Task: ${makeVisible(task.title)}`,
    description: aboutTask(task.startedAt),
    mimeType: "application/json",
  }));
  return { resources: [...workspaces.flat(), ...results, ...skillResources] };
}

async function listWorkspace(
  caller: CallerContext,
  sandbox: string,
  isRunning: boolean,
): Promise<Resource[]> {
  const entries = isRunning ? await listTop(caller, sandbox) : undefined;
  const root: Resource = {
    uri: fileURI(sandbox, WORKSPACE) ?? "",
    name: `${sandbox}/`,
    ...aboutWorkspace(sandbox, entries !== undefined),
    mimeType: "application/json",
  };
  const shown = entries?.filter(({ path }) => !path.startsWith(".")) ?? [];
  const inside = shown.map((entry): Resource => {
    const isDirectory = entry.type === "directory";
    return {
      uri: entryURI(sandbox, WORKSPACE, entry) ?? "",
      name: `${sandbox}/${makeVisible(entry.path)}${isDirectory ? "/" : ""}`,
      mimeType: isDirectory ? "application/json" : typeOf(entry.path, undefined),
      size: entry.type === "file" ? entry.size : undefined,
      annotations: { lastModified: entry.modified },
    };
  });
  return [root, ...inside];
}

function listTop(caller: CallerContext, sandbox: string) {
  const listed = operateWithoutNotice(caller, sandbox, "glance", {
    path: WORKSPACE,
    depth: 1,
    limit: TOP_ENTRIES,
  });
  return waitAtMost(
    LIST_MS,
    listed.then(({ entries }) => entries),
  ).catch(() => undefined);
}
