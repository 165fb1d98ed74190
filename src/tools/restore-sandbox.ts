import { z } from "zod";
import { accountOf } from "../actors/account-of.ts";
import type { Checkpoint } from "../actors/snapshot-registry.ts";
import { retryOnce } from "../actors/actor-errors.ts";
import { unwrap } from "../shared/errors.ts";
import { fork, mustSaveWorkspaces, savesWorkspaces } from "./checkpoints.ts";
import { defineTool, sandboxName, text } from "./define.ts";

interface RestoreResult {
  to: Checkpoint;
  before?: Checkpoint | undefined;
  unsaved?: string | undefined;
  hasSettings?: boolean;
}

export const restoreSandbox = defineTool({
  name: "restore_sandbox",
  title: "Restore or fork",
  description:
    "Puts a sandbox back to its checkpoint: processes and kernels end, and the state before becomes a checkpoint too. With a new name, makes a new sandbox of it (a fork).",
  input: z.strictObject({
    checkpoint: z.string().max(64),
    sandbox: sandboxName(),
  }),
  output: z.object({
    sandbox: z.string(),
    checkpoint: z.string(),
    /** The checkpoint of the state before; none for a new sandbox. */
    before: z.string().optional(),
    files: z.number(),
    bytes: z.number(),
  }),
  isOffered: savesWorkspaces,
  annotations: { readOnlyHint: false, destructiveHint: true },
  scopes: ["sandbox:write"],
  async handle({ checkpoint: id, sandbox }, context) {
    mustSaveWorkspaces(context);
    const account = () => accountOf(context.env, context.principal.id);
    const { checkpoint: found, exists } = unwrap(
      await retryOnce(async () => account().findCheckpoint(id, sandbox)),
    );
    // Of a sandbox that was destroyed, the checkpoint has what was set there, too.
    const isFork = found.sandbox !== sandbox || !exists;
    const made: RestoreResult = isFork
      ? await fork(context, id, sandbox)
      : (await context.sandbox(sandbox, (actor, owner) => actor.restoreCheckpoint(owner, id))).value;
    const { to, hasSettings = false } = made;
    const state = `as it was at ${new Date(to.savedAt).toISOString()}: ${to.files} files, ${to.bytes} bytes`;
    const summary = isFork
      ? `Sandbox ${sandbox} is new, with /workspace of ${found.sandbox} ${state}.${hasSettings ? " What configure_sandbox had set there holds here, too." : ""}`
      : `Sandbox ${sandbox} is put back: /workspace is ${state}. ${describePrevious(made)}`;
    return {
      content: [text(summary)],
      structured: { sandbox, checkpoint: id, before: made.before?.id, files: to.files, bytes: to.bytes },
    };
  },
});

/** What is kept of the state before. */
function describePrevious({ before, unsaved }: RestoreResult): string {
  if (unsaved === undefined)
    return before ? `Its state before is checkpoint ${before.id}.` : "It had no files before.";
  const lost = `Its state before could not be saved (${unsaved})`;
  if (!before) return `${lost}, and nor was an earlier one: it is lost.`;
  const savedAt = new Date(before.savedAt).toISOString();
  return `${lost}: checkpoint ${before.id} is as it was saved at ${savedAt}, and what changed since is lost.`;
}
