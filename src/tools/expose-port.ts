import { SANDBOXD_PORT } from "../../container/sandboxd/protocol.ts";
import { z } from "zod";
import { ToolError } from "../shared/errors.ts";
import { actorName } from "../shared/names.ts";
import { linkKeys } from "../actors/link-keys.ts";
import { makeToken } from "../shared/preview-address.ts";
import { previewURL } from "../shared/preview-url.ts";
import { defineTool, sandboxField, sections, text } from "./define.ts";
import { DAY_SECONDS } from "../shared/days.ts";

/** Ports that the server itself uses in a sandbox: the SDK's, the proxy of a local one, and sandboxd's. */
const RESERVED = new Set([3000, 3128, SANDBOXD_PORT]);

export const exposePort = defineTool({
  name: "expose_port",
  title: "Expose a port",
  description:
    "Gives a web server in a sandbox (app, dev server, API; HTTP and WebSocket) a URL. Whoever has it can use it until it expires or the sandbox stops. The server may listen on 127.0.0.1 and start later. A port keeps its URL; expose false closes it.",
  input: z.strictObject({
    port: z.number().int().min(1024).max(65_535),
    expose: z.boolean().default(true),
    expires_seconds: z.number().int().min(1).max(DAY_SECONDS).default(3600),
    sandbox: sandboxField(),
  }),
  output: z.object({
    sandbox: z.string(),
    port: z.number(),
    exposed: z.boolean(),
    url: z.string().optional(),
    expires_at: z.string().optional(),
    notice: z.string().optional(),
  }),
  showsPanel: true,
  annotations: { readOnlyHint: false, destructiveHint: false, idempotentHint: true },
  scopes: ["sandbox:exec"],
  async handle({ port, expose, expires_seconds, sandbox }, context) {
    if (!expose) {
      const { value: wasOpen, notice } = await context.sandbox(sandbox, (actor, owner) =>
        actor.closePreview(owner, port),
      );
      const summary = `Port ${port} of sandbox ${sandbox} is ${wasOpen ? "not exposed any more" : "not exposed"}.`;
      return {
        content: [text([sections([["notice", notice]]), summary].filter(Boolean).join("\n"))],
        structured: { sandbox, port, exposed: false, notice },
      };
    }
    if (RESERVED.has(port))
      throw new ToolError(
        "invalid_argument",
        `Port ${port} of a sandbox is the server's own and cannot be exposed.`,
        "Start the program on another port, for example with PORT=8000, and expose that.",
      );
    const actor = await actorName(sandbox, context.principal.id);
    const token = await makeToken(port, actor, await linkKeys(context));
    const url = previewURL({ port, actor, token: token ?? "" }, context);
    if (token === undefined || url === undefined)
      throw notConfigured(url === undefined ? "PREVIEW_HOST" : "LINK_KEY");
    const { value, notice } = await context.sandbox(sandbox, (stub, owner) =>
      stub.openPreview(owner, port, token, expires_seconds * 1000),
    );
    const opened = previewURL({ port, actor, token: value.token }, context);
    const expires_at = isoTime(value.expiresAt);
    const isSooner = value.before > value.expiresAt;
    return {
      content: [
        text(
          sections([
            ["notice", notice],
            ["url", opened],
            [
              "expires",
              isSooner ? `${expires_at}, sooner than before: ${isoTime(value.before)}` : expires_at,
            ],
          ]),
        ),
      ],
      structured: { sandbox, port, exposed: true, url: opened, expires_at, notice },
    };
  },
});

function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}

function notConfigured(variable: string): ToolError {
  return new ToolError(
    "not_configured",
    `This server shows no previews: its variable ${variable} is not set.`,
    "Tell the user: whoever runs the server sets it, as docs/guides/deploy.md says. Within the sandbox the program can be reached with curl.",
  );
}
