import * as z from "zod";
import { actorName } from "../shared/names.ts";
import { linkKeys } from "../actors/link-keys.ts";
import { makeToken, readLabel, writeLabel } from "../shared/preview-address.ts";
import { previewURL } from "../shared/preview-url.ts";
import { canBeExposed, FIRST_PORT } from "../shared/reserved-ports.ts";
import { defineTool, sandboxField, joinSections, text, wholeNumber } from "./define.ts";
import { closedText, expiryText, noPreviews, notListeningText, reservedPort } from "./texts.ts";
import { DAY_SECONDS } from "../shared/days.ts";

export const exposePort = defineTool({
  name: "expose_port",
  title: "Expose a port",
  description:
    "Gives an HTTP or WebSocket server in a sandbox a URL. Anyone with it can use the server until the URL expires or the sandbox stops. The server may listen on 127.0.0.1 and start later. A port keeps its URL; expose=false closes it.",
  input: z.strictObject({
    port: wholeNumber(FIRST_PORT, 65_535),
    expose: z.boolean().default(true),
    expires_seconds: wholeNumber(1, DAY_SECONDS).default(3600),
    sandbox: sandboxField(),
  }),
  output: z.object({
    sandbox: z.string(),
    port: z.number(),
    exposed: z.boolean(),
    url: z.string().optional(),
    expires_at: z.string().optional(),
  }),
  showsPanel: true,
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true },
  scopes: ["sandbox:exec"],
  async handle({ port, expose, expires_seconds, sandbox }, context) {
    if (!expose) {
      const wasOpen = await context.sandbox(sandbox, (actor, owner) => actor.closePreview(owner, port));
      return {
        content: [text(closedText(port, sandbox, wasOpen))],
        structured: { sandbox, port, exposed: false },
      };
    }
    if (!canBeExposed(port)) throw reservedPort(port);
    const actor = await actorName(sandbox, context.principal.id);
    const keys = await linkKeys(context);
    const token = await makeToken(port, actor, keys);
    const url = previewURL({ port, actor, token: token ?? "" }, context);
    if (token === undefined || url === undefined)
      throw noPreviews(url === undefined ? "PREVIEW_HOST" : "LINK_KEY");
    const open = (invalid?: string) =>
      context.sandbox(sandbox, (stub, owner) =>
        stub.openPreview(owner, port, token, expires_seconds * 1000, invalid),
      );
    let preview = await open();
    // An open port keeps its address, but the address is no longer valid if the key that signed it has been replaced.
    if (!(await readLabel(writeLabel({ port, actor, token: preview.token }), keys)))
      preview = await open(preview.token);
    const opened = previewURL({ port, actor, token: preview.token }, context);
    const expires_at = new Date(preview.expiresAt).toISOString();
    const summary = joinSections([
      ["url", opened],
      ["expires", expiryText(preview.expiresAt, preview.before)],
      ["listening", preview.isSilent ? notListeningText(port) : undefined],
    ]);
    const structured = { sandbox, port, exposed: true, url: opened, expires_at };
    return { content: [text(summary)], structured };
  },
});
