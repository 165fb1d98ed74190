import { z } from "zod";
import { accountOf } from "../actors/sandbox-client.ts";
import type { Checkpoint } from "../actors/snapshot-registry.ts";
import { twice } from "../actors/actor-errors.ts";
import { unwrap } from "../shared/errors.ts";
import { fork, mustSaveWorkspaces, savesWorkspaces } from "./checkpoints.ts";
import { defineTool, sandboxName, text } from "./define.ts";

interface Made {
  to: Checkpoint;
  before?: Checkpoint | undefined;
  hasSettings?: boolean;
}

export const restoreSandbox = defineTool({
  name: "restore_sandbox",
  title: "Restore or fork a checkpoint",
  description:
    "Puts the sandbox of a checkpoint back to it: its processes and kernels end, and its state before becomes a checkpoint too. With a new name it makes a new sandbox of the checkpoint (a fork).",
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
    const found = unwrap(await twice(async () => account().findCheckpoint(id)));
    const isFork = found.sandbox !== sandbox;
    const made: Made = isFork
      ? await fork(context, id, sandbox)
      : (await context.sandbox(sandbox, (actor, owner) => actor.goBack(owner, id))).value;
    const { to, before, hasSettings = false } = made;
    const state = `as it was at ${new Date(to.savedAt).toISOString()}: ${to.files} files, ${to.bytes} bytes`;
    const said = isFork
      ? `Sandbox ${sandbox} is new, with /workspace of ${found.sandbox} ${state}.${hasSettings ? " What configure_sandbox had set there holds here, too." : ""}`
      : `Sandbox ${sandbox} is put back: /workspace is ${state}. ${before ? `Its state before is checkpoint ${before.id}.` : "It had no files before."}`;
    return {
      content: [text(said)],
      structured: { sandbox, checkpoint: id, before: before?.id, files: to.files, bytes: to.bytes },
    };
  },
});
