/** Files over plain HTTP: `/files/<token>` for links, `/sandboxes/<name>/files/<path>` for scripts with a token. */
import { markup } from "../auth/html.ts";
import { page } from "../auth/page.ts";
import { ANY_DEPTH, PATH_MAX } from "../../container/sandboxd/operations.ts";
import { MAX_LISTED, WORKSPACE, absolute } from "../../container/sandboxd/shapes.ts";
import { canStartWith, operate, sandboxActor } from "../actors/sandbox-client.ts";
import type { Owner } from "../actors/account-calls.ts";
import { insufficientScope } from "../auth/bearer.ts";
import { requireListCursor } from "../container/file-operations.ts";
import { ToolError, toolErrorOf } from "../shared/errors.ts";
import { linkKeys } from "../actors/link-keys.ts";
import {
  type FileLink,
  type LinkName,
  MAX_UPLOAD_BYTES,
  type RunLink,
  readToken,
} from "../shared/link-token.ts";
import { MAX_HELD_BYTES } from "../shared/limits.ts";
import { countAnswer, RequestMemory } from "../shared/request-memory.ts";
import { logError } from "../shared/log.ts";
import { SANDBOX_NAME, sandboxNameRule } from "../shared/names.ts";
import type { Scope } from "../shared/principal.ts";
import type { CallerContext, RequestContext } from "../shared/request-context.ts";
import { json, refuse as refuseCaller } from "../shared/responses.ts";
import { decode } from "../shared/resource-uri.ts";
import { shownName } from "../shared/shown.ts";
import { recordCall } from "../tools/define.ts";
import {
  fileErrorResponse,
  type FileCall,
  receiveFile,
  refuseConditions,
  sendArchive,
  sendFile,
  sendRunFile,
  drainBody,
} from "./file-response.ts";
import { acceptsHTML } from "./landing.ts";
import * as texts from "./texts.ts";
import { UPLOAD_SCRIPT } from "./upload-script.ts";

export async function serveLink(request: Request, context: RequestContext): Promise<Response> {
  const [, , token = ""] = new URL(request.url).pathname.split("/");
  const named = await readToken(token, await linkKeys(context));
  return named ? await serveNamed(request, context, named) : refuse(request, 403, texts.LINK_TEXTS.invalid);
}

async function serveNamed(request: Request, context: RequestContext, named: LinkName): Promise<Response> {
  const link = await findLink(context, named);
  if (!link || link.expires < Date.now()) return refuse(request, 410, texts.LINK_TEXTS.expired);
  const isRead = request.method === "GET" || request.method === "HEAD";
  if (!isRead && ("run" in link || link.direction === "download"))
    return refuse(request, 403, texts.LINK_TEXTS.isDownload);
  try {
    if ("run" in link) return await downloadRun(request, context, link);
    return link.direction === "download"
      ? await download(request, context, link)
      : await (isRead ? uploadPage(request, context, link) : upload(request, context, link));
  } catch (error) {
    if (!(error instanceof ToolError)) logError(context, "file_link", error);
    const failed = fileErrorResponse(toolErrorOf(error, context.requestID));
    return acceptsHTML(request) && error instanceof ToolError
      ? refuse(request, failed.status, error.text)
      : failed;
  }
}

async function findLink(context: RequestContext, name: LinkName): Promise<FileLink | RunLink | undefined> {
  const link = await sandboxActor(context.env, name.actor).findLink(name.id);
  return link && ("run" in link ? { ...link, actor: name.actor } : { ...link, ...name });
}

async function download(request: Request, { env, ctx }: RequestContext, link: FileLink): Promise<Response> {
  const linkOwner = await sandboxActor(env, link.actor).linkOwner(link.epoch);
  if (!linkOwner) return refuse(request, 410, texts.LINK_TEXTS.sandboxGone);
  const owner: Owner = { ...linkOwner, scopes: ["sandbox:read"] };
  const call: FileCall = { request, env, ctx, owner, by: "link", path: link.path };
  return sendFile(call, () => sendArchive(call, "tar.gz"));
}

async function downloadRun(request: Request, { env, ctx }: RequestContext, link: RunLink): Promise<Response> {
  const owner = await sandboxActor(env, link.actor).linkOwner();
  try {
    if (owner) return await sendRunFile({ request, env, ctx, owner, by: "link" }, link);
  } catch (error) {
    if (!(error instanceof ToolError) || error.code !== "not_found") throw error;
  }
  return refuse(request, 410, texts.LINK_TEXTS.noResult);
}

function upload(request: Request, context: RequestContext, link: FileLink): Promise<Response> {
  const response = claimAndStore(request, context, link);
  // The platform ends a request when its client disconnects. A claimed link must still be released.
  context.ctx.waitUntil(response.catch(() => undefined));
  return response;
}

async function claimAndStore(request: Request, context: RequestContext, link: FileLink): Promise<Response> {
  const actor = sandboxActor(context.env, link.actor);
  const owner = await actor.linkOwner(link.epoch);
  if (!owner) return refuse(request, 410, texts.LINK_TEXTS.sandboxGone);
  const claim = await actor.claimLink({ id: link.id, expires: link.expires });
  if (claim !== "claimed") {
    await drainBody(request);
    return claim === "used"
      ? refuse(request, 410, texts.LINK_TEXTS.used)
      : refuse(request, 409, texts.LINK_TEXTS.busy);
  }
  return await storeUpload(request, context, link, owner);
}

