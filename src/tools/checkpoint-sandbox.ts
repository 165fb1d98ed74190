import * as z from "zod";
import { requireSavedWorkspaces, savesWorkspaces } from "./checkpoints.ts";
import { defineTool, sandboxField, text } from "./define.ts";
import { checkpointText } from "./texts.ts";

/** Characters that would break a line of list_sandboxes, or control a terminal. */
const CONTROL = /[\p{Cc}\p{Zl}\p{Zp}]/u;

export const checkpointSandbox = defineTool({
  name: "checkpoint_sandbox",
  title: "Checkpoint a sandbox",
  description:
    "Before a risky step or a fork: saves a sandbox's files (not processes or kernels) for restore_sandbox.",
  input: z.strictObject({
    sandbox: sandboxField(),
    label: z
      .string()
      .max(100)
      .refine((label) => !CONTROL.test(label), "must not contain line breaks or other control characters")
      .optional(),
  }),
  output: z.object({
    checkpoint: z.string(),
    sandbox: z.string(),
    files: z.number(),
    bytes: z.number(),
    expires_at: z.string(),
  }),
  isOffered: savesWorkspaces,
  showsPanel: true,
  annotations: { readOnlyHint: false, destructiveHint: false },
  scopes: ["sandbox:write"],
  async handle({ sandbox, label }, context) {
    requireSavedWorkspaces(context);
    const made = await context.sandbox(sandbox, (actor, owner) => actor.makeCheckpoint(owner, label ?? ""));
    const { id, files, bytes, expiresAt } = made;
    const expires_at = new Date(expiresAt).toISOString();
    const summary = checkpointText(sandbox, made);
    return {
      content: [text(summary)],
      structured: { checkpoint: id, sandbox, files, bytes, expires_at },
    };
  },
});
