import * as z from "zod";
import { absolute } from "../../container/sandboxd/shapes.ts";
import { undefinedIfFailed } from "../shared/errors.ts";
import { MAX_UPLOAD_BYTES } from "../shared/link-token.ts";
import { actorName } from "../shared/names.ts";
import {
  type ToolContext,
  defineTool,
  pathField,
  sandboxField,
  joinSections,
  text,
  wholeNumber,
} from "./define.ts";
import { urlOf } from "./download.ts";
import { LINK_HINTS, expiryText, mayNotUpload, noLinks, uploadToDirectory } from "./texts.ts";
import { DAY_SECONDS } from "../shared/days.ts";

export const fileLink = defineTool({
  name: "file_link",
  title: "Link to a file",
  description:
    "Makes a URL for the user to download a file or directory (.tar.gz, .zip) or upload a file of up to 5 GiB. The URL ends when the sandbox stops.",
  input: z.strictObject({
    path: pathField(),
    direction: z.enum(["download", "upload"]).default("download"),
    expires_seconds: wholeNumber(1, DAY_SECONDS).default(3600),
    max_bytes: wholeNumber(1, MAX_UPLOAD_BYTES).optional().describe("For upload."),
    sandbox: sandboxField(),
  }),
  output: z.object({
    url: z.string(),
    path: z.string(),
    expires_at: z.string(),
    size: z.number().optional(),
    sha256: z.string().optional(),
  }),
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true },
  scopes: ["sandbox:read"],
  async handle({ path, direction, expires_seconds, max_bytes, sandbox }, context) {
    const isUpload = direction === "upload";
    if (isUpload && !context.principal.scopes.includes("sandbox:write")) throw mayNotUpload();
    const described = isUpload ? undefined : await context.operate(sandbox, "stat", { path, digest: true });
    const expires = Date.now() + expires_seconds * 1000;
    const confined = !context.principal.scopes.includes("sandbox:exec");
    const bounds = isUpload ? { max: max_bytes ?? MAX_UPLOAD_BYTES, confined } : {};
    const link = { direction, path: absolute(path), ...bounds, expires };
    const ids = await context.sandbox(sandbox, (actor, owner) => actor.keepFileLinks(owner, [link]));
    const actor = await actorName(sandbox, context.principal.id);
    const url = await urlOf(context, { actor, id: ids[0] ?? "" });
    if (url === undefined) throw noLinks();
    if (isUpload) await refuseDirectory(context, sandbox, path);
    const expires_at = new Date(expires).toISOString();
    const { type, sha256 } = described ?? {};
    const size = type === "file" ? described?.size : undefined;
    const summary = joinSections([
      ["url", url],
      ["expires", expiryText(expires)],
      ["size", size],
      ["sha256", sha256],
      ["download", isUpload ? undefined : LINK_HINTS.download],
      ["as .zip", type === "directory" ? LINK_HINTS.zip : undefined],
      ["upload", isUpload ? LINK_HINTS.upload : undefined],
    ]);
    const structured = { url, path: link.path, expires_at, size, sha256 };
    return { content: [text(summary)], structured };
  },
});

/** @throws {ToolError} `is_directory` for a path that cannot be written as a file */
async function refuseDirectory(context: ToolContext, sandbox: string, path: string): Promise<void> {
  // These errors are ignored: the upload creates a missing directory or sandbox, and reports an invalid path.
  const existing = await undefinedIfFailed(context.operate(sandbox, "stat", { path }), [
    "not_found",
    "invalid_argument",
  ]);
  if (existing?.type === "directory" || path.endsWith("/")) throw uploadToDirectory(absolute(path));
}
