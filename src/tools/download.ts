/** Links in results. Each link is a URL in the text and also a resource block, because some clients show only one of the two. */
import mime from "mime/lite";
import { type SandboxCall, callSandbox } from "../actors/sandbox-client.ts";
import { isTaskID } from "../runs/id.ts";
import type { RunView } from "../runs/run-types.ts";
import { undefinedIfFailed } from "../shared/errors.ts";
import { linkKeys } from "../actors/link-keys.ts";
import { type LinkName, writeToken } from "../shared/link-token.ts";
import { actorName } from "../shared/names.ts";
import type { Scope } from "../shared/principal.ts";
import { ARTIFACTS, LOG_NAME, fileURI, runURI } from "../shared/resource-uri.ts";
import { makeVisible } from "../shared/shown.ts";
import { taskDetailOf } from "../tasks/collect.ts";
import { type ToolContext, type ToolOutput, text, requireSandboxOf } from "./define.ts";
import { downloadText } from "./texts.ts";

type Block = ToolOutput["content"][number];

/** How long a link in a result is valid, in milliseconds. `file_link` has the same default. */
const EXPIRES_MS = 3_600_000;

const EXPIRES_STEP_MS = 600_000;

/** The most links to artifacts or files in one answer. `get_result` and `file_link` give the others. */
const MAX_LINKS = 10;

/** The text that stands for a stored HTML page in a kernel's result. */
const PAGE =
  /^\[An interactive page, HTML of (\d{1,10}) bytes: (\/workspace\/\.outputs\/\w{1,40}\.html)\]$/gm;

export interface Download {
  name: string;
  size?: number;
  uri: string | undefined;
  /** Undefined if the caller may not make links, or if no link could be stored or signed. */
  url: string | undefined;
}

export async function urlOf(context: ToolContext, link: LinkName): Promise<string | undefined> {
  const token = await writeToken(link, await linkKeys(context));
  const origin = context.config.publicOrigin ?? context.origin;
  return token === undefined || origin === undefined ? undefined : `${origin}/files/${token}`;
}

/** The expiry of a new link, in milliseconds since the epoch, rounded up, so that a repeated answer has the same link. */
function resultExpiry(): number {
  return Math.ceil((Date.now() + EXPIRES_MS) / EXPIRES_STEP_MS) * EXPIRES_STEP_MS;
}

/**
 * Stores links in the sandbox's actor, and returns their URLs. Returns an empty list if that fails, for example because
 * a link to a file needs a running container.
 */
async function storeLinks(
  context: ToolContext,
  sandbox: string,
  store: SandboxCall<string[]>,
): Promise<(string | undefined)[]> {
  const { principal, env } = context;
  const owner = { principalID: principal.id, sandbox, mayStart: false };
  const ids = await undefinedIfFailed(callSandbox(env, owner, store));
  const actor = await actorName(sandbox, principal.id);
  return Promise.all((ids ?? []).map((id) => urlOf(context, { actor, id })));
}

/** @param files with absolute paths, in a running sandbox */
export async function fileDownloads(
  context: ToolContext,
  sandbox: string,
  files: readonly { path: string; size?: number }[],
): Promise<Download[]> {
  if (files.length === 0 || !hasScope(context, "sandbox:read")) return [];
  const expires = resultExpiry();
  const links = files.map(({ path }) => ({ direction: "download" as const, path, expires }));
  const urls = await storeLinks(context, sandbox, (actor, owner) => actor.keepFileLinks(owner, links));
  if (urls.length === 0) return [];
  return files.map(({ path, size }, index) => {
    return { name: path, size, uri: fileURI(sandbox, path), url: urls[index] };
  });
}

/** Links to outputs of a run. @param files with names as in `sandbox://` addresses */
export async function runDownloads(
  context: ToolContext,
  id: string,
  files: readonly { name: string; size?: number; shown: string }[],
): Promise<Download[]> {
  const mayRead = hasScope(context, isTaskID(id) ? "tasks:run" : "sandbox:read");
  if (files.length === 0 || !mayRead) return [];
  const expires = resultExpiry();
  const links = files.map(({ name }) => ({ run: id, name, expires }));
  // A link works without a token, so only callers who may read files get one.
  const urls = hasScope(context, "sandbox:read")
    ? await storeLinks(context, requireSandboxOf(id), (actor, owner) => actor.keepRunLinks(owner, links))
    : [];
  return files.map(({ name, size, shown }, index) => {
    return { name: shown, size, uri: runURI(id, name), url: urls[index] };
  });
}

/** Links to the data that a result does not show: artifacts, a cut log, HTML pages, and the images of code. */
export async function downloadsOf(context: ToolContext, run: RunView): Promise<Download[]> {
  const isCut = run.stdout.omitted + run.stderr.omitted > 0;
  const log = isCut ? wholeLog(run) : [];
  const downloads = await runDownloads(context, run.id, [...artifactsOf(run), ...log]);
  return [...downloads, ...(await fileDownloads(context, requireSandboxOf(run.id), filesOf(run)))];
}

function artifactsOf(run: RunView) {
  const artifacts = taskDetailOf(run)?.artifacts ?? [];
  return artifacts
    .slice(0, MAX_LINKS)
    .map(({ path, size }) => ({ name: ARTIFACTS + path, size, shown: path }));
}

/** A link to the log of an ended run. A growing log gets no link, because the link would soon show too little. */
export function wholeLog({ state, logBytes }: RunView) {
  return state === "running" ? [] : [{ name: LOG_NAME, size: logBytes, shown: "the whole output" }];
}

function filesOf({ detail }: RunView): { path: string; size: number }[] {
  if (!detail || !("results" in detail)) return [];
  const found = detail.results.flatMap((result) =>
    "text" in result
      ? Array.from(result.text.matchAll(PAGE), ([, size, path = ""]) => ({ path, size: Number(size) }))
      : (result.original ?? []),
  );
  return found.slice(0, MAX_LINKS);
}

export function addDownloads(
  context: ToolContext,
  content: readonly Block[],
  downloads: readonly Download[],
): Block[] {
  const lines = downloads.flatMap((download) => downloadLine(download) ?? []).join("\n");
  const links = downloads.flatMap(({ uri, name, size }): Block[] => {
    if (uri === undefined || context.takesResourceLinks !== true) return [];
    const mimeType = mime.getType(name) ?? undefined;
    return [{ type: "resource_link", uri, name: makeVisible(name), size, mimeType }];
  });
  if (lines === "") return [...content, ...links];
  const at = content.findLastIndex(({ type }) => type === "text");
  const last = content[at];
  if (last?.type !== "text") return [...content, text(lines), ...links];
  return [...content.with(at, text(`${last.text}\n${lines}`)), ...links];
}

export function downloadLine({ name, url }: Download): string | undefined {
  return url === undefined ? undefined : downloadText(name, url);
}

function hasScope({ principal }: ToolContext, scope: Scope): boolean {
  return principal.scopes.includes(scope);
}
