import * as z from "zod";
import { accountOf } from "../actors/account-of.ts";
import { retryOnce } from "../actors/sandbox-client.ts";
import { unwrap } from "../shared/errors.ts";
import { fork, requireSavedWorkspaces, savesWorkspaces } from "./checkpoints.ts";
import { defineTool, sandboxName, text } from "./define.ts";
import { type Restored, forkedText, restoredText } from "./texts.ts";

export const restoreSandbox = defineTool({
  name: "restore_sandbox",
  title: "Restore or fork",
  description:
    "Restores a sandbox's files from its checkpoint. Processes and kernels end; the previous state becomes a checkpoint too. A new name makes a new sandbox (a fork).",
  input: z.strictObject({ checkpoint: z.string().max(64), sandbox: sandboxName() }),
  output: z.object({
    sandbox: z.string(),
    checkpoint: z.string(),
    /** The checkpoint of the previous state; none for a new sandbox. */
    before: z.string().optional(),
    files: z.number(),
    bytes: z.number(),
  }),
  isOffered: savesWorkspaces,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:write"],
  async handle({ checkpoint: id, sandbox }, context) {
    requireSavedWorkspaces(context);
    const account = () => accountOf(context.env, context.principal.id);
    const { checkpoint: found, exists } = unwrap(
      await retryOnce(async () => account().findCheckpoint(id, sandbox)),
    );
    // A destroyed sandbox has lost its settings. A fork restores them from the checkpoint.
    const isFork = found.sandbox !== sandbox || !exists;
    const made: Restored = isFork
      ? await fork(context, id, sandbox)
      : await context.sandbox(sandbox, (actor, owner) => actor.restoreCheckpoint(owner, id));
    const { to } = made;
    const summary = isFork ? forkedText(sandbox, found.sandbox, made) : restoredText(sandbox, made);
    return {
      content: [text(summary)],
      structured: { sandbox, checkpoint: id, before: made.before?.id, files: to.files, bytes: to.bytes },
    };
  },
});