async function storeUpload(request: Request, { env, ctx }: RequestContext, link: FileLink, linkOwner: Owner) {
  let isDone = false;
  try {
    const scopes: Scope[] = link.confined === false ? ["sandbox:write", "sandbox:exec"] : ["sandbox:write"];
    const owner = { ...linkOwner, scopes };
    const call: FileCall = { request, env, ctx, owner, by: "link", path: link.path };
    const written = await receiveFile(call, link.max ?? MAX_UPLOAD_BYTES);
    isDone = true;
    if (acceptsHTML(request)) {
      const body = markup`<h1>${texts.UPLOAD_TEXTS.done}</h1><p>${texts.UPLOAD_TEXTS.received(written.size, markup`<code>${written.sha256}</code>`)}</p>`;
      return await page(texts.UPLOAD_TEXTS.done, body, { status: 201 });
    }
    return json({ path: link.path, ...written }, 201);
  } finally {
    await sandboxActor(env, link.actor).releaseLink({ id: link.id, expires: link.expires }, isDone);
  }
}

async function uploadPage(request: Request, context: RequestContext, link: FileLink): Promise<Response> {
  const actor = sandboxActor(context.env, link.actor);
  if (!(await actor.linkOwner(link.epoch))) return refuse(request, 410, texts.LINK_TEXTS.sandboxGone);
  if (link.isUsedUp) return refuse(request, 410, texts.LINK_TEXTS.used);
  const max = link.max ?? MAX_UPLOAD_BYTES;
  const { heading, about, choose, send, progress, inTerminal, addressOfPage, title } = texts.UPLOAD_TEXTS;
  const path = markup`<code>${shownName(link.path)}</code>`;
  const body = markup`<h1>${heading}</h1>
<p>${about(path, readableSize(max))}</p>
<form method="post" enctype="multipart/form-data" id="form" class="drop" data-max="${String(max)}">
<p><label for="file">${choose}</label></p>
<p><input type="file" name="file" id="file" required></p>
<button>${send}</button>
</form>
<progress id="progress" max="1" value="0" aria-label="${progress}" hidden></progress>
<p id="message" role="status"></p>
<p class="soft">${inTerminal(markup`<code>curl -T FILE '${addressOfPage}'</code>`)}</p>`;
  return page(title, body, { script: UPLOAD_SCRIPT });
}

function readableSize(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[unit]}`;
}

function refuse(request: Request, status: number, words: string): Promise<Response> | Response {
  return acceptsHTML(request)
    ? page(texts.LINK_PAGE_TITLE, markup`<h1>${words}</h1>`, { status })
    : json({ error: words }, status);
}

export const FILES_PATH = "/sandboxes/:name/files/*";

const SCOPES_BY_METHOD: Record<string, readonly Scope[]> = {
  GET: ["sandbox:read"],
  HEAD: ["sandbox:read"],
  PUT: ["sandbox:write"],
  DELETE: ["sandbox:write"],
};

/** `/sandboxes/<name>/files/<path>`. The path is relative to /workspace, or absolute after a second slash. */
export async function serveFiles(request: Request, caller: CallerContext): Promise<Response> {
  const scopes = SCOPES_BY_METHOD[request.method] ?? [];
  const refusal = insufficientScope(caller, scopes);
  if (refusal) return refuseCaller(caller, refusal, FILES_PATH);
  const { pathname, searchParams } = new URL(request.url);
  const [, , segment = "", , ...parts] = pathname.split("/");
  const sandbox = decode(segment) ?? segment;
  const isNamed = SANDBOX_NAME.test(sandbox);
  const memory = RequestMemory.forCall(caller.principal.id, request.signal);
  const response = await recordCall(
    caller,
    { tool: "files", scopes, sandbox: isNamed ? sandbox : undefined },
    async () => {
      if (!memory.hasRoomFor(0)) throw new ToolError("quota_exceeded", texts.noRoomText(MAX_HELD_BYTES));
      const path = absolute(decodePath(parts.join("/")) || ".");
      if (!isNamed) throw texts.notASandbox(sandboxNameRule(sandbox));
      if (path.includes("\0")) throw texts.notAFileAddress();
      if (path.length > PATH_MAX) throw texts.pathTooLong(PATH_MAX);
      const { id: principalID, region, scopes: granted } = caller.principal;
      const mayStart = mayStartFor(request.method, granted);
      const owner = { principalID, sandbox, region, scopes: granted, mayStart };
      const { env, ctx } = caller;
      const call: FileCall = { request, env, ctx, owner, by: "token", path };
      const recursive = searchParams.get("recursive") === "true";
      switch (request.method) {
        case "PUT":
          return json({ path, ...(await receiveFile(call, MAX_UPLOAD_BYTES)) });
        case "DELETE": {
          if (path === "/" || path === WORKSPACE) throw texts.notRemoved(path);
          await refuseConditions(request);
          await operate(caller.env, owner, "remove", { path, recursive }).catch((error: unknown) => {
            if (!(error instanceof ToolError) || error.code !== "is_directory") throw error;
            throw new ToolError(error.code, error.message, texts.REMOVE_RECURSIVELY);
          });
          return new Response(null, { status: 204 });
        }
        default:
          return sendFile(call, async () => {
            const after = requireListCursor(searchParams.get("cursor") ?? undefined);
            const listing = { path, depth: recursive ? ANY_DEPTH : 1, limit: MAX_LISTED, after };
            const { entries, next } = await operate(caller.env, owner, "list", listing);
            countAnswer(memory, entries, true);
            return json({ path, entries, more: next !== undefined, next_cursor: next });
          });
      }
    },
  );
  return memory.releaseAfter(response instanceof Response ? response : fileErrorResponse(response));
}

/** A read-only token starts no container. Reading and deleting start only sandboxes that exist already. */
function mayStartFor(method: string, scopes: readonly Scope[]): Owner["mayStart"] {
  if (method === "PUT") return true;
  return canStartWith(scopes) && "ifKnown";
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    throw texts.pathNotEncoded();
  }
}
