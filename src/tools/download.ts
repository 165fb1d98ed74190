/** Links in results: the URL in text, and the resource for clients that show those, because some show only one. */
import mime from "mime/lite";
import { callSandbox } from "../actors/sandbox-client.ts";
import { isTaskID } from "../runs/id.ts";
import { ToolError } from "../shared/errors.ts";
import { type FileLink, type RunLink, writeToken } from "../shared/file-link.ts";
import { actorName } from "../shared/names.ts";
import type { Scope } from "../shared/principal.ts";
import { fileURI, runURI } from "../shared/resource-uri.ts";
import { type ToolContext, type ToolOutput, text } from "./define.ts";
import { ownRun } from "./own-run.ts";

type Block = ToolOutput["content"][number];

/** How long a link in a result is good for, milliseconds: as long as one of `file_link` unless asked otherwise. */
const EXPIRES_MS = 3_600_000;

/** What can be downloaded. */
export interface Download {
  /** As it is called in the result. */
  name: string;
  /** Bytes. */
  size?: number;
  /** The address as a resource; undefined where it has none, or the caller may not read it. */
  uri: string | undefined;
  /** Undefined where the caller may make no link, or the server has no secret to sign it with. */
  url: string | undefined;
}

/** The URL of a link; undefined where the server has no secret to sign it with. */
export async function urlOf(context: ToolContext, link: FileLink | RunLink): Promise<string | undefined> {
  const token = await writeToken(link, context.config);
  const origin = context.config.publicOrigin ?? context.origin;
  return token === undefined || origin === undefined ? undefined : `${origin}/files/${token}`;
}

/** Files of a sandbox whose container runs. @param files with absolute paths */
export async function fileDownloads(
  context: ToolContext,
  sandbox: string,
  files: readonly { path: string; size?: number }[],
): Promise<Download[]> {
  const { principal, env } = context;
  if (files.length === 0 || !may(context, "sandbox:read")) return [];
  const owner = { principalID: principal.id, sandbox, mayStart: false, takesNotice: false };
  // Without its container a sandbox has no files to link to.
  const epoch = await callSandbox(env, owner, (actor, known) => actor.linkEpoch(known)).catch(
    (error: unknown) => {
      if (error instanceof ToolError) return undefined;
      throw error;
    },
  );
  if (!epoch) return [];
  const actor = await actorName(sandbox, principal.id);
  return Promise.all(
    files.map(async ({ path, size }) => {
      const expires = Date.now() + EXPIRES_MS;
      const direction = "download" as const;
      const link = {
        actor,
        epoch: epoch.value,
        direction,
        path,
        expires,
        id: crypto.randomUUID().slice(0, 8),
      };
      return { name: path, size, uri: fileURI(sandbox, path), url: await urlOf(context, link) };
    }),
  );
}

/** What a run left. @param files with names as addresses of resources have them */
export async function runDownloads(
  context: ToolContext,
  id: string,
  files: readonly { name: string; size?: number; shown: string }[],
): Promise<Download[]> {
  const mayRead = may(context, isTaskID(id) ? "tasks:run" : "sandbox:read");
  if (files.length === 0 || !mayRead) return [];
  const actor = await actorName(ownRun(id), context.principal.id);
  const expires = Date.now() + EXPIRES_MS;
  return Promise.all(
    files.map(async ({ name, size, shown }) => ({
      name: shown,
      size,
      uri: runURI(id, name),
      // Whoever has a link needs no token, so only who may read files hands them out.
      url: may(context, "sandbox:read") ? await urlOf(context, { actor, run: id, name, expires }) : undefined,
    })),
  );
}

/** A result with a line for each at the end of its text, and with the resources where the client knows such blocks. */
export function withDownloads(
  context: ToolContext,
  content: readonly Block[],
  downloads: readonly Download[],
): Block[] {
  const lines = downloads.flatMap((download) => downloadLine(download) ?? []).join("\n");
  const links = downloads.flatMap(({ uri, name, size }): Block[] =>
    uri === undefined || context.takesResourceLinks !== true
      ? []
      : [{ type: "resource_link", uri, name, size, mimeType: mime.getType(name) ?? undefined }],
  );
  const at = content.findLastIndex(({ type }) => type === "text");
  const last = content[at];
  const said =
    lines === ""
      ? content
      : last?.type === "text"
        ? content.with(at, text(`${last.text}\n${lines}`))
        : [...content, text(lines)];
  return [...said, ...links];
}

/** The line that gives a user the URL; undefined where there is none. */
export function downloadLine({ name, url }: Download): string | undefined {
  return url === undefined ? undefined : `[Download ${name} (link for the user, good for an hour): ${url}]`;
}

function may({ principal }: ToolContext, scope: Scope): boolean {
  return principal.scopes.includes(scope);
}
